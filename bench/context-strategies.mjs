/**
 * Which documents should a spectral context be built from, and how many? nDCG@10 of dense search on dev queries, for every
 * strategy of `selectContext` and several sizes, over several seeds.
 *
 *   npm run build && node bench/context-strategies.mjs --data <folder> --base <folder> --vectors <folder>
 *
 * `--data` is a folder of BEIR sets, `--base` the folder of all-MiniLM-L6-v2. With `--vectors` base vectors are kept there, in
 * the form that all benchmarks share, and what lies there is used again. So are the figures of whole sets in the folder
 * `--results`.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { evaluateRun } from "../packages/core/dist/evaluation/index.js";
import { createRandom, fitSpectralMap } from "../packages/core/dist/index.js";
import { ROW_BLOCK, simdRowProduct } from "../packages/core/dist/simd/product.js";
import { selectContext } from "../packages/retriever/dist/index.js";
import { BaseVectors, packed } from "./lib/base-vectors.mjs";

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    vectors: { type: "string" },
    sets: { type: "string", default: "obliqa,fin10k,oyez,techqa,covidqa" },
    seeds: { type: "string", default: "5" },
    sizes: { type: "string", default: "64,256,512,1024" },
    results: { type: "string" },
  },
});
if (values.data === undefined || values.base === undefined) {
  console.error("Give the data sets and the model: --data <folder> --base <folder> [--vectors <folder>]");
  process.exit(2);
}
const base = new BaseVectors({ data: values.data, base: values.base, cache: values.vectors });
const sizes = values.sizes.split(",").map(Number);
const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1);
/** Dev queries of a set, at most. */
const QUERIES = 400;
const STRATEGIES = {
  random: { strategy: "random" },
  stratified: { strategy: "stratified" },
  "clusters, proportional": { strategy: "clusters", picks: "proportional" },
  "clusters, equal": { strategy: "clusters", picks: "equal" },
  farthest: { strategy: "farthest" },
};

/** Documents with texts, dev queries with judgements, and the base vectors of both. */
async function readSet(set) {
  const { ids: documentIds, titles, texts, rows } = await base.documents(set);
  const { ids, rows: queries, qrels } = await base.queries(set, "dev", { limit: QUERIES });
  const documents = texts.map((text, i) => ({ id: documentIds[i], title: titles[i], text }));
  return { documents, rows, queries, ids, qrels, dimensions: rows.length / documents.length };
}

/**
 * A field to stratify by: the title up to its first number (rulebook, company, paper); where that makes no groups or too
 * many, how long the text is, in quarters.
 */
function strataOf(documents) {
  const titles = documents.map(({ title }) => title.replace(/\d.*/s, "").trim());
  const different = new Set(titles).size;
  if (different >= 2 && different <= 256) return new Map(documents.map((document, i) => [document, titles[i]]));
  const lengths = documents.map(({ text }) => text.length).sort((a, b) => a - b);
  const bounds = [0.25, 0.5, 0.75].map((part) => lengths[Math.floor(part * lengths.length)]);
  return new Map(
    documents.map((document) => [document, bounds.filter((bound) => document.text.length > bound).length]),
  );
}

/** nDCG@10 of every query, by exact search over rows and queries of unit length. */
function score({ documents, ids, qrels, dimensions }, rows, queries) {
  const count = ids.length;
  const transposed = new Float64Array(dimensions * count);
  for (let q = 0; q < count; q++) {
    for (let i = 0; i < dimensions; i++) transposed[i * count + q] = queries[q * dimensions + i];
  }
  const product = simdRowProduct(transposed, dimensions, count);
  const best = ids.map(() => []);
  const block = new Float32Array(ROW_BLOCK * count);
  for (let first = 0; first < documents.length; first += ROW_BLOCK) {
    const taken = Math.min(ROW_BLOCK, documents.length - first);
    product(rows.subarray(first * dimensions, (first + taken) * dimensions), taken, block);
    for (let r = 0; r < taken; r++) {
      for (let q = 0; q < count; q++) {
        const list = best[q];
        const value = block[r * count + q];
        if (list.length === 10 && value <= list[9][1]) continue;
        let at = list.length;
        while (at > 0 && list[at - 1][1] < value) at--;
        list.splice(at, 0, [documents[first + r].id, value]);
        if (list.length > 10) list.pop();
      }
    }
  }
  const run = new Map(ids.map((id, q) => [id, new Map(best[q])]));
  const { perQuery } = evaluateRun(qrels, run, ["ndcg@10"]);
  return ids.map((id) => perQuery.get(id)["ndcg@10"]);
}

const mean = (list) => list.reduce((sum, x) => sum + x, 0) / list.length;
const spread = (list) => Math.sqrt(list.reduce((sum, x) => sum + (x - mean(list)) ** 2, 0) / (list.length - 1));

/** results[name][set] = per seed, per query; name is "strategy / size". */
const results = new Map();
const resultsPath = (set) => values.results && join(values.results, `${set}.json`);
for (const set of values.sets.split(",")) {
  if (values.results !== undefined && existsSync(resultsPath(set))) {
    for (const [name, runs] of Object.entries(JSON.parse(readFileSync(resultsPath(set), "utf8")))) {
      results.set(name, { ...results.get(name), [set]: runs });
    }
    continue;
  }
  const corpus = await readSet(set);
  const { documents, rows, queries, dimensions } = corpus;
  const rowOf = new Map(documents.map(({ text }, i) => [text, rows.subarray(i * dimensions, (i + 1) * dimensions)]));
  const strata = strataOf(documents);
  const embedder = {
    modelId: "kept",
    dimensions,
    embedDocuments: async (texts) => ({ vectors: texts.map((text) => rowOf.get(text)), truncated: [] }),
  };
  const keep = (name, seed, perQuery) => {
    const entry = results.get(name) ?? {};
    results.set(name, entry);
    entry[set] ??= [];
    entry[set][seed] = perQuery;
  };
  keep("without context", 0, score(corpus, rows, queries));
  const underContext = async (vectors) => {
    const map = await fitSpectralMap({ rows: vectors, dimensions });
    return score(corpus, map.applyRows(rows), map.applyRows(queries));
  };
  keep("all documents", 0, await underContext(rows));
  const start = performance.now();
  for (const [label, options] of Object.entries(STRATEGIES)) {
    for (const size of sizes) {
      for (const [position, seed] of seeds.entries()) {
        const { chosen } = await selectContext(documents, {
          size,
          seed,
          atMost: true,
          text: ({ text }) => text,
          ...options,
          ...(options.strategy === "stratified" ? { stratum: (document) => strata.get(document) } : {}),
          ...(["clusters", "farthest"].includes(options.strategy) ? { embedder } : {}),
        });
        keep(`${label} / ${size}`, position, await underContext(packed(chosen.map(({ text }) => rowOf.get(text)))));
      }
    }
    console.error(`${set}: ${label} after ${Math.round((performance.now() - start) / 1000)} s`);
  }
  if (values.results !== undefined) {
    const ofSet = [...results].map(([name, entry]) => [name, entry[set]]);
    writeFileSync(resultsPath(set), JSON.stringify(Object.fromEntries(ofSet)));
  }
}

/** Of every query the mean over seeds, so that pairs are of queries. */
const perQuery = (name, set) => {
  const runs = results.get(name)[set];
  return runs[0].map((_, q) => mean(runs.map((run) => run[q])));
};
const sets = values.sets.split(",");
/** The mean over seeds and queries of a set, then over sets. */
const figure = (name) => mean(sets.map((set) => mean(perQuery(name, set))));
/** 95 % interval of the difference of two figures: queries are drawn anew within each set. */
function interval(name, other, draws = 2000) {
  const random = createRandom(5);
  const differences = sets.map((set) => {
    const [a, b] = [perQuery(name, set), perQuery(other, set)];
    return a.map((x, q) => x - b[q]);
  });
  const means = Array.from({ length: draws }, () =>
    mean(differences.map((list) => mean(list.map(() => list[random.integer(list.length)])))),
  ).sort((a, b) => a - b);
  return [means[Math.floor(0.025 * draws)], means[Math.floor(0.975 * draws)]];
}

const percent = (x) => (100 * x).toFixed(2);
const reference = results.has("random / 512") ? "random / 512" : [...results.keys()][2];
console.log(`| context | ${sets.join(" | ")} | mean | over seeds | against ${reference} (95 %) |`);
console.log(`|---|${sets.map(() => "---|").join("")}---|---|---|`);
for (const name of results.keys()) {
  const runs = results.get(name);
  const cells = sets.map((set) => percent(mean(perQuery(name, set))));
  const bySeed = seeds.map((_, i) => mean(sets.map((set) => mean(runs[set][i] ?? runs[set][0]))));
  const varies = runs[sets[0]].length > 1;
  const [low, high] = interval(name, reference);
  const difference =
    name === reference ? "–" : `${percent(figure(name) - figure(reference))} (${percent(low)} to ${percent(high)})`;
  console.log(
    `| ${name} | ${cells.join(" | ")} | ${percent(figure(name))} | ${varies ? `±${percent(spread(bySeed))}` : "–"} | ${difference} |`,
  );
}
process.exit(0);
