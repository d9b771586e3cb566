/**
 * BM25 on real judgements: nDCG@10 of the built lexical index over the full test splits of every set, beside the
 * set's own `bm25.json`, and over the queries of the reference table.
 *
 *   npm run build && node bench/bm25-reference.mjs --data <folder> [--sets bankfaq,cisi]
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { evaluateRun, readCorpus, readQrels, readQueries } from "../packages/core/dist/evaluation/index.js";
import { Bm25Index } from "../packages/retriever/dist/lexical/bm25-index.js";

/** The BM25 column of the reference table (`REFERENCE.md` §1), made with Snowball stems and other stop words. */
const REFERENCE = {
  bankfaq: 49.3,
  cisi: 37.2,
  techqa: 60.1,
  obliqa: 68.8,
  fin10k: 69.6,
  nfcorpus: 31.8,
  oyez: 78.0,
  npl_vaswani: 44.5,
  checkthat2020: 90.9,
};

const { values } = parseArgs({ options: { data: { type: "string" }, sets: { type: "string" } } });
const folder = values.data;
if (folder === undefined || !existsSync(folder)) {
  console.error("Give the folder of the data sets: node bench/bm25-reference.mjs --data <folder>");
  process.exit(2);
}
const names =
  values.sets?.split(",") ?? readdirSync(folder).filter((name) => existsSync(join(folder, name, "bm25.json")));
const idsFile = join(folder, "reference-ids.json.gz");
const reference = existsSync(idsFile) ? JSON.parse(gunzipSync(readFileSync(idsFile)).toString("utf8")) : {};

const rows = [];
for (const name of names.sort()) {
  const set = join(folder, name);
  const documents = [];
  for await (const document of readCorpus(set)) documents.push(document);
  const texts = new Map();
  for await (const { id, text } of readQueries(set)) texts.set(id, text);
  const qrels = await readQrels(set, "test");

  const started = performance.now();
  const index = new Bm25Index();
  for (const [row, { title, text }] of documents.entries()) index.upsert(row, `${title} ${text}`);
  const seconds = (performance.now() - started) / 1000;

  const run = new Map();
  const times = [];
  for (const query of qrels.keys()) {
    const before = performance.now();
    const hits = index.search(texts.get(query), { k: 10 });
    times.push(performance.now() - before);
    run.set(
      query,
      hits.map(({ row }) => documents[row].id),
    );
  }
  times.sort((a, b) => a - b);
  const { mean, perQuery, queries } = evaluateRun(qrels, run, ["ndcg@10"]);
  const asked = reference[name]?.queries;
  rows.push({
    set: name,
    documents: documents.length,
    queries,
    "nDCG@10": 100 * mean["ndcg@10"],
    "bm25.json": 100 * JSON.parse(readFileSync(join(set, "bm25.json"), "utf8")).test.ndcg10,
    "reference queries": asked && 100 * average(asked.map((query) => perQuery.get(query)["ndcg@10"])),
    "REFERENCE.md": asked && REFERENCE[name],
    "documents/s": Math.round(documents.length / seconds),
    "p99 ms": times[Math.floor(0.99 * times.length)],
    "arrays MB": index.arrayBytes / 1e6,
  });
}

console.table(
  rows.map((row) =>
    Object.fromEntries(
      Object.entries(row).flatMap(([key, value]) => (value === undefined ? [] : [[key, rounded(value)]])),
    ),
  ),
);
const column = (key) => rows.map((row) => row[key]).filter((value) => value !== undefined);
const distances = rows.map((row) => Math.abs(row["nDCG@10"] - row["bm25.json"]));
console.log(
  `mean of ${rows.length} sets: ${rounded(average(column("nDCG@10")))}, bm25.json ${rounded(average(column("bm25.json")))}`,
);
console.log(`largest distance of one set: ${rounded(Math.max(...distances))}`);
if (column("REFERENCE.md").length > 0) {
  const [ours, table] = [average(column("reference queries")), average(column("REFERENCE.md"))];
  console.log(
    `reference queries, mean of ${column("REFERENCE.md").length} sets: ${rounded(ours)}, REFERENCE.md ${rounded(table)}`,
  );
}

function average(numbers) {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

function rounded(value) {
  return typeof value === "number" ? Math.round(value * 100) / 100 : value;
}
