/**
 * Judges how the strength of a spectral context is chosen, leave-one-corpus-out on real judgements (dev and train splits,
 * never test), and whether tokens are weighted with it: the rule sees one corpus's documents and what candidates gained on the others. Prints the table of
 * docs/spectral-context.md, and the lines of `prior-table.ts`, which are fitted on the sets of `--prior` alone.
 *
 *   npm run build && node bench/calibration.mjs --data <folder> --base <all-MiniLM-L6-v2> --vectors <cache folder>
 *     [--sets a,b] [--prior a,b] [--queries 500] [--cut a,b --documents 3500]
 *
 * `--figures FILE` keeps the gains by candidate, query and pseudo-query; `--from FILE,FILE` judges kept ones again. Sets of `--cut` keep at most `--documents` documents: those judged, the others drawn by a seed.
 */
import { readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { createRandom, SpectralMap, Spectrum } from "@cde-js/core";
import { evaluateRun, pairedBootstrap } from "@cde-js/core/evaluation";
import { bestCandidate, chooseStrength } from "../packages/core/dist/context/calibration/calibration.js";
import { CANDIDATES, DEFAULT_CANDIDATE } from "../packages/core/dist/context/calibration/candidates.js";
import { gainsOver, pseudoFigures } from "../packages/core/dist/context/calibration/pseudo-gains.js";
import { PSEUDO_QUERY_KINDS } from "../packages/core/dist/context/calibration/pseudo-queries.js";
import { planCalibration } from "../packages/core/dist/encoder/calibrate.js";
import { BaseVectors, takeRows } from "./lib/base-vectors.mjs";
import { rankings } from "./lib/ranking.mjs";

const WIDTH = 384;
const METRIC = "ndcg@10";
/** Sets whose licences allow that weights, and so priors, are made from them; none of the reference's nine. */
const PRIOR = "cuad,medquad,covidqa,tatqa,tldr_pages,scitldr,squad,boolq,nq";
const OTHERS = "bankfaq,techqa,nfcorpus,oyez,fin10k,obliqa,race,multirc,climate_fever_sent";

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    vectors: { type: "string" },
    sets: { type: "string", default: `${PRIOR},${OTHERS}` },
    prior: { type: "string", default: PRIOR },
    queries: { type: "string", default: "500" },
    cut: { type: "string", default: "" },
    documents: { type: "string", default: "3500" },
    figures: { type: "string" },
    from: { type: "string" },
  },
});
if (!values.from && (!values.data || !values.base)) {
  console.error("usage: node bench/calibration.mjs --data <folder> --base <folder> [--vectors <cache folder>]");
  process.exit(2);
}
const source = new BaseVectors({ data: values.data, base: values.base, cache: values.vectors });
const cut = new Set(values.cut.split(","));

const corpora = [];
for (const file of values.from?.split(",") ?? []) {
  const kept = JSON.parse(await readFile(file, "utf8")).corpora;
  corpora.push(
    ...kept.map(({ pseudo, errors, ...corpus }) => ({ ...corpus, pseudo: { mean: pseudo, error: errors } })),
  );
}
for (const name of values.from ? [] : values.sets.split(",")) {
  const started = performance.now();
  const judged = await source.judgedQueries(name, Number(values.queries));
  const { ids, texts, rows } = await source.documents(name, {
    limit: cut.has(name) ? Number(values.documents) : undefined,
    keep: judged.flatMap(({ qrels }) => [...qrels.values()].flatMap((of) => [...of.keys()])),
  });
  const sample = createRandom(1)
    .shuffle(ids.map((_, i) => i))
    .slice(0, 512);
  const context = { texts: sample.map((i) => texts[i]), vectors: take(rows, sample) };
  const weighted = await source.weighted(name, {
    context: context.texts,
    documents: { ids, texts },
    queries: judged,
  });
  const bases = [
    {
      documents: rows,
      queries: judged.map((of) => of.rows),
      context: context.vectors,
      embed: (kind, of, as) => source.rows(kind, of, `${name}.${as}`),
    },
    {
      documents: weighted.documents,
      queries: weighted.queries,
      context: take(weighted.documents, sample),
      embed: weighted.rows,
    },
  ];

  /** By weighting and candidate; the first is no context. */
  const figures = [];
  const pseudo = [];
  const { pseudoQueries } = planCalibration(context.texts, 0);
  for (const base of bases) {
    base.spectrum = await Spectrum.fit({ rows: base.context, dimensions: WIDTH });
    for (const strength of CANDIDATES) {
      const map = new SpectralMap(base.spectrum, { strength });
      const documents = { ids, rows: map.applyRows(base.documents) };
      const perQuery = [];
      for (const [i, { ids: queryIds, qrels }] of judged.entries()) {
        const run = await rankings(documents, { ids: queryIds, rows: map.applyRows(base.queries[i]) }, WIDTH, 10);
        const { perQuery: results } = evaluateRun(qrels, run, [METRIC]);
        perQuery.push(...queryIds.map((id) => 100 * (results.get(id)?.[METRIC] ?? 0)));
      }
      figures.push(perQuery);
    }
    pseudo.push(await pseudoOf(pseudoQueries, base));
  }
  const [base] = figures;
  const gains = figures.map((of) => of.map((value, i) => value - base[i]));
  const [off] = pseudo[0];
  const of = pseudo.map((figure) => gainsOver(off, figure));
  const { meanNormSquared } = chooseStrength([{ spectrum: bases[0].spectrum }], 0);
  corpora.push({
    name,
    meanNormSquared,
    base: mean(base),
    gains,
    truth: gains.map(mean),
    pseudo: { mean: of.flatMap(({ mean: gain }) => [...gain]), error: of.flatMap(({ error }) => [...error]) },
    size: ids.length,
  });
  console.log(
    `${name}: ${ids.length} documents, ${base.length} queries, ${Math.round((performance.now() - started) / 1000)} s`,
  );
}
await source.dispose();
if (values.figures) {
  const figures = corpora.map(({ pseudo, ...corpus }) => {
    return { ...corpus, pseudo: pseudo.mean, errors: pseudo.error };
  });
  await writeFile(values.figures, JSON.stringify({ candidates: CANDIDATES, corpora: figures }));
}

const OURS = "ours";
/** By others' gains and the corpus's own pseudo-queries; `only` the first candidates. */
const chosenBy = (corpus, only = Number.POSITIVE_INFINITY) => {
  return ruled(meanGains(except(corpus)), corpus, only);
};
const rules = {
  fixed: () => DEFAULT_CANDIDATE,
  "fixed, tokens weighted": () => CANDIDATES.length + DEFAULT_CANDIDATE,
  "best fixed of the others": (corpus) => best(meanGains(except(corpus))),
  "pseudo-queries alone": (corpus) => best(corpus.pseudo.mean),
  "ours, tokens alike": (corpus) => chosenBy(corpus, CANDIDATES.length),
  [OURS]: (corpus) => chosenBy(corpus),
  "oracle (the judgements themselves)": (corpus) => best(corpus.truth),
};
const table = corpora.map((corpus) => {
  const row = {
    corpus: corpus.name,
    documents: corpus.size,
    "|m|²": round(corpus.meanNormSquared, 3),
    base: round(corpus.base),
  };
  for (const [name, rule] of Object.entries(rules)) row[name] = round(corpus.truth[rule(corpus)], 2);
  const chosen = rules[OURS](corpus);
  row.chosen = `${label(CANDIDATES[chosen % CANDIDATES.length])}${chosen < CANDIDATES.length ? "" : ", weighted"}`;
  const [low, high] = pairedBootstrap(corpus.gains[chosen], { seed: 1 });
  row["95 %"] = `${round(low)} to ${round(high)}`;
  row.below = high < 0;
  return row;
});
console.table(table);
for (const name of Object.keys(rules)) {
  const of = table.map((row) => row[name]);
  console.log(`${name.padEnd(36)} mean ${signed(mean(of))}, worst ${signed(Math.min(...of))}`);
}
console.log(
  `significantly below base by our rule: ${
    table
      .filter((row) => row.below)
      .map((row) => row.corpus)
      .join(", ") || "none"
  }`,
);

const fitted = corpora.filter(({ name }) => values.prior.split(",").includes(name));
const prior = meanGains(fitted);
const largest = Math.max(...fitted.map((corpus) => corpus.meanNormSquared));
console.log(`\nfor prior-table.ts, of ${fitted.map(({ name }) => name).join(", ")}:`);
for (const only of [CANDIDATES.length, 2 * CANDIDATES.length]) {
  const ours = (corpus) => corpus.truth[ruled(prior, corpus, only)];
  const line = regression(fitted.map((corpus) => [corpus.meanNormSquared, ours(corpus)]));
  const gains = prior.slice(only - CANDIDATES.length, only).map((gain) => round(gain, 2));
  console.log(`PRIOR_GAINS ${gains.join(", ")}`);
  console.log(
    `EXPECTATIONS intercept ${round(line.intercept, 2)}, slope ${round(line.slope, 1)}, deviation ${round(line.deviation, 2)}, largest ${round(largest, 2)}`,
  );
}

async function pseudoOf(pseudoQueries, { spectrum, context, embed }) {
  const kinds = PSEUDO_QUERY_KINDS.map((_, kind) => pseudoQueries.map((query) => query.texts[kind]));
  const queries = [];
  for (const [i, kind] of kinds.entries()) queries.push(await embed("query", kind, `pseudo-${i}`));
  const rest = await embed(
    "document",
    pseudoQueries.map((query) => query.rest),
    "pseudo-rest",
  );
  const owners = pseudoQueries.map((query) => query.document);
  return await pseudoFigures(spectrum, { documents: context, queries, rest, owners });
}

/** What the rule takes, by its place among all candidates; `prior` has their gains elsewhere, `only` the first count. */
function ruled(prior, { pseudo }, only) {
  const parts = (of) =>
    [of.slice(0, CANDIDATES.length), of.slice(CANDIDATES.length, only)].filter((part) => part.length > 0);
  const errors = parts(pseudo.error);
  const cases = parts(pseudo.mean).map((mean, of) => ({ pseudo: { mean, error: errors[of] } }));
  const { of, c } = bestCandidate(parts(prior), cases);
  return of * CANDIDATES.length + c;
}

function except(corpus) {
  return corpora.filter((other) => other !== corpus);
}

function meanGains(of) {
  return of[0].truth.map((_, c) => mean(of.map((corpus) => corpus.truth[c])));
}

function best(scores) {
  let at = 0;
  for (const [c, score] of scores.entries()) if (score > scores[at]) at = c;
  return at;
}

/** The least-squares line through points, and the standard deviation of their distance from it. */
function regression(points) {
  const [x, y] = [mean(points.map(([of]) => of)), mean(points.map(([, of]) => of))];
  const slope = mean(points.map(([a, b]) => (a - x) * (b - y))) / mean(points.map(([a]) => (a - x) ** 2));
  const intercept = y - slope * x;
  const squares = points.reduce((sum, [a, b]) => sum + (b - intercept - slope * a) ** 2, 0);
  return { intercept, slope, deviation: Math.sqrt(squares / (points.length - 2)) };
}

function take(rows, positions) {
  return takeRows(rows, positions, WIDTH);
}

function label(strength) {
  return strength === "off" ? "off" : `a ${strength.a} s ${strength.s} b ${strength.b}`;
}

function mean(of) {
  return of.reduce((sum, x) => sum + x, 0) / of.length;
}

function round(value, digits = 1) {
  return Number(value.toFixed(digits));
}

function signed(value) {
  return `${value < 0 ? "" : "+"}${value.toFixed(2)}`;
}
