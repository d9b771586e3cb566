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
import { writeFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { parseArgs } from "node:util";
import { ContextualEncoder, createRandom } from "@cde-js/core";
import { evaluateRun } from "@cde-js/core/evaluation";
import { modelDirectory } from "@cde-js/model-mini";
import { CorpusIndex } from "@cde-js/retriever";
import { packedPart } from "../packages/core/dist/encoder/calibrate.js";
import { loadBiencoder } from "../packages/core/dist/encoder/load-biencoder.js";
import { readModelDirectory } from "../packages/core/dist/model/model-directory.js";
import { Runtime } from "../packages/core/dist/runtime/runtime.js";
import { documentsOf, drawnIds, keepRows, queriesOf, readRows, referenceIds } from "./lib/base-vectors.mjs";
import { gain, meanOf, points } from "./lib/gains.mjs";

const TOKENS = 128;
const CONTEXT = 512;
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
  console.error("usage: node bench/models-in-use.mjs --data <folder> --base <folder> [--model <folder>]");
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
  const only = reference[set]?.queries;
  const { ids, texts, qrels } = await queriesOf(values.data, set, values.split, {
    only,
    limit: Number(values.queries),
  });
  let documents = await documentsOf(values.data, set);
  const limit = Number(values.documents);
  if (!test && documents.length > limit) {
    const keep = [...qrels.values()].flatMap((grades) => [...grades.keys()]);
    const kept = drawnIds(documents, { limit, keep, seed: 1 });
    documents = documents.filter(({ id }) => kept.has(id));
  }
  const textOf = new Map(documents.map(({ id, text }) => [id, text]));
  const context =
    reference[set]?.context.map((id) => textOf.get(id)) ??
    createRandom(9)
      .shuffle(documents.map(({ text }) => text))
      .slice(0, CONTEXT);
  return {
    set,
    documents: documents.map(({ id, text }) => ({ id, text })),
    context,
    queries: ids.map((id, i) => ({ id, text: texts[i] })),
    qrels,
  };
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

async function searched(index, { queries, qrels }, options) {
  const run = new Map();
  for (const { id, text } of queries) {
    const hits = await index.search(text, { k: 10, ...options });
    run.set(
      id,
      hits.map((hit) => hit.id),
    );
  }
  const { perQuery } = evaluateRun(qrels, run, [METRIC]);
  return Object.fromEntries(queries.map(({ id }) => [id, perQuery.get(id)?.[METRIC] ?? 0]));
}

/** The embedder, with the documents' base vectors at hand. */
function remembering(embedder, { documents }, rows) {
  const packed = rows.get((embedder.base ?? embedder).fingerprint);
  const width = embedder.dimensions;
  const known = new Map(documents.map(({ text }, i) => [text, packed.subarray(i * width, (i + 1) * width)]));
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

/** Packed base vectors of the documents by fingerprint: those that the cache folder lacks come from one pass of the model. */
async function baseRows(model, { set, documents }, embedders) {
  const bases = new Map(embedders.map((embedder) => embedder.base ?? embedder).map((base) => [base.fingerprint, base]));
  const ids = documents.map(({ id }) => id);
  const nameOf = (fingerprint) => `${set}.${values.split}.${documents.length}.${fingerprint.slice(0, 16)}`;
  const found = new Map();
  for (const fingerprint of bases.keys()) {
    const rows = await readRows(values.vectors, nameOf(fingerprint), ids);
    if (rows) found.set(fingerprint, rows);
  }
  const missing = [...bases.values()].filter(({ fingerprint }) => !found.has(fingerprint));
  if (missing.length === 0) return found;
  const encoded = await model.tokenizer.encodeBatch(
    documents.map(({ text }) => text),
    { maxTokens: TOKENS, prompt: model.prompts.document, operation: "models-in-use" },
  );
  const all = await model.weigh(...missing.map(({ tokenWeights }) => tokenWeights)).encode(encoded.ids);
  for (const [at, { fingerprint }] of missing.entries()) {
    const rows = packedPart(all, model.dimensions, at);
    found.set(fingerprint, rows);
    await keepRows(values.vectors, nameOf(fingerprint), ids, rows);
  }
  return found;
}
