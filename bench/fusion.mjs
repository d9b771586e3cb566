/**
 * Fits and judges the rule by which `fusion: "auto"` weighs meaning and words, on real judgements (dev and train splits,
 * never test), leave-one-corpus-out: the rule that a corpus is judged by was fitted on the others. Prints the table of
 * docs/fusion.md, and the lines of `query-weight.ts` and `auto-fusion.ts`.
 *
 *   npm run build && node bench/fusion.mjs --data <folder> --base <all-MiniLM-L6-v2> --vectors <cache folder>
 *     [--sets a,b] [--queries 500] [--cut a,b --documents 3500] [--share 0.8]
 *
 * Each corpus is there three times: with the vectors of a spectral context at the fixed strength, with tokens weighted by how rare they
 * are in it and without, and with those of no context.
 */
import { parseArgs } from "node:util";
import { createRandom, fitSpectralMap } from "@cde-js/core";
import { ASKED, chooseFusion } from "../packages/retriever/dist/fusion/auto-fusion.js";
import { inDrawOrder } from "../packages/retriever/dist/fusion/draw.js";
import { queryWeight, rankingFalls, WEIGHT_RULE } from "../packages/retriever/dist/fusion/query-weight.js";
import { Bm25Index, ExactIndex, mix } from "../packages/retriever/dist/index.js";
import { BaseVectors, takeRows } from "./lib/base-vectors.mjs";

const WIDTH = 384;
const DEPTH = 100;
const VARIANTS = ["weighted", "spectral", "plain"];
const WEIGHTS = Array.from({ length: 21 }, (_, i) => i / 20);
const SETS =
  "bankfaq,boolq,checkthat2020,climate_fever_sent,covidqa,cuad,fin10k,medquad,multirc,nfcorpus,nq,obliqa,oyez,race,scitldr,squad,tatqa,techqa,tldr_pages";
/** How sharply the fit tells a relevant passage from others, in units of the mixed score. */
const SHARPNESS = 10;
/** Keeps coefficients of standardised falls small. */
const RIDGE = 1e-3;

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    vectors: { type: "string" },
    sets: { type: "string", default: SETS },
    queries: { type: "string", default: "500" },
    cut: { type: "string", default: "tldr_pages,medquad,cuad,race" },
    documents: { type: "string", default: "3500" },
    share: { type: "string", default: "0.8" },
  },
});
if (!values.data || !values.base) {
  console.error("usage: node bench/fusion.mjs --data <folder> --base <folder> [--vectors <cache folder>]");
  process.exit(2);
}
const source = new BaseVectors({ data: values.data, base: values.base, cache: values.vectors });
const cut = new Set(values.cut.split(","));
const share = Number(values.share);

const corpora = [];
for (const name of values.sets.split(",")) {
  const started = performance.now();
  const judged = await source.judgedQueries(name, Number(values.queries));
  const { ids, texts, rows } = await source.documents(name, {
    limit: cut.has(name) ? Number(values.documents) : undefined,
    keep: judged.flatMap(({ qrels }) => [...qrels.values()].flatMap((of) => [...of.keys()])),
  });
  const at = new Map(ids.map((id, i) => [id, i]));
  const words = new Bm25Index();
  for (const [i, text] of texts.entries()) words.upsert(i, text);
  const sample = createRandom(1)
    .shuffle(ids.map((_, i) => i))
    .slice(0, 512);
  const weighted = await source.weighted(name, {
    context: sample.map((i) => texts[i]),
    documents: { ids, texts },
    queries: judged,
  });
  const mapOf = async (of) => fitSpectralMap({ rows: take(of, sample), dimensions: WIDTH });
  const [map, weightedMap] = [await mapOf(rows), await mapOf(weighted.documents)];
  const queryRows = judged.map((of) => of.rows);
  const corpus = { name, size: ids.length };
  for (const [variant, of] of Object.entries({
    weighted: {
      documents: weightedMap.applyRows(weighted.documents),
      queries: weighted.queries.map((rows) => weightedMap.applyRows(rows)),
    },
    spectral: { documents: map.applyRows(rows), queries: queryRows.map((rows) => map.applyRows(rows)) },
    plain: { documents: rows, queries: queryRows },
  })) {
    const vectors = new ExactIndex(WIDTH);
    await vectors.upsert(
      Uint32Array.from(ids, (_, i) => i),
      of.documents,
    );
    const queries = [];
    for (const [split, { ids: queryIds, texts: asked, qrels }] of judged.entries()) {
      const turned = of.queries[split];
      for (const [i, id] of queryIds.entries()) {
        const found = await vectors.search(turned.slice(i * WIDTH, (i + 1) * WIDTH), DEPTH);
        const dense = found.map(({ label, score }) => ({ id: label, score }));
        const lexical = words.search(asked[i], { k: DEPTH }).map(({ row, score }) => ({ id: row, score }));
        queries.push(queryOf(dense, lexical, words.frequencyMass(asked[i]), qrels.get(id), at));
      }
    }
    // As an index of whole documents draws them.
    const whole = ids.map((document, label) => ({ document, passage: 0, label })).sort(inDrawOrder);
    const drawn = Uint32Array.from(whole.slice(0, ASKED), ({ label }) => label);
    const choice = await chooseFusion(vectors, vectors, drawn, ids.length);
    corpus[variant] = { queries, fall: choice?.fall };
    await vectors.close();
  }
  // Too small to choose by, or without judgements: there is nothing to fit, and nothing to report.
  const { queries } = corpus.plain;
  const usable = ({ queries: of, fall }) =>
    fall !== undefined && of.some(({ falls, grades }) => falls && grades.some((grade) => grade > 0));
  if (!VARIANTS.every((variant) => usable(corpus[variant]))) {
    console.log(
      `${name}: left out, its ${ids.length} documents and ${queries.length} queries give nothing to choose by`,
    );
    continue;
  }
  corpora.push(corpus);
  console.log(`${name}: ${ids.length} documents, ${corpus.plain.queries.length} queries, ${seconds(started)}`);
}
await source.dispose();
if (corpora.length < 2) {
  console.error(`fusion: each corpus is judged by the others, and ${corpora.length} can be. Give more with --sets.`);
  process.exit(1);
}

const started = performance.now();
const table = [];
for (const corpus of corpora) {
  const rule = fitted(corpora.filter((other) => other !== corpus));
  for (const variant of VARIANTS) {
    const { queries, fall } = corpus[variant];
    const at = (weight) => mean(queries.map((query) => ndcg(query, weight)));
    const curve = WEIGHTS.map(at);
    const best = curve.indexOf(Math.max(...curve));
    const gainOf = (weights) => mean(queries.map((query, i) => ndcg(query, weights[i]))) - curve[10];
    const weights = queries.map(({ falls }) => (falls ? weightBy(rule, falls) : 0.5));
    corpus[variant].gain = gainOf(weights);
    corpus[variant].inUse = gainOf(queries.map(({ falls }) => (falls ? queryWeight(falls) : 0.5)));
    corpus[variant].oracle = curve[best] - curve[10];
    table.push({
      corpus: corpus.name,
      vectors: variant,
      documents: corpus.size,
      BM25: round(curve[0], 1),
      dense: round(curve.at(-1), 1),
      half: round(curve[10], 1),
      auto: signed(corpus[variant].gain),
      "in use": signed(corpus[variant].inUse),
      "best weight": `${signed(corpus[variant].oracle)} (${WEIGHTS[best]})`,
      weights: [0.1, 0.5, 0.9].map((part) => round(quantile(weights, part))).join(" "),
      fall: round(fall),
    });
  }
}
console.table(table);
for (const variant of VARIANTS) {
  const [gains, used, oracles] = ["gain", "inUse", "oracle"].map((key) =>
    corpora.map((corpus) => corpus[variant][key]),
  );
  console.log(
    `${variant}: auto ${signed(mean(gains))} over 0.5 in the mean, worst ${signed(Math.min(...gains))}; the rule in use ${signed(mean(used))}, worst ${signed(Math.min(...used))}; best weight of each corpus ${signed(mean(oracles))}`,
  );
}
const rule = fitted(corpora);
console.log(
  `\nfor query-weight.ts, of all ${corpora.length} (in use: ${JSON.stringify(WEIGHT_RULE)}): ${JSON.stringify(rule)}`,
);
const inUse = corpora.flatMap((corpus) =>
  corpus.weighted.queries.filter(({ falls }) => falls).map(({ falls }) => queryWeight(falls)),
);
console.log(
  `weights of the rule in use, smallest, middle, largest: ${[0, 0.5, 1].map((p) => round(quantile(inUse, p))).join(" ")}`,
);
const falls = corpora.flatMap((corpus) => VARIANTS.map((variant) => corpus[variant].fall));
console.log(
  `for auto-fusion.ts: falls ${round(Math.min(...falls))} to ${round(Math.max(...falls))} (fitted in ${seconds(started)})`,
);

function queryOf(dense, lexical, mass, judged, at) {
  const falls = rankingFalls(dense, lexical, mass);
  const scaled = [mix(dense, lexical, { weight: 1 }), mix(dense, lexical, { weight: 0 })];
  const parts = new Map();
  for (const [l, list] of scaled.entries()) {
    for (const { id, score } of list) {
      const pair = parts.get(id) ?? [0, 0];
      pair[l] = score;
      parts.set(id, pair);
    }
  }
  const grades = new Map([...judged].map(([id, grade]) => [at.get(id), grade]));
  const ids = [...dense, ...lexical.filter(({ id }) => !dense.some((of) => of.id === id))].map(({ id }) => id);
  const ideal = [...grades.values()].filter((grade) => grade > 0).sort((a, b) => b - a);
  return {
    falls,
    dense: Float64Array.from(ids, (id) => parts.get(id)[0]),
    lexical: Float64Array.from(ids, (id) => parts.get(id)[1]),
    grades: Float64Array.from(ids, (id) => Math.max(0, grades.get(id) ?? 0)),
    ideal: discounted(ideal),
  };
}

function ndcg({ dense, lexical, grades, ideal }, weight) {
  const scores = dense.map((score, i) => weight * score + (1 - weight) * lexical[i]);
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, 10);
  return (100 * discounted(order.map((i) => grades[i]))) / ideal;
}

function discounted(grades) {
  return grades.slice(0, 10).reduce((sum, grade, rank) => sum + grade / Math.log2(rank + 2), 0);
}

/**
 * Least cross-entropy between softmax(sharpness · mixed score) and the relevant passages, each corpus counting the same;
 * by Newton's method with a numerical Hessian. `share` of the logarithm of odds is kept.
 */
function fitted(of) {
  const rows = of.flatMap((corpus) =>
    VARIANTS.flatMap((variant) => {
      const usable = corpus[variant].queries.filter(({ falls, grades }) => falls && grades.some((grade) => grade > 0));
      return usable.map((query) => ({ ...query, x: logs(query.falls), share: 1 / usable.length }));
    }),
  );
  const total = rows.reduce((sum, row) => sum + row.share, 0);
  const centre = [0, 1, 2].map((k) => mean(rows.map(({ x }) => x[k])));
  const spread = [0, 1, 2].map((k) => Math.sqrt(mean(rows.map(({ x }) => (x[k] - centre[k]) ** 2))));
  for (const row of rows) row.z = [1, ...row.x.map((value, k) => (value - centre[k]) / spread[k])];
  const gradient = (theta) => {
    const sum = theta.map((value, k) => (k === 0 ? 0 : 2 * RIDGE * value));
    for (const { z, dense, lexical, grades, share } of rows) {
      const weight = 1 / (1 + Math.exp(-z.reduce((dot, value, k) => dot + value * theta[k], 0)));
      let [normal, expected, relevant, wanted] = [0, 0, 0, 0];
      for (let i = 0; i < dense.length; i++) {
        const difference = dense[i] - lexical[i];
        const mass = Math.exp(SHARPNESS * (weight * difference + lexical[i] - 1));
        normal += mass;
        expected += mass * difference;
        if (grades[i] === 0) continue;
        relevant++;
        wanted += difference;
      }
      const slope = SHARPNESS * (expected / normal - wanted / relevant) * weight * (1 - weight);
      for (let k = 0; k < 4; k++) sum[k] += (share / total) * slope * z[k];
    }
    return sum;
  };
  let theta = [0, 0, 0, 0];
  for (let step = 0; step < 8; step++) {
    const g = gradient(theta);
    const h = theta.map((_, k) => {
      const moved = gradient(theta.map((value, j) => (j === k ? value + 1e-4 : value)));
      return moved.map((value, j) => (value - g[j]) / 1e-4);
    });
    const move = solved(h, g);
    theta = theta.map((value, k) => value - move[k]);
    if (Math.max(...move.map(Math.abs)) < 1e-5) break;
  }
  const slopes = [0, 1, 2].map((k) => (share * theta[k + 1]) / spread[k]);
  const intercept = share * theta[0] - slopes.reduce((sum, slope, k) => sum + slope * centre[k], 0);
  const [dense, reached, lexical] = slopes.map((value) => round(value));
  return { intercept: round(intercept), dense, reached, lexical };
}

function weightBy({ intercept, dense, reached, lexical }, falls) {
  const [a, b, c] = logs(falls);
  return 1 / (1 + Math.exp(-(intercept + dense * a + reached * b + lexical * c)));
}

function logs({ dense, reached, lexical }) {
  return [dense, reached, lexical].map((fall) => Math.log(Math.max(fall, 1e-3)));
}

/** Gaussian elimination with pivots. */
function solved(matrix, right) {
  const rows = matrix.map((row, i) => [...row, right[i]]);
  const n = rows.length;
  for (let k = 0; k < n; k++) {
    const pivot = rows
      .slice(k)
      .reduce((best, row, i) => (Math.abs(row[k]) > Math.abs(rows[best][k]) ? k + i : best), k);
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    for (let i = k + 1; i < n; i++) {
      const factor = rows[i][k] / rows[k][k];
      for (let j = k; j <= n; j++) rows[i][j] -= factor * rows[k][j];
    }
  }
  const x = new Array(n).fill(0);
  for (let k = n - 1; k >= 0; k--) {
    x[k] = (rows[k][n] - rows[k].slice(k + 1, n).reduce((sum, value, j) => sum + value * x[k + 1 + j], 0)) / rows[k][k];
  }
  return x;
}

function take(rows, positions) {
  return takeRows(rows, positions, WIDTH);
}

function quantile(of, part) {
  const sorted = [...of].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
}

function mean(of) {
  return of.reduce((sum, value) => sum + value, 0) / of.length;
}

function round(value, digits = 2) {
  return Number(value.toFixed(digits));
}

function signed(value) {
  return `${value < 0 ? "" : "+"}${value.toFixed(2)}`;
}

function seconds(since) {
  return `${Math.round((performance.now() - since) / 1000)} s`;
}
