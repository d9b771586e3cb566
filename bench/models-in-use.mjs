/**
 * A model beside the base that it was made from, both as they are used by default: without context, with the context that
 * `buildContext` makes of 512 documents and calibrates (strength and token weights), with another corpus's (control), and hybrid search with
 * `fusion: "auto"`. nDCG@10 on real judgements; documents and queries are cut at 128 tokens.
 *
 *   npm run build && node bench/models-in-use.mjs --data <folder> --base <folder> [--model <folder>]
 *     [--sets bankfaq,cisi] [--split dev --documents 1500 --queries 300] [--vectors <cache folder>] [--json <file>]
 *
 * The model left out is the bundled one. By default the nine reference sets' test queries and context documents are used; with
 * `--split dev` the unseen dev sets, cut to `--documents` (judged ones and others drawn by a seed): what weights are chosen
 * by. Intervals: 95 %, paired bootstrap over queries, sets weighing the same. With one set there is no control.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { ContextualEncoder, createRandom } from "@cde-js/core";
import { evaluateRun, readCorpus, readQrels, readQueries } from "@cde-js/core/evaluation";
import { modelDirectory } from "@cde-js/model-mini";
import { CorpusIndex } from "@cde-js/retriever";
import { loadBiencoder } from "../packages/core/dist/encoder/load-biencoder.js";
import { readModelDirectory } from "../packages/core/dist/model/model-directory.js";
import { Runtime } from "../packages/core/dist/runtime/runtime.js";
import { referenceIds } from "./lib/base-vectors.mjs";

const TOKENS = 128;
const CONTEXT = 512;
const DRAWS = 5000;
const METRIC = "ndcg@10";
const UNSEEN = "obliqa,oyez,nfcorpus,fin10k,bankfaq,techqa";
const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    model: { type: "string", default: modelDirectory },
    vectors: { type: "string" },
    sets: { type: "string" },
    split: { type: "string", default: "test" },
    documents: { type: "string", default: "1500" },
    queries: { type: "string", default: "300" },
    json: { type: "string" },
  },
});
if (!values.data || !values.base) {
  console.error("usage: node bench/shipped-model.mjs --data <folder> --base <folder of all-MiniLM-L6-v2>");
  process.exit(2);
}
const test = values.split === "test";
const reference = test ? await referenceIds(values.data) : {};
const sets = (values.sets ?? (test ? Object.keys(reference).join(",") : UNSEEN)).split(",");
const corpora = [];
for (const set of sets) corpora.push(await readSet(set));

/** model → column → set → query → nDCG@10 */
const figures = {};
for (const [name, directory] of Object.entries({ base: values.base, model: values.model })) {
  figures[name] = await measure(name, resolve(directory));
}
if (values.json) await writeFile(values.json, JSON.stringify(figures));

console.log(`model: ${values.model}; base: ${basename(values.base)}`);
const columns = Object.entries(figures).flatMap(([name, of]) => Object.keys(of).map((column) => [name, column]));
console.table(
  Object.fromEntries([
    ...sets.map((set) => [
      set,
      Object.fromEntries(columns.map(([name, column]) => [`${name}, ${column}`, points(figures[name][column][set])])),
    ]),
    ["mean", Object.fromEntries(columns.map(([name, of]) => [`${name}, ${of}`, meanOf(figures[name][of])]))],
  ]),
);
for (const [title, ours, theirs] of [
  ["model without context over the base without", figures.model.plain, figures.base.plain],
  ["base with context over the base without", figures.base.context, figures.base.plain],
  ["model with context over the base without", figures.model.context, figures.base.plain],
  ["model with context over the base with context", figures.model.context, figures.base.context],
  ["model with context over the model without", figures.model.context, figures.model.plain],
  ...(sets.length > 1
    ? [["model with context over the model with another corpus's", figures.model.context, figures.model.wrong]]
    : []),
  ["model's hybrid over the base's hybrid", figures.model.hybrid, figures.base.hybrid],
]) {
  const { mean, low, high, below } = gain(ours, theirs);
  console.log(
    `${title}: ${mean.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)}); significantly below on ${below.join(", ") || "none"}`,
  );
}

async function readSet(set) {
  const folder = join(values.data, set);
  const judged = await readQrels(folder, values.split);
  const asked =
    reference[set]?.queries ??
    createRandom(7)
      .shuffle([...judged.keys()])
      .slice(0, Number(values.queries));
  const texts = new Map();
  for await (const { id, text } of readQueries(folder)) texts.set(id, text);
  let documents = [];
  for await (const { id, title, text } of readCorpus(folder)) {
    documents.push({ id, text: (title ? `${title} ${text}` : text).trim() });
  }
  if (!test && documents.length > Number(values.documents)) {
    const needed = new Set(asked.flatMap((id) => [...judged.get(id).keys()]));
    const others = createRandom(1).shuffle(documents.filter(({ id }) => !needed.has(id)));
    const kept = new Set([...needed, ...others.slice(0, Number(values.documents) - needed.size).map(({ id }) => id)]);
    documents = documents.filter(({ id }) => kept.has(id));
  }
  const textOf = new Map(documents.map(({ id, text }) => [id, text]));
  const context =
    reference[set]?.context.map((id) => textOf.get(id)) ??
    createRandom(9)
      .shuffle(documents.map(({ text }) => text))
      .slice(0, CONTEXT);
  return { set, documents, context, asked, texts, qrels: new Map(asked.map((id) => [id, judged.get(id)])) };
}

async function measure(name, directory) {
  const encoder = await ContextualEncoder.load(directory, { maxTokens: TOKENS });
  const runtime = await Runtime.start();
  const model = await loadBiencoder(await readModelDirectory(directory), runtime, { maxTokens: TOKENS });
  const found = { plain: {}, context: {}, hybrid: {}, ...(corpora.length > 1 && { wrong: {} }) };
  const contexts = [];
  for (const { set, context } of corpora) {
    contexts.push(await encoder.buildContext(context));
    const { strength } = contexts.at(-1).identity;
    const weights = contexts.at(-1).tokenWeights ? "weighted" : "alike";
    console.log(`${name}, ${set}: ${strength === "off" ? "off" : JSON.stringify(strength)}, tokens ${weights}`);
  }
  for (const [i, corpus] of corpora.entries()) {
    const embedders = {
      plain: encoder.withoutContext(),
      context: encoder.withContext(contexts[i]),
      ...(corpora.length > 1 && { wrong: encoder.withContext(contexts[(i + 1) % corpora.length]) }),
    };
    const rows = await baseRows(model, corpus, Object.values(embedders));
    for (const [column, embedder] of Object.entries(embedders)) {
      const kept = remembering(embedder, corpus, rows);
      const index = await CorpusIndex.build(kept, corpus.documents, { split: false });
      found[column][corpus.set] = await searched(index, corpus, { mode: "dense" });
      if (column === "context") found.hybrid[corpus.set] = await searched(index, corpus, { fusion: "auto" });
      await index.close();
    }
    console.log(
      `${name}, ${corpus.set}: ${Object.entries(found)
        .map(([column, of]) => `${column} ${points(of[corpus.set])}`)
        .join(", ")}`,
    );
  }
  await encoder.dispose();
  await runtime.dispose();
  return found;
}

async function searched(index, { asked, texts, qrels }, options) {
  const run = new Map();
  for (const query of asked) {
    const hits = await index.search(texts.get(query), { k: 10, ...options });
    run.set(
      query,
      hits.map(({ id }) => id),
    );
  }
  const { perQuery } = evaluateRun(qrels, run, [METRIC]);
  return Object.fromEntries(asked.map((id) => [id, perQuery.get(id)?.[METRIC] ?? 0]));
}

/** The embedder, with the documents' base vectors at hand. */
function remembering(embedder, { documents }, rows) {
  const of = rows.get((embedder.base ?? embedder).fingerprint);
  const known = new Map(documents.map(({ text }, i) => [text, of[i]]));
  const map = embedder.base ? embedder.context.map : undefined;
  const { modelId, dimensions, maxTokens, fingerprint, batchInvariant } = embedder;
  return {
    ...{ modelId, dimensions, maxTokens, fingerprint, batchInvariant },
    embedQuery: (text) => embedder.embedQuery(text),
    embedDocuments: async (list) => {
      if (list.some((text) => !known.has(text))) return embedder.embedDocuments(list);
      const vectors = list.map((text) => known.get(text));
      return { vectors: map ? map.apply(vectors) : vectors, truncated: [] };
    },
  };
}

/** Base vectors of the documents by fingerprint: those that the cache folder lacks come from one pass of the model. */
async function baseRows(model, { set, documents }, embedders) {
  const bases = new Map(embedders.map((embedder) => embedder.base ?? embedder).map((base) => [base.fingerprint, base]));
  const found = new Map();
  for (const fingerprint of bases.keys()) {
    const rows = await readRows(cacheName(set, documents, fingerprint));
    if (rows) found.set(fingerprint, rows);
  }
  const missing = [...bases.values()].filter(({ fingerprint }) => !found.has(fingerprint));
  if (missing.length === 0) return found;
  const { ids } = await model.tokenizer.encodeBatch(
    documents.map(({ text }) => text),
    { maxTokens: TOKENS, prompt: model.prompts.document, operation: "models-in-use" },
  );
  const all = await model.weigh(...missing.map(({ tokenWeights }) => tokenWeights)).encode(ids);
  const width = model.dimensions;
  for (const [at, { fingerprint }] of missing.entries()) {
    const rows = all.map((row) => row.slice(at * width, (at + 1) * width));
    found.set(fingerprint, rows);
    await keepRows(cacheName(set, documents, fingerprint), rows);
  }
  return found;
}

function cacheName(set, documents, fingerprint) {
  return (
    values.vectors && join(values.vectors, `${set}.${values.split}.${documents.length}.${fingerprint.slice(0, 16)}.f32`)
  );
}

async function readRows(path) {
  if (!path || !existsSync(path)) return undefined;
  const bytes = await readFile(path);
  const all = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  return Array.from({ length: all.length / 384 }, (_, i) => all.subarray(i * 384, (i + 1) * 384));
}

async function keepRows(path, rows) {
  if (!path) return;
  await mkdir(values.vectors, { recursive: true });
  await writeFile(
    `${path}.tmp`,
    Buffer.concat(rows.map((row) => Buffer.from(row.buffer, row.byteOffset, row.byteLength))),
  );
  await rename(`${path}.tmp`, path);
}

/** Mean over sets of the mean difference, in points, with the interval over queries, and the sets that lose significantly. */
function gain(ours, theirs) {
  const differences = sets.map((set) => Object.keys(ours[set]).map((id) => 100 * (ours[set][id] - theirs[set][id])));
  const random = createRandom(1);
  const drawn = (of) => of.reduce((sum) => sum + of[random.integer(of.length)], 0) / of.length;
  const draws = Array.from({ length: DRAWS }, () => differences.map(drawn));
  const quantile = (numbers, part) => numbers.toSorted((a, b) => a - b)[Math.floor(part * DRAWS)];
  const all = draws.map(average);
  return {
    mean: average(differences.map(average)),
    low: quantile(all, 0.025),
    high: quantile(all, 0.975),
    below: sets.filter(
      (_, i) =>
        quantile(
          draws.map((of) => of[i]),
          0.975,
        ) < 0,
    ),
  };
}

function points(perQuery) {
  return Math.round(1000 * average(Object.values(perQuery))) / 10;
}

function meanOf(perSet) {
  return Math.round(10000 * average(Object.values(perSet).map((of) => average(Object.values(of))))) / 100;
}

function average(numbers) {
  return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}
