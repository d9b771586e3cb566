/**
 * Dense, lexical and hybrid search of `CorpusIndex` on real judgements, beside the table of the reference (`REFERENCE.md`
 * §1): nDCG@10 over its queries, documents cut at 128 tokens, queries at 64, the spectral context of its 512 documents.
 *
 *   npm run build && node bench/hybrid-reference.mjs --data <folder> --base <folder> [--vectors <cache folder>] [--sets bankfaq,cisi]
 *
 * `--base` is the folder of all-MiniLM-L6-v2. Each text is encoded once: the spectral embedder maps the vectors of the
 * dense one, which is what `withContext` does.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { evaluateRun, readCorpus, readQrels, readQueries } from "../packages/core/dist/evaluation/index.js";
import { ContextualEncoder, fitSpectralMap } from "../packages/core/dist/index.js";
import { CorpusIndex, describeFusion } from "../packages/retriever/dist/index.js";
import { BaseVectors } from "./lib/base-vectors.mjs";

const COLUMNS = ["BM25", "dense", "spectral", "RRF dense", "RRF spectral", "mix 0.5", "auto", "auto, no context"];
/** The reference has none of the last two. */
const REFERENCE = {
  bankfaq: [49.3, 64.4, 64.9, 61.3, 61.3, 64.4],
  cisi: [37.2, 40.9, 43.6, 44.8, 46.3, 47.5],
  techqa: [60.1, 72.0, 72.7, 70.5, 70.8, 73.7],
  obliqa: [68.8, 47.4, 53.3, 62.4, 66.0, 70.1],
  fin10k: [69.6, 67.6, 69.5, 72.6, 73.3, 74.6],
  nfcorpus: [31.8, 31.7, 31.3, 34.3, 34.0, 35.5],
  oyez: [78.0, 49.7, 52.7, 66.7, 68.2, 75.4],
  npl_vaswani: [44.5, 43.3, 43.6, 51.2, 51.3, 51.2],
  checkthat2020: [90.9, 95.8, 96.1, 95.0, 95.3, 96.2],
};
const rrf = { mode: "hybrid", fusion: { kind: "rrf", k: 60 } };
const SEARCHES = [
  ["dense", { mode: "lexical" }],
  ["dense", { mode: "dense" }],
  ["spectral", { mode: "dense" }],
  ["dense", rrf],
  ["spectral", rrf],
  ["spectral", { fusion: { kind: "mix", weight: 0.5 } }],
  ["spectral", { fusion: "auto" }],
  ["dense", { fusion: "auto" }],
];

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    vectors: { type: "string" },
    sets: { type: "string" },
  },
});
const { data, base } = values;
if (data === undefined || base === undefined || !existsSync(data) || !existsSync(base)) {
  console.error("Give the folders of the data sets and the model: --data <folder> --base <folder>");
  process.exit(2);
}
const ids = JSON.parse(gunzipSync(readFileSync(join(data, "reference-ids.json.gz"))).toString("utf8"));
const encoder = await ContextualEncoder.load(base, { maxTokens: 128 });
const plain = encoder.withoutContext();
const source = new BaseVectors({ data, base, cache: values.vectors });

const rows = [];
for (const name of values.sets?.split(",") ?? Object.keys(REFERENCE)) {
  const set = join(data, name);
  const { queries: asked, context } = ids[name];
  const documents = [];
  for await (const document of readCorpus(set)) documents.push(document);
  const texts = new Map();
  for await (const { id, text } of readQueries(set)) texts.set(id, text);
  const judged = await readQrels(set, "test");
  const qrels = new Map(asked.map((query) => [query, judged.get(query)]));

  const started = performance.now();
  const dense = remembering(plain, values.vectors ? await cached(name, asked) : new Map());
  const denseIndex = await CorpusIndex.build(dense, documents, { split: false });
  const byId = new Map(documents.map((document) => [document.id, document]));
  const sample = context.map((id) => embeddedText(byId.get(id)));
  const { vectors } = await dense.embedDocuments(sample);
  const map = await fitSpectralMap({ rows: Float32Array.from(vectors.flatMap((v) => [...v])), dimensions: 384 });
  const spectral = mapped(dense, map);
  const indexes = { dense: denseIndex, spectral: await CorpusIndex.build(spectral, documents, { split: false }) };

  const ours = [];
  for (const [index, options] of SEARCHES) {
    const run = new Map();
    for (const query of asked) {
      const text = texts.get(query);
      const hits = await indexes[index].search(text, { k: 10, ...options });
      run.set(
        query,
        hits.map(({ id }) => id),
      );
    }
    ours.push(100 * evaluateRun(qrels, run, ["ndcg@10"]).mean["ndcg@10"]);
  }
  console.log(`${name}: ${describeFusion(indexes.spectral.fusion)}`);
  for (const index of Object.values(indexes)) await index.close();
  rows.push({ name, ours });
  const table = REFERENCE[name];
  console.log(
    `${name}: ${documents.length} documents, ${asked.length} queries, ${Math.round((performance.now() - started) / 1000)} s`,
  );
  console.table(
    COLUMNS.map((column, i) => ({
      column,
      ours: rounded(ours[i]),
      reference: table[i],
      off: table[i] === undefined ? undefined : rounded(ours[i] - table[i]),
    })),
  );
}
console.log(`mean of ${rows.length} sets`);
const mean = (of) => of.reduce((sum, x) => sum + x, 0) / of.length;
console.table(
  COLUMNS.map((column, i) => {
    const ours = mean(rows.map((row) => row.ours[i]));
    if (REFERENCE[rows[0].name][i] === undefined) return { column, ours: rounded(ours) };
    const reference = mean(rows.map((row) => REFERENCE[row.name][i]));
    return { column, ours: rounded(ours), reference: rounded(reference), off: rounded(ours - reference) };
  }),
);
await encoder.dispose();
await source.dispose();

/** Vectors of the cache by text, as `remembering` keeps them. */
async function cached(name, asked) {
  const known = new Map();
  const fill = ({ texts, rows }, key) => {
    for (const [i, text] of texts.entries()) known.set(key(text), rows.slice(i * 384, (i + 1) * 384));
  };
  fill(await source.documents(name), (text) => text);
  fill(await source.queries(name, "test", { only: asked }), (text) => `query ${text}`);
  return known;
}

function embeddedText({ title, text }) {
  return (title ? `${title} ${text}` : text).trim();
}

/** An embedder that cuts queries at 64 tokens and encodes no text twice. */
function remembering(embedder, known) {
  const embedDocuments = async (list, options) => {
    const unknown = [...new Set(list)].filter((text) => !known.has(text));
    const { vectors } = await embedder.embedDocuments(unknown, options);
    for (const [i, text] of unknown.entries()) known.set(text, vectors[i]);
    return { vectors: list.map((text) => known.get(text)), truncated: [] };
  };
  const { modelId, dimensions, maxTokens, fingerprint, batchInvariant } = embedder;
  return {
    ...{ modelId, dimensions, maxTokens, fingerprint, batchInvariant, embedDocuments },
    embedQuery: async (text) => {
      const key = `query ${text}`;
      if (!known.has(key)) known.set(key, await embedder.embedQuery(firstTokens(text, 64)));
      return known.get(key);
    },
  };
}

function mapped(embedder, map) {
  return {
    ...embedder,
    fingerprint: `${embedder.fingerprint} spectral`,
    embedQuery: async (text) => map.apply([await embedder.embedQuery(text)])[0],
    embedDocuments: async (list, options) => {
      const { vectors } = await embedder.embedDocuments(list, options);
      return { vectors: map.apply(vectors), truncated: [] };
    },
  };
}

/** The longest run of words from the start that fits. */
function firstTokens(text, count) {
  const words = text.split(/\s+/);
  while (words.length > 1 && plain.countTokens(words.join(" ")) > count) words.pop();
  return words.join(" ");
}

function rounded(value) {
  return Math.round(value * 100) / 100;
}
