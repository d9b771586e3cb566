/** Figures as text: ratios with their spread, the machine they come from, and whether results are equal. */
import { cpus, loadavg } from "node:os";

export function quantile(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
}

export const median = (values) => quantile(values, 0.5);

/** How much faster `ours` is than `theirs`: ratio of medians, and the smallest and largest ratio of one round. */
export function speedUp(theirs, ours) {
  const rounds = theirs.map((time, round) => time / ours[round]);
  return { ratio: median(theirs) / median(ours), least: Math.min(...rounds), most: Math.max(...rounds) };
}

/** One line of a comparison beside its target: `atLeast` or `atMost`. */
export function line(name, { ratio, least, most }, { atLeast, atMost, unit = "x" } = {}) {
  const target = atLeast !== undefined ? `at least ${atLeast}` : atMost !== undefined ? `at most ${atMost}` : "none";
  const met = ratio >= (atLeast ?? -Infinity) && ratio <= (atMost ?? Infinity);
  const spread = least === undefined ? "" : ` (${least.toFixed(2)}–${most.toFixed(2)})`;
  console.log(
    `${name.padEnd(58)} ${ratio.toFixed(3)}${unit}${spread}, target ${target}${target === "none" ? "" : met ? ": met" : ": MISSED"}`,
  );
}

export function machine() {
  const load = loadavg().map((value) => value.toFixed(1));
  console.log(`Node ${process.version}, ${cpus().length} x ${cpus()[0].model}, load average ${load.join(" ")}`);
}

/** The smallest cosine of two lists of vectors. */
export function leastCosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return Math.min(...a.map((x, i) => dot(x, b[i]) / Math.sqrt(dot(x, x) * dot(b[i], b[i]))));
}

/** Throws where results that are to be compared aren't the same. */
export function checkEqual(name, a, b, least) {
  const cosine = leastCosine(a, b);
  if (!(cosine > least)) throw new Error(`${name}: the least cosine is ${cosine}, above ${least} is wanted.`);
  console.log(`${name}: ${a.length} vectors, least cosine ${cosine.toFixed(7)}`);
}
