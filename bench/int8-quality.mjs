/**
 * What int8 costs in retrieval: nDCG@10 of the bundled model beside the float32 weights that it was made from, on dev
 * splits in BEIR's layout, with the 95 % paired bootstrap interval. The target: at most 0.5 points lost a set.
 *
 *   node bench/int8-quality.mjs --data <folder of data sets> --base <folder of all-MiniLM-L6-v2> [--sets a,b] [--split dev]
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ContextualEncoder } from "@cde-js/core";
import { compareRuns, evaluateRun, readCorpus, readQrels, readQueries } from "@cde-js/core/evaluation";
import { modelDirectory } from "@cde-js/model-mini";

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    sets: { type: "string", default: "bankfaq,covidqa,techqa" },
    split: { type: "string", default: "dev" },
  },
});
if (!values.data || !values.base) {
  console.error("usage: node bench/int8-quality.mjs --data <folder> --base <folder> [--sets a,b] [--split dev]");
  process.exit(2);
}
/** Array.fromAsync needs Node 22. */
async function toArray(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

const METRIC = "ndcg@10";
const subjects = {
  float32: await ContextualEncoder.load(values.base, { maxTokens: 256 }),
  int8: await ContextualEncoder.load(modelDirectory, { maxTokens: 256 }),
};

for (const set of values.sets.split(",")) {
  const folder = join(values.data, set);
  const documents = await toArray(readCorpus(folder));
  const qrels = await readQrels(folder, values.split);
  const queries = (await toArray(readQueries(folder))).filter(({ id }) => qrels.has(id));
  const evaluations = {};
  const seconds = {};
  for (const [name, encoder] of Object.entries(subjects)) {
    const embedder = encoder.withoutContext();
    const before = performance.now();
    const { vectors } = await embedder.embedDocuments(
      documents.map(({ title, text }) => (title === "" ? text : `${title} ${text}`)),
    );
    seconds[name] = (performance.now() - before) / 1000;
    const questions = await embedder.embedQueries(queries.map(({ text }) => text));
    const run = new Map(queries.map(({ id }, i) => [id, best(questions.vectors[i], vectors)]));
    evaluations[name] = evaluateRun(qrels, run, [METRIC]);
  }
  const { float32, int8 } = evaluations;
  const { difference, interval, wins, losses } = compareRuns(float32, int8, METRIC, { seed: 1 });
  const points = (value) => (100 * value).toFixed(2);
  console.log(
    `${set} ${values.split}: ${documents.length} documents, ${float32.queries} queries; ${METRIC} float32 ${points(float32.mean[METRIC])}, ` +
      `int8 ${points(int8.mean[METRIC])}, difference ${points(difference)} [${interval.map(points).join(", ")}], ` +
      `${wins} up ${losses} down; documents took ${seconds.float32.toFixed(0)} s and ${seconds.int8.toFixed(0)} s`,
  );

  /** The 100 nearest documents: enough for a cut at 10 whatever the ties. */
  function best(query, vectors) {
    const scores = vectors.map((vector, i) => [documents[i].id, vector.reduce((sum, x, k) => sum + x * query[k], 0)]);
    return new Map(scores.sort(([, a], [, b]) => b - a).slice(0, 100));
  }
}
for (const encoder of Object.values(subjects)) await encoder.dispose();
