/**
 * Peak of memory of a training step by the number of pairs in the batch, each in a process of its own: all layers, texts of
 * 128 tokens. What a step holds must not grow with the batch, but for its vectors and similarities.
 *
 *   node bench/train-memory.mjs --base <all-MiniLM-L6-v2> [--data <BEIR sets>] [--pairs 256,4096] [--words 200] [--threads 2]
 *
 * A batch of 4,096 pairs takes ten minutes or more; `--words 8` makes short texts of them.
 */
import { readDocuments } from "./lib/documents.mjs";
import { readOptions } from "./lib/options.mjs";
import { line, machine } from "./lib/report.mjs";
import { Subject } from "./lib/subject.mjs";

const { base, data, pairs, words, threads } = readOptions({ pairs: "256,4096", words: 200, threads: 2 });
const sizes = pairs.split(",").map(Number);
const texts = (await readDocuments({ data, base, count: 2 * Math.max(...sizes) })).map((text, i) =>
  `${i} ${text}`.split(/\s+/).slice(0, words).join(" "),
);
machine();
const peaks = [];
for (const size of sizes) {
  const subject = Subject.node("trainer", base, String(threads));
  const start = performance.now();
  const batch = Array.from({ length: size }, (_, i) => [texts[2 * i], texts[2 * i + 1]]);
  const { loss } = await subject.ask({ do: "take", pairs: batch, maxTokens: 128 });
  const { gigabytes } = await subject.ask({ do: "peak" });
  subject.end();
  peaks.push(gigabytes);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`${size} pairs: loss ${loss.toFixed(3)}, ${seconds} s, peak ${gigabytes.toFixed(2)} GB`);
}
line("peak of the largest batch", { ratio: peaks.at(-1) }, { atMost: 1.5, unit: " GB" });
line("largest over smallest batch", { ratio: peaks.at(-1) / peaks[0] });
