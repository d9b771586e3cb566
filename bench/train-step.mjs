/**
 * One step of training with cached gradients, cde-js beside sentence-transformers on PyTorch (Python, where it is at hand):
 * all-MiniLM-L6-v2 in float32, all six layers, AdamW, pairs whose texts are cut at 128 tokens, in-batch negatives.
 *
 *   fixed   every text has 128 tokens
 *   mixed   queries and documents of five sets as they are
 *
 * Loss and gradient norm of the first step are compared before anything is timed: without dropout both are those of the
 * same function. Skips visibly without Python:
 *
 *   python3 -m venv <folder> && <folder>/bin/pip install torch sentence-transformers
 *   node bench/train-step.mjs --base <all-MiniLM-L6-v2> --data <BEIR sets> --python <folder>/bin/python
 *     [--pairs 256] [--rounds 3] [--threads 2] [--quick]
 *
 * `--rounds` steps are timed of each kind and each side, in turns. The share of time outside matrix products is what a step
 * takes above the same floating point operations in products of a layer's shapes, measured in the same run.
 */
import { join } from "node:path";
import { createRandom } from "@cde-js/core";
import { readPairsBeir } from "@cde-js/core/training";
import { gemm, input, reduceMax } from "../packages/core/dist/graph/index.js";
import { encodeModel } from "../packages/core/dist/onnx/encode.js";
import { Runtime } from "../packages/core/dist/runtime/runtime.js";
import { readDocuments } from "./lib/documents.mjs";
import { readOptions } from "./lib/options.mjs";
import { line, machine, median, speedUp } from "./lib/report.mjs";
import { Subject, takeTurns } from "./lib/subject.mjs";

const MIXED = ["nfcorpus", "cuad", "fin10k", "medquad", "tldr_pages"];
const TOKENS = 128;
const defaults = { python: "python3", pairs: 256, rounds: 3, threads: 2, kinds: "fixed,mixed" };
const { base, data, python, pairs, rounds, threads, kinds } = readOptions(defaults, { pairs: 64, rounds: 2 });

const program = new URL("train-step.py", import.meta.url).pathname;
const theirs = new Subject(python, [program, base, String(threads)]);
const { version, absent } = await theirs.ask({ do: "version" }).catch((error) => ({ absent: error.message }));
if (absent) {
  console.log(`SKIPPED: sentence-transformers isn't at hand (${absent}). Pass --python.`);
  process.exit(0);
}
const ours = Subject.node("trainer", base, String(threads));
machine();
console.log(version);

const makers = { fixed: fixedPairs, mixed: mixedPairs };
for (const kind of kinds.split(",")) {
  const batch = await makers[kind]();
  const first = {};
  for (const [name, subject] of Object.entries({ ours, theirs })) {
    first[name] = await subject.ask({ do: "take", pairs: batch, maxTokens: TOKENS });
  }
  checkClose(`${kind}: loss`, first.ours.loss, first.theirs.loss, 1e-4);
  checkClose(`${kind}: gradient norm`, first.ours.norm, first.theirs.norm, 1e-3);
  const step = (subject) => () => subject.ask({ do: "step" });
  const figures = await takeTurns({ "cde-js": step(ours), torch: step(theirs) }, rounds, {
    onTurn: (name, { ms, cpu }) =>
      console.log(`  ${kind} ${name} ${(ms / 1000).toFixed(1)} s, processor ${(cpu / 1000).toFixed(1)} s`),
  });
  const times = (name, what = "ms") => figures[name].map((figure) => figure[what]);
  for (const name of Object.keys(figures)) {
    console.log(`${kind}, ${name}: ${((2000 * pairs) / median(times(name))).toFixed(1)} texts/s`);
  }
  line(`${kind}: cde-js / sentence-transformers`, speedUp(times("torch"), times("cde-js")), {
    atLeast: kind === "fixed" ? 1 : 1.5,
  });
  line(`${kind}: the same, processor time`, speedUp(times("torch", "cpu"), times("cde-js", "cpu")));
  if (kind === "fixed") await outsideProducts(median(times("cde-js")));
}
machine();
for (const subject of [ours, theirs]) subject.end();

/** Pairs of texts that are all cut at the limit. */
async function fixedPairs() {
  const long = (await readDocuments({ data, base, count: 12 * pairs })).filter(
    (text) => text.split(/\s+/).length > TOKENS,
  );
  if (long.length < 2 * pairs) throw new Error(`${long.length} long texts, ${2 * pairs} are wanted.`);
  return Array.from({ length: pairs }, (_, i) => [long[2 * i], long[2 * i + 1]]);
}

/** As many pairs of each set. */
async function mixedPairs() {
  const drawn = [];
  for (const set of MIXED) {
    const all = [];
    for await (const { query, positive } of readPairsBeir(join(data, set), { splits: ["dev"] }))
      all.push([query, positive]);
    drawn.push(
      ...createRandom(2)
        .shuffle(all)
        .slice(0, Math.ceil(pairs / MIXED.length)),
    );
  }
  const different = new Map(drawn.map((pair) => [pair[1], pair]));
  const batch = createRandom(3)
    .shuffle([...different.values()])
    .slice(0, pairs);
  if (batch.length < pairs) throw new Error(`${batch.length} pairs, ${pairs} are wanted.`);
  return batch;
}

function checkClose(name, a, b, tolerance) {
  console.log(`${name}: ${a.toPrecision(7)} and ${b.toPrecision(7)}`);
  if (!(Math.abs(a - b) <= tolerance * Math.abs(b))) throw new Error(`${name}: more than ${tolerance} apart.`);
}

/** What share of a step isn't explained by its matrix products, at the speed of a chain of a layer's largest products. */
async function outsideProducts(ms) {
  const rate = await productRate();
  const perToken = 6 * (2 * (4 * 384 * 384 + 2 * 384 * 1536) + 4 * TOKENS * 384); // one pass forward
  const operations = 4 * perToken * 2 * pairs * TOKENS; // forward twice, backward for inputs and for weights
  console.log(`products: ${(rate / 1e9).toFixed(0)} GFLOP/s; a step needs ${(operations / 1e12).toFixed(2)} TFLOP`);
  line("fixed: share of a step outside matrix products", { ratio: 1 - operations / rate / (ms / 1000) });
}

/** Floating point operations a second: 1,024 tokens up to 1,536 and down to 384 dimensions, twelve times a run. */
async function productRate() {
  const [tokens, narrow, wide, layers, runs] = [1024, 384, 1536, 12, 20];
  const [up, down] = [input("up", "float32", [narrow, wide]), input("down", "float32", [wide, narrow])];
  let x = input("x", "float32", [tokens, narrow]);
  for (let layer = 0; layer < layers; layer++) x = gemm(gemm(x, up), down);
  const runtime = await Runtime.start({ threads });
  const session = await runtime.open(encodeModel({ sum: reduceMax(x, { axes: [0, 1] }) }));
  const random = createRandom(4);
  const matrix = (rows, columns) => {
    const data = Float32Array.from({ length: rows * columns }, () => random.normal() / Math.sqrt(rows));
    return { dtype: "float32", data, shape: [rows, columns] };
  };
  const feeds = { x: matrix(tokens, narrow), up: matrix(narrow, wide), down: matrix(wide, narrow) };
  const times = [];
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    await session.run(feeds);
    times.push(performance.now() - start);
  }
  await runtime.dispose();
  return (4 * tokens * narrow * wide * layers) / (median(times) / 1000);
}
