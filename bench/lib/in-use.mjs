/**
 * Models as they are used by default: without context, with the one that `buildContext` makes and calibrates, with another
 * corpus's, and in hybrid search. nDCG@10 by set and query; texts are cut at 128 tokens.
 */
import { ContextualEncoder, createRandom } from "@cde-js/core";
import { evaluateRun } from "@cde-js/core/evaluation";
import { CorpusIndex } from "@cde-js/retriever";
import { packedPart } from "../../packages/core/dist/encoder/calibrate.js";
import { loadBiencoder } from "../../packages/core/dist/encoder/load-biencoder.js";
import { readModelDirectory } from "../../packages/core/dist/model/model-directory.js";
import { Runtime } from "../../packages/core/dist/runtime/runtime.js";
import { documentsOf, drawnIds, keepRows, queriesOf, readRows } from "./base-vectors.mjs";
import { points } from "./gains.mjs";

const TOKENS = 128;
const CONTEXT = 512;
const METRIC = "ndcg@10";

/**
 * Documents, queries and context documents of a set; `reference` names the latter two of a test split. Of other splits documents are
 * cut to `documents`: judged ones and others drawn by a seed.
 */
export async function readSet(data, set, { split, documents: limit, queries, reference }) {
  const only = reference?.queries;
  const { ids, texts, qrels } = await queriesOf(data, set, split, { only, limit: queries });
  let documents = await documentsOf(data, set);
  if (split !== "test" && documents.length > limit) {
    const keep = [...qrels.values()].flatMap((grades) => [...grades.keys()]);
    const kept = drawnIds(documents, { limit, keep, seed: 1 });
    documents = documents.filter(({ id }) => kept.has(id));
  }
  const textOf = new Map(documents.map(({ id, text }) => [id, text]));
  const context =
    reference?.context.map((id) => textOf.get(id)) ??
    createRandom(9)
      .shuffle(documents.map(({ text }) => text))
      .slice(0, CONTEXT);
  return {
    ...{ set, split },
    documents: documents.map(({ id, text }) => ({ id, text })),
    context,
    queries: ids.map((id, i) => ({ id, text: texts[i] })),
    qrels,
  };
}

/**
 * `{ plain, context, hybrid, wrong }`, each `{ set: { query id: nDCG@10 } }`; `wrong` of several sets alone. Base vectors are kept in the
 * folder `vectors`.
 */
export async function measureInUse(name, directory, corpora, { vectors } = {}) {
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
    const rows = await baseRows(model, corpus, Object.values(embedders), vectors);
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
async function baseRows(model, { set, split, documents }, embedders, folder) {
  const bases = new Map(embedders.map((embedder) => embedder.base ?? embedder).map((base) => [base.fingerprint, base]));
  const ids = documents.map(({ id }) => id);
  const nameOf = (fingerprint) => `${set}.${split}.${documents.length}.${fingerprint.slice(0, 16)}`;
  const found = new Map();
  for (const fingerprint of bases.keys()) {
    const rows = await readRows(folder, nameOf(fingerprint), ids);
    if (rows) found.set(fingerprint, rows);
  }
  const missing = [...bases.values()].filter(({ fingerprint }) => !found.has(fingerprint));
  if (missing.length === 0) return found;
  const encoded = await model.tokenizer.encodeBatch(
    documents.map(({ text }) => text),
    { maxTokens: TOKENS, prompt: model.prompts.document, operation: "measureInUse" },
  );
  const all = await model.weigh(...missing.map(({ tokenWeights }) => tokenWeights)).encode(encoded.ids);
  for (const [at, { fingerprint }] of missing.entries()) {
    const rows = packedPart(all, model.dimensions, at);
    found.set(fingerprint, rows);
    await keepRows(folder, nameOf(fingerprint), ids, rows);
  }
  return found;
}
