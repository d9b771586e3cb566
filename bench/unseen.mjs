/**
 * Models beside their base on corpora that neither saw: nDCG@10 on dev splits, without context, with the spectral context of
 * the corpus, and with another corpus's (control). This chooses weights that are shipped; test splits don't.
 *
 *   npm run build && node bench/unseen.mjs --data <folder> --base <all-MiniLM-L6-v2> --models <folder>[,<folder>…]
 *     [--sets obliqa,oyez,nfcorpus,fin10k,bankfaq,techqa] [--documents 1500] [--queries 300] [--vectors <cache folder>]
 *
 * Of a corpus with more than `--documents`, the judged ones and others drawn by a seed are searched, so only differences
 * count. The strength of the map is the default one, for all alike. Intervals: 95 %, paired bootstrap over queries, sets
 * weighing the same.
 */
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { createRandom, fitSpectralMap } from "@cde-js/core";
import { evaluateRun } from "@cde-js/core/evaluation";
import { BaseVectors, takeRows } from "./lib/base-vectors.mjs";
import { rankings } from "./lib/ranking.mjs";

const WIDTH = 384;
const CONTEXT = 512;
const DRAWS = 5000;
const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    models: { type: "string" },
    vectors: { type: "string" },
    sets: { type: "string", default: "obliqa,oyez,nfcorpus,fin10k,bankfaq,techqa" },
    documents: { type: "string", default: "1500" },
    queries: { type: "string", default: "300" },
  },
});
if (!values.data || !values.base || !values.models) {
  console.error("usage: node bench/unseen.mjs --data <folder> --base <folder> --models <folder>[,<folder>…]");
  process.exit(2);
}
const sets = values.sets.split(",");
const models = new Map([
  ["base", values.base],
  ...values.models.split(",").map((path) => [basename(resolve(path)), path]),
]);

/** model → variant → set → query → nDCG@10 */
const figures = new Map();
for (const [name, path] of models) {
  const cache = values.vectors && join(values.vectors, name);
  const source = new BaseVectors({ data: values.data, base: path, cache });
  const read = [];
  for (const set of sets) {
    const queries = await source.queries(set, "dev", { limit: Number(values.queries) });
    const judged = [...queries.qrels.values()].flatMap((grades) => [...grades.keys()]);
    const documents = await source.documents(set, { limit: Number(values.documents), keep: judged });
    const rows = createRandom(9)
      .shuffle([...documents.ids.keys()])
      .slice(0, CONTEXT);
    const context = takeRows(documents.rows, rows, WIDTH);
    read.push({ set, queries, documents, context });
  }
  await source.dispose();
  const variants = { plain: new Map(), context: new Map(), wrong: new Map() };
  for (const [i, { set, queries, documents, context }] of read.entries()) {
    const other = read[(i + 1) % read.length].context;
    for (const [variant, of] of [
      ["plain", undefined],
      ["context", context],
      ["wrong", other],
    ]) {
      const map = of && (await fitSpectralMap({ rows: of, dimensions: WIDTH }));
      const mapped = (rows) => (map ? map.applyRows(rows) : rows);
      const run = await rankings(
        { ids: documents.ids, rows: mapped(documents.rows) },
        { ids: queries.ids, rows: mapped(queries.rows) },
        WIDTH,
        10,
      );
      const { perQuery } = evaluateRun(queries.qrels, run, ["ndcg@10"]);
      variants[variant].set(set, new Map([...perQuery].map(([id, row]) => [id, row["ndcg@10"]])));
    }
  }
  figures.set(name, variants);
}

for (const [name, variants] of figures) {
  for (const [variant, perSet] of Object.entries(variants)) {
    const row = sets.map((set) => `${set} ${(100 * mean([...perSet.get(set).values()])).toFixed(1)}`);
    const { points, low, high } = gain(perSet, figures.get("base").plain);
    console.log(
      `${name}, ${variant}: mean ${(100 * mean(sets.map((set) => mean([...perSet.get(set).values()])))).toFixed(2)} ` +
        `(${points.toFixed(2)} over the base; ${low.toFixed(2)} to ${high.toFixed(2)}): ${row.join(", ")}`,
    );
  }
  if (name === "base") continue;
  const { points, low, high } = gain(variants.context, figures.get("base").context);
  console.log(
    `${name}, context over the base's context: ${points.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
  );
}

/** Mean over sets of the mean difference, in points, with the interval over queries. */
function gain(ours, theirs) {
  const differences = sets.map((set) => [...ours.get(set)].map(([id, value]) => value - theirs.get(set).get(id)));
  const random = createRandom(1);
  const draws = Array.from({ length: DRAWS }, () =>
    mean(differences.map((of) => of.reduce((sum) => sum + of[random.integer(of.length)], 0) / of.length)),
  ).sort((a, b) => a - b);
  const at = (part) => 100 * draws[Math.floor(part * DRAWS)];
  return { points: 100 * mean(differences.map(mean)), low: at(0.025), high: at(0.975) };
}

function mean(numbers) {
  return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}
