/**
 * The spectral context on real judgements, beside the reference's figures (`REFERENCE.md` §1 and §2): nDCG@10 of base and
 * spectral vectors over its test queries and context documents; what the number J of context documents is worth (mean
 * over draws); and the controls: the context of another corpus, and a mixture of the other corpora.
 *
 *   npm run build && node bench/spectral-reference.mjs --data <folder> --base <all-MiniLM-L6-v2> --vectors <cache folder>
 *     [--sets bankfaq,cisi] [--draws 3]
 */
import { parseArgs } from "node:util";
import { createRandom, fitSpectralMap } from "@cde-js/core";
import { evaluateRun } from "@cde-js/core/evaluation";
import { BaseVectors, referenceIds, takeRows } from "./lib/base-vectors.mjs";
import { rankings } from "./lib/ranking.mjs";

const WIDTH = 384;
/** Dense and spectral of the reference's table, nDCG@10 × 100. */
const REFERENCE = {
  bankfaq: [64.4, 64.9],
  cisi: [40.9, 43.6],
  techqa: [72.0, 72.7],
  obliqa: [47.4, 53.3],
  fin10k: [67.6, 69.5],
  nfcorpus: [31.7, 31.3],
  oyez: [49.7, 52.7],
  npl_vaswani: [43.3, 43.6],
  checkthat2020: [95.8, 96.1],
};
/** Mean gain by the number of context documents, over all nine sets. */
const GAIN_BY_SIZE = { 64: 0.7, 256: 1.5, 512: 1.6, 2048: 1.7 };
const GAIN_OF_OTHERS = { "another corpus": -0.1, "mixture of the others": 0.3 };

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    vectors: { type: "string" },
    sets: { type: "string", default: Object.keys(REFERENCE).join(",") },
    draws: { type: "string", default: "3" },
  },
});
if (!values.data || !values.base) {
  console.error("usage: node bench/spectral-reference.mjs --data <folder> --base <folder> [--vectors <cache folder>]");
  process.exit(2);
}
const names = values.sets.split(",");
const draws = Number(values.draws);
const source = new BaseVectors({ data: values.data, base: values.base, cache: values.vectors });
const reference = await referenceIds(values.data);

const sets = [];
for (const name of names) {
  const { ids, rows } = await source.documents(name);
  const queries = await source.queries(name, "test", { only: reference[name].queries });
  const at = new Map(ids.map((id, i) => [id, i]));
  sets.push({
    name,
    ids,
    rows,
    queries,
    context: take(
      rows,
      reference[name].context.map((id) => at.get(id)),
    ),
  });
}
await source.dispose();

async function ndcg({ ids, rows, queries }, context) {
  const map = context && (await fitSpectralMap({ rows: context, dimensions: WIDTH }));
  const mapped = (of) => (map ? map.applyRows(of) : of);
  const run = await rankings({ ids, rows: mapped(rows) }, { ids: queries.ids, rows: mapped(queries.rows) }, WIDTH, 10);
  return 100 * evaluateRun(queries.qrels, run, ["ndcg@10"]).mean["ndcg@10"];
}

const table = [];
for (const set of sets) {
  const [dense, spectral] = [await ndcg(set), await ndcg(set, set.context)];
  const [theirDense, theirSpectral] = REFERENCE[set.name];
  Object.assign(set, { dense, spectral });
  table.push({
    set: set.name,
    dense: rounded(dense),
    reference: theirDense,
    off: rounded(dense - theirDense),
    spectral: rounded(spectral),
    "reference ": theirSpectral,
    "off ": rounded(spectral - theirSpectral),
  });
}
console.table(table);
console.log(
  `mean: dense ${rounded(mean(sets.map((s) => s.dense)))}, spectral ${rounded(mean(sets.map((s) => s.spectral)))}`,
);

const sizes = [];
for (const [size, expected] of Object.entries(GAIN_BY_SIZE)) {
  const gains = [];
  for (let seed = 1; seed <= draws; seed++) {
    const of = [];
    for (const set of sets) of.push((await ndcg(set, sample(set.rows, Number(size), seed))) - set.dense);
    gains.push(mean(of));
  }
  sizes.push({
    J: size,
    gain: rounded(mean(gains)),
    least: rounded(Math.min(...gains)),
    most: rounded(Math.max(...gains)),
    expected,
  });
}
console.table(sizes);

const others = { "another corpus": [], "mixture of the others": [] };
for (const [i, set] of sets.entries()) {
  const rest = sets.filter((other) => other !== set);
  if (rest.length === 0) break;
  // Every other corpus's context in turn would take long; the next three stand for them.
  for (let step = 1; step <= Math.min(3, rest.length); step++) {
    const other = sets[(i + step) % sets.length];
    others["another corpus"].push((await ndcg(set, other.context)) - set.dense);
  }
  const parts = rest.flatMap(({ rows }, k) => [...sample(rows, Math.ceil(512 / rest.length), 1 + k)]);
  others["mixture of the others"].push((await ndcg(set, Float32Array.from(parts))) - set.dense);
}
console.table(
  Object.entries(others).map(([context, gains]) => ({
    context,
    gain: rounded(mean(gains)),
    expected: GAIN_OF_OTHERS[context],
  })),
);

function sample(rows, size, seed) {
  const count = rows.length / WIDTH;
  const order = createRandom(seed).shuffle([...Array(count).keys()]);
  return take(rows, order.slice(0, size));
}

function take(rows, positions) {
  return takeRows(rows, positions, WIDTH);
}

function mean(of) {
  return of.reduce((sum, x) => sum + x, 0) / of.length;
}

function rounded(value) {
  return Math.round(value * 100) / 100;
}
