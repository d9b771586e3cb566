/**
 * Fine-tuning on one set's training split, and what it does to the test split: random against contextual batches, all
 * layers against the top two with the lower ones from the cache, false negatives masked by the base or not, distillation and
 * averaging with the base against forgetting, which is measured on sets that were not trained on. Every run is `cde train` with a configuration that is
 * kept; a run that is there already isn't made again, and one that was interrupted goes on.
 *
 *   npm run build && node bench/fine-tuning.mjs --data DIR --base DIR --set cuad --out DIR
 *       [--pairs 2560] [--steps 40] [--threads 1] [--runs all-contextual,all-random,…]
 *
 * Test: all judged queries among their judged documents and others drawn to `--documents` (3,000), cut at 128 tokens,
 * float32. Intervals are those of a paired bootstrap over queries.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ContextualEncoder, createRandom } from "@cde-js/core";
import { evaluate, pairedBootstrap, readDataSet } from "@cde-js/core/evaluation";
import { readPairsBeir } from "@cde-js/core/training";
import { writeSafetensors } from "../packages/core/dist/model/safetensors-writer.js";
import { readOptions } from "./lib/options.mjs";

const ALL = ["all-contextual", "all-averaged", "top-contextual", "top-unmasked", "all-random", "top-distilled"];
const options = readOptions({
  set: "cuad",
  out: "",
  pairs: 2560,
  steps: 40,
  batch: 64,
  passes: 3,
  rate: 5e-5,
  documents: 3000,
  threads: 1,
  unseen: "bankfaq",
  runs: ALL.join(","),
});
const { set, data, base } = options;
if (!options.out) throw new Error("--out <folder> is missing.");
const out = resolve(options.out, set);
await mkdir(out, { recursive: true });
const folder = join(data, set);

const pairs = join(out, "pairs.jsonl");
if (!existsSync(pairs)) {
  const all = [];
  for await (const { source, ...pair } of readPairsBeir(folder)) all.push(pair);
  const drawn = createRandom(11).shuffle(all).slice(0, options.pairs);
  await writeFile(pairs, lines(drawn));
}
const surrogate = await embedded(pairs);

const top = { freeze: 4, layerCache: true };
const VARIANTS = {
  "all-contextual": { strategy: "contextual", epochs: 1 },
  "all-averaged": { strategy: "contextual", epochs: 1, averaged: "all-contextual" },
  "all-random": { strategy: "random", epochs: 1 },
  "top-contextual": { strategy: "contextual", epochs: options.passes, training: top },
  "top-unmasked": { strategy: "contextual", epochs: 2, training: top, falseNegatives: false },
  "top-distilled": {
    strategy: "contextual",
    epochs: 2,
    training: { ...top, distillation: { weight: 0.5 } },
    falseNegatives: false,
  },
};

const runs = options.runs.split(",");
for (const name of runs) await train(name);

const test = await cutDataSet();
const figures = new Map([["base", await measured("base", base)]]);
for (const name of runs) figures.set(name, await measured(name, join(out, name)));

const report = [`${set}: ${test.queries.length} test queries, ${test.documents.length} documents`];
for (const [name, sets] of figures) {
  const parts = Object.keys(sets).map((what) => `${what} ${against(name, what, "base")}`);
  report.push(`${name}: ${parts.join("; ")}`);
}
for (const [one, other] of [
  ["all-contextual", "all-random"],
  ["all-averaged", "all-contextual"],
  ["top-contextual", "all-contextual"],
  ["top-unmasked", "top-contextual"],
  ["top-distilled", "top-unmasked"],
]) {
  if (!figures.has(one) || !figures.has(other)) continue;
  report.push(`${one} over ${other}: ${against(one, set, other)}`);
}
for (const name of runs) report.push(await passes(name));
console.log(report.join("\n"));

/** The base's vectors of all texts, made once: they cluster the pairs of every run and find its false negatives. */
async function embedded(path) {
  const surrogate = { vectors: join(out, "vectors.safetensors"), texts: join(out, "texts.jsonl") };
  if (existsSync(surrogate.vectors)) return surrogate;
  const records = (await readFile(path, "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const queries = [...new Set(records.map(({ query }) => query))];
  const documents = [...new Set(records.map(({ positive }) => positive))];
  const encoder = await ContextualEncoder.load(base, { maxTokens: 128, runtime: { threads: options.threads } });
  const embedder = encoder.withoutContext();
  const rows = [await embedder.embedQueries(queries), await embedder.embedDocuments(documents)].flatMap(
    ({ vectors }) => vectors,
  );
  await encoder.dispose();
  const data = new Float32Array(rows.length * rows[0].length);
  for (const [i, row] of rows.entries()) data.set(row, i * row.length);
  await writeFile(surrogate.texts, lines([...queries, ...documents]));
  const shape = [rows.length, rows[0].length];
  await writeSafetensors(surrogate.vectors, [{ name: "vectors", dtype: "F32", shape, data }]);
  return surrogate;
}

function lines(records) {
  return records.map((record) => `${JSON.stringify(record)}\n`).join("");
}

async function train(name) {
  const { strategy, epochs, training, averaged, falseNegatives = { rule: "positive", margin: 0 } } = VARIANTS[name];
  const path = join(out, `${name}.json`);
  const config = {
    model: resolve(base),
    output: join(out, name),
    run: join(out, `${averaged ?? name}-run`),
    ...(averaged && { export: { averageWithBase: 0.5 } }),
    seed: 1,
    threads: options.threads,
    data: [{ jsonl: pairs, dataset: set }],
    batches: {
      strategy,
      batchSize: options.batch,
      surrogate,
      falseNegatives,
    },
    budget: { steps: options.steps * epochs },
    training: { learningRate: options.rate, temperature: 0.03, maxTokens: 128, ...training },
    evaluation: {
      dev: { beir: resolve(folder), split: "dev" },
      metrics: ["ndcg@10"],
      queries: 300,
      documents: 600,
    },
    checkpoints: { every: 16 },
  };
  if (existsSync(join(out, name, "config.json"))) return;
  const resume = existsSync(join(config.run, "checkpoint"));
  await writeFile(path, JSON.stringify(config, undefined, 2));
  const cde = fileURLToPath(new URL("../packages/cli/dist/cde.js", import.meta.url));
  const args = [cde, "train", ...(resume ? ["--resume"] : []), path];
  const { status } = spawnSync(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) throw new Error(`cde train ended with ${status}: ${path}`);
}

/** The test split among its judged documents and others, drawn by a seed. */
async function cutDataSet() {
  const whole = await readDataSet(folder, { split: "test" });
  const judged = new Set([...whole.qrels.values()].flatMap((grades) => [...grades.keys()]));
  const others = createRandom(12).shuffle(whole.documents.filter(({ id }) => !judged.has(id)));
  const kept = new Set(others.slice(0, Math.max(0, options.documents - judged.size)).map(({ id }) => id));
  return { ...whole, documents: whole.documents.filter(({ id }) => judged.has(id) || kept.has(id)) };
}

/** nDCG@10 by query, on the test split and on the dev splits of unseen sets; kept beside the run. */
async function measured(name, model) {
  const path = join(out, `${name}.figures.json`);
  if (existsSync(path)) return JSON.parse(await readFile(path, "utf8"));
  const encoder = await ContextualEncoder.load(model, { maxTokens: 128, runtime: { threads: options.threads } });
  const figuresOn = async (dataSet) => {
    const { perQuery } = await evaluate(encoder.withoutContext(), dataSet, { metrics: ["ndcg@10"] });
    return Object.fromEntries([...perQuery].map(([id, values]) => [id, values["ndcg@10"]]));
  };
  const found = { [set]: await figuresOn(test) };
  for (const other of options.unseen.split(",").filter((other) => other !== set)) {
    found[other] = await figuresOn(await readDataSet(join(data, other), { split: "dev", maxQueries: 400, seed: 7 }));
  }
  await encoder.dispose();
  await writeFile(path, JSON.stringify(found));
  return found;
}

/** The mean of a run on one set, and its distance from another run's with the bootstrap's interval. */
function against(name, what, other) {
  const [own, theirs] = [figures.get(name)[what], figures.get(other)[what]];
  const differences = Object.keys(own).map((id) => own[id] - theirs[id]);
  const [low, high] = pairedBootstrap(differences, { seed: 3 });
  const points = (value) => `${value > 0 ? "+" : ""}${(100 * value).toFixed(2)}`;
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return `${(100 * mean(Object.values(own))).toFixed(2)} (${points(mean(differences))}; ${points(low)} to ${points(high)})`;
}

/** Seconds a step in each pass, by the run's own log. */
async function passes(name) {
  if (VARIANTS[name].averaged) return `${name}: nothing was trained`;
  const log = (await readFile(join(out, `${name}-run`, "log.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
    .filter(({ step }) => step > 0);
  const epochs = [...new Set(log.map(({ epoch }) => epoch))];
  const seconds = epochs.map((epoch) => {
    const times = log.filter((step) => step.epoch === epoch).map(({ milliseconds }) => milliseconds / 1000);
    return `${(times.reduce((sum, time) => sum + time, 0) / times.length).toFixed(2)} (${times.length} steps)`;
  });
  const masked = log.reduce((sum, { falseNegatives }) => sum + falseNegatives, 0);
  const candidates = log.reduce((sum, step) => sum + (step.candidates ?? 0), 0);
  const difficulty = log.reduce((sum, step) => sum + (step.difficulty ?? 0), 0) / log.length;
  return `${name}: seconds a step by pass ${seconds.join(", ")}; difficulty ${difficulty.toFixed(3)}, ${((100 * masked) / candidates).toFixed(2)} % masked`;
}
