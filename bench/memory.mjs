/**
 * Memory and the event loop of the caller during one encode of 20,000 documents, in a process of its own. With
 * `--context` the embedder is bound to a spectral context of 512 of them.
 *
 *   node bench/memory.mjs --base <all-MiniLM-L6-v2> [--data <BEIR sets>] [--documents 20000] [--dtype float32] [--context] [--quick]
 */
import { readOptions } from "./lib/options.mjs";
import { line, machine } from "./lib/report.mjs";
import { Subject } from "./lib/subject.mjs";

const defaults = { documents: 20_000, dtype: "float32", context: false };
const { base, data, documents, dtype, context } = readOptions(defaults, { documents: 1500 });

machine();
const subject = Subject.node("memory", JSON.stringify({ base, data, documents, dtype, context }));
const { peak, before, samples, seconds, gaps } = await subject.ask({ do: "encode" });
subject.end();

console.log(`${documents} documents in ${seconds.toFixed(0)} s, ${before.toFixed(0)} MB resident before`);
console.log("documents done, resident MB:");
const step = Math.max(1, Math.floor(samples.length / 12));
console.log(
  `  ${samples.flatMap(([done, resident], i) => (i % step ? [] : [`${done}: ${resident.toFixed(0)}`])).join(", ")}`,
);
console.log(
  `largest gaps of the event loop, ms (at this part of the time): ${gaps.map(([ms, at]) => `${ms.toFixed(0)} (${(100 * at).toFixed(1)} %)`).join(", ")}`,
);
line("peak resident memory", { ratio: peak / 1000 }, { atMost: 1, unit: " GB" });
line("growth over the last three quarters, a 1,000 documents", { ratio: slope(samples) }, { atMost: 2, unit: " MB" });
line("largest gap of the event loop", { ratio: gaps[0][0] }, { atMost: 50, unit: " ms" });
machine();

/** Least squares of memory over documents, from a quarter on. A vector kept is 1.5 kB, so 1.5 MB are the results' own. */
function slope(all) {
  const points = all.filter(([done]) => done >= documents / 4);
  const mean = (column) => points.reduce((sum, point) => sum + point[column], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const [xy, xx] = points.reduce(([a, b], p) => [a + (p[0] - x) * (p[1] - y), b + (p[0] - x) ** 2], [0, 0]);
  return (1000 * xy) / xx;
}
