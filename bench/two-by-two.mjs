/**
 * The paper's 2 × 2 (Table 1) with this trainer, at a small budget: random or contextual batches × biencoder or contextual
 * architecture, on the same pairs for as many steps, and nDCG@10 on dev queries of six corpora that none of them saw.
 *
 *   npm run build && node bench/two-by-two.mjs --data <folder of BEIR sets> --base <all-MiniLM-L6-v2> --out <folder>
 *     [--seeds 3] [--scale 1] [--softmax gated] [--documents 400] [--queries 100] [--distillation 1]
 *
 * The contextual architecture is a prefix stage whose context in training is the batch's documents (§4.2); what it reads of a
 * corpus is 512 of its documents, another corpus's (control), or none. All models: the lower four layers as they are, the
 * top two trained (the prefix stage's are those). `--distillation` adds a prefix stage that is pulled towards the base's
 * similarities with that weight. Beside it the spectral context of each biencoder, at the published strength. A
 * model that `--out` holds isn't trained again, nor measured. Intervals: 95 %, paired bootstrap over queries of the mean over seeds.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ContextualEncoder, createRandom, fitSpectralMap } from "@cde-js/core";
import { evaluateRun } from "@cde-js/core/evaluation";
import { createBatches, createPairSet, PairSet, readPairsBeir, Trainer } from "@cde-js/core/training";
import { selectContext } from "@cde-js/retriever";
import { documentsOf, drawnIds, embedderOf, packed, queriesOf } from "./lib/base-vectors.mjs";
import { average, gain, interval, meanOf, meanRun, points } from "./lib/gains.mjs";
import { readOptions } from "./lib/options.mjs";
import { rankings } from "./lib/ranking.mjs";

/** Batches of each set whose licence allows shipped weights; templated sets don't lead. */
const BATCHES = {
  medquad: 14,
  squad: 14,
  boolq: 14,
  scitldr: 14,
  tldr_pages: 14,
  cuad: 10,
  nq: 8,
  tatqa: 5,
  covidqa: 3,
};
const BATCH = 64;
/** Pairs more than batches hold, since no text comes twice in one. */
const SPARE = 16;
const UNSEEN = ["obliqa", "oyez", "nfcorpus", "fin10k", "bankfaq", "techqa"];
const TRAINING = { learningRate: 1e-4, temperature: 0.03, maxTokens: 96, freeze: 4 };
const TOKENS = 128;
const WIDTH = 384;
/** Smaller contexts than 512 documents. */
const SIZES = [16, 64, 256];
const METRIC = "ndcg@10";

const options = readOptions(
  { out: "", seeds: 3, scale: 1, softmax: "gated", documents: 400, queries: 100, distillation: 0 },
  { seeds: 1, documents: 200, queries: 40 },
);
const { data, base, out } = options;
if (!out || !data) throw new Error("--data <folder of BEIR sets> and --out <folder> are needed.");
const prefix = { kind: "prefix", softmax: options.softmax, layers: 2 };
const CELLS = {
  "biencoder, random": { strategy: "random" },
  "biencoder, contextual": { strategy: "contextual" },
  "contextual, random": { strategy: "random", secondStage: prefix },
  "contextual, contextual": { strategy: "contextual", secondStage: prefix },
  ...(options.distillation > 0 && {
    "contextual, random, distilled": {
      strategy: "random",
      secondStage: prefix,
      distillation: { weight: options.distillation },
    },
  }),
};
const cells = Object.keys(CELLS);
await mkdir(join(out, "figures"), { recursive: true });

const folder = join(out, "pairs");
const pairs = existsSync(folder) ? await PairSet.open(folder) : await createPairSet(folder, drawnPairs());
for (const cell of cells) for (let seed = 1; seed <= options.seeds; seed++) await train(cell, seed);
await pairs.close();

const corpora = [];
for (const set of UNSEEN) corpora.push(await readSet(set));
const figures = { base: [await measured("base", base, "biencoder")] };
for (const cell of cells) {
  figures[cell] = [];
  for (let seed = 1; seed <= options.seeds; seed++) {
    figures[cell].push(await measured(`${cell}, ${seed}`, join(out, nameOf(cell, seed)), cell));
  }
}
report();

async function* drawnPairs() {
  for (const [set, batches] of Object.entries(BATCHES)) {
    const all = [];
    for await (const { source: _, ...pair } of readPairsBeir(join(data, set))) all.push({ ...pair, dataset: set });
    yield* createRandom(11)
      .shuffle(all)
      .slice(0, Math.round(batches * options.scale) * BATCH + SPARE);
  }
}

function nameOf(cell, seed) {
  return `${cell.replaceAll(", ", "-")}-${seed}`;
}

async function train(cell, seed) {
  const target = join(out, nameOf(cell, seed));
  if (existsSync(join(target, "config.json"))) return;
  await rm(target, { recursive: true, force: true });
  const { strategy, secondStage, distillation } = CELLS[cell];
  const encoder = await ContextualEncoder.load(base, { maxTokens: TOKENS });
  const surrogate = encoder.withoutContext();
  const batches = await createBatches(pairs, { batchSize: BATCH, strategy, surrogate, seed });
  const { batches: totalSteps } = await batches.plan(0);
  const trainer = await Trainer.create(base, {
    ...TRAINING,
    seed,
    totalSteps,
    layerCache: { directory: join(out, "layers") },
    ...(distillation && { distillation }),
    ...(secondStage && { secondStage: { ...secondStage, seed }, context: { from: "batch", documents: BATCH } }),
  });
  const seen = [];
  for await (const { step, loss, accuracy, milliseconds } of trainer.steps(batches)) {
    seen.push({ loss, accuracy, milliseconds });
    if (step % 20 === 0) console.log(`${cell}, seed ${seed}: step ${step}/${totalSteps}, loss ${loss.toFixed(3)}`);
  }
  const last = seen.slice(-20);
  const mean = (key) => average(last.map((step) => step[key]));
  console.log(
    `${cell}, seed ${seed}: ${totalSteps} steps; of the last 20 loss ${mean("loss").toFixed(3)}, accuracy ${mean("accuracy").toFixed(3)}, ${mean("milliseconds").toFixed(0)} ms each`,
  );
  await trainer.export(target, { card: { name: nameOf(cell, seed), licence: "apache-2.0" } });
  for (const part of [trainer, batches, encoder]) await part[Symbol.asyncDispose]();
}

async function readSet(set) {
  const { ids, texts, qrels } = await queriesOf(data, set, "dev", { limit: options.queries });
  const all = await documentsOf(data, set);
  const keep = [...qrels.values()].flatMap((grades) => [...grades.keys()]);
  const kept = drawnIds(all, { limit: options.documents, keep, seed: 1 });
  // The whole corpus is what contexts are drawn from, not the part that is searched.
  const sample = createRandom(9).shuffle(all.map(({ text }) => text));
  return { set, documents: all.filter(({ id }) => kept.has(id)), queries: { ids, texts }, qrels, sample };
}

/** Figures of a model by column, set and query; kept in a file. */
async function measured(name, directory, cell) {
  const path = join(out, "figures", `${name.replaceAll(", ", "-")}.json`);
  if (existsSync(path)) return JSON.parse(await readFile(path, "utf8"));
  const found = {};
  const encoder = await ContextualEncoder.load(directory, { maxTokens: TOKENS });
  const plain = encoder.withoutContext();
  const biencoder = cell.startsWith("biencoder");
  const mapOf = (rows) => fitSpectralMap({ rows, dimensions: WIDTH });
  const read = async (texts) => encoder.withContext(await encoder.buildContext(texts));
  const contexts = [];
  for (const { sample } of corpora) {
    const texts = sample.slice(0, 512);
    contexts.push(biencoder ? await rowsOf(plain, texts) : await read(texts));
  }
  for (const [i, corpus] of corpora.entries()) {
    const { sample } = corpus;
    const [right, other] = [contexts[i], contexts[(i + 1) % corpora.length]];
    const keep = async (column, vectors, map) => {
      found[column] ??= {};
      found[column][corpus.set] = await searched(corpus, vectors, map);
    };
    if (biencoder) {
      const vectors = await vectorsOf(plain, corpus);
      const maps = [
        ["none", undefined],
        ["spectral", await mapOf(right)],
        ["spectral, another's", await mapOf(other)],
      ];
      for (const size of SIZES) maps.push([`spectral, ${size}`, await mapOf(right.subarray(0, size * WIDTH))]);
      for (const [column, map] of maps) await keep(column, vectors, map);
      continue;
    }
    const add = async (column, embedder) => keep(column, await vectorsOf(embedder, corpus));
    await add("none", plain);
    await add("right", right);
    await add("another's", other);
    if (name !== "contextual, contextual, 1") continue; // these are many passes
    for (const size of SIZES) await add(`right, ${size}`, await read(sample.slice(0, size)));
    const chosen = await selectContext(sample, { size: 512, strategy: "clusters", embedder: plain, pool: 1024 });
    await add("right, clusters", await read(chosen.chosen));
  }
  await encoder.dispose();
  await writeFile(path, JSON.stringify(found));
  console.log(
    `${name}: ${Object.entries(found)
      .map(([column, of]) => `${column} ${meanOf(of)}`)
      .join(", ")}`,
  );
  return found;
}

async function vectorsOf(embedder, { documents, queries }) {
  return {
    documents: await rowsOf(
      embedder,
      documents.map(({ text }) => text),
    ),
    queries: await rowsOf(embedder, queries.texts, "query"),
  };
}

async function rowsOf(embedder, texts, kind) {
  return packed((await embedderOf(kind, embedder)(texts)).vectors);
}

async function searched({ documents, queries, qrels }, vectors, map) {
  const mapped = (rows) => (map ? map.applyRows(rows) : rows);
  const run = await rankings(
    { ids: documents.map(({ id }) => id), rows: mapped(vectors.documents) },
    { ids: queries.ids, rows: mapped(vectors.queries) },
    WIDTH,
    10,
  );
  const { perQuery } = evaluateRun(qrels, run, [METRIC]);
  return Object.fromEntries(queries.ids.map((id) => [id, perQuery.get(id)?.[METRIC] ?? 0]));
}

function report() {
  const [plain] = figures.base;
  const rows = [];
  for (const [cell, runs] of Object.entries(figures)) {
    for (const column of Object.keys(runs[0])) {
      const of = runs.filter((run) => run[column]).map((run) => run[column]);
      const mean = meanRun(of);
      const over = gain(mean, plain.none);
      rows.push({
        cell,
        context: column,
        ...Object.fromEntries(UNSEEN.map((set) => [set, points(mean[set])])),
        mean: meanOf(mean),
        seeds: of.map(meanOf).join(" "),
        "over base": interval(over),
        below: over.below.join(" "),
      });
    }
  }
  console.table(rows);
  const ours = (cell) => meanRun(figures[cell].map((run) => run[cell.startsWith("biencoder") ? "none" : "right"]));
  const differences = [
    ["batches, biencoder", ours("biencoder, contextual"), ours("biencoder, random")],
    ["batches, contextual architecture", ours("contextual, contextual"), ours("contextual, random")],
    ["architecture, random batches", ours("contextual, random"), ours("biencoder, random")],
    ["architecture, contextual batches", ours("contextual, contextual"), ours("biencoder, contextual")],
    ["both", ours("contextual, contextual"), ours("biencoder, random")],
  ];
  for (const cell of cells.filter((name) => name.startsWith("contextual"))) {
    const column = (name) => meanRun(figures[cell].map((run) => run[name]));
    differences.push([`${cell}: right over another's context`, column("right"), column("another's")]);
    differences.push([`${cell}: right over no context`, column("right"), column("none")]);
  }
  for (const [what, one, other] of differences) console.log(`${what}: ${interval(gain(one, other))}`);
}
