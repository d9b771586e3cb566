/**
 * The other uses of embeddings on real texts, without context, in the context of their own corpus and in that of another
 * one (control): classification, clustering and pair similarity. The tasks are made from data sets in BEIR's layout:
 *
 *   classification  cuad: which kind of clause a contract's passage holds, by the question that it answers; train on
 *                   contracts of the train split, test on those of the test split
 *   clustering      obliqa: which rulebook a rule belongs to, by the text without its title
 *   similarity      nfcorpus, dev split: a title and a paper, judged 2 or 1, or drawn at random (0)
 *
 *   npm run build && node bench/uses.mjs --data <folder> [--model <folder>] [--seed 1] [--write <folder>]
 *
 * `--write` keeps the tasks as the plain files of MTEB.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  evaluateClassification,
  evaluateClustering,
  evaluateSimilarity,
  pairedBootstrap,
  readCorpus,
  readQrels,
  readQueries,
} from "@cde-js/core/evaluation";
import { ContextualEncoder, createRandom, modelDirectory } from "cde-js";

const { values } = parseArgs({
  options: { data: { type: "string" }, model: { type: "string" }, seed: { type: "string" }, write: { type: "string" } },
});
if (values.data === undefined) {
  console.error("Give the folder of the data sets: --data <folder>");
  process.exit(2);
}
const seed = Number(values.seed ?? 1);
const random = createRandom(seed);
const encoder = await ContextualEncoder.load(values.model ?? modelDirectory);
const plain = remembering(encoder.withoutContext());

const clauses = await clauseTask(join(values.data, "cuad"));
const rules = await ruleTask(join(values.data, "obliqa"));
const pairs = await pairTask(join(values.data, "nfcorpus"));
if (values.write !== undefined) {
  const lines = (records) => records.map((record) => `${JSON.stringify(record)}\n`).join("");
  mkdirSync(values.write, { recursive: true });
  for (const part of ["train", "test"])
    writeFileSync(join(values.write, `classification-${part}.jsonl`), lines(clauses[part]));
  const sentences = rules.texts.map(({ text }) => text);
  writeFileSync(
    join(values.write, "clustering.jsonl"),
    lines([{ sentences, labels: rules.texts.map(({ label }) => label) }]),
  );
  writeFileSync(join(values.write, "similarity.jsonl"), lines(pairs.pairs));
}

const contexts = {};
for (const [name, { corpus }] of Object.entries({ cuad: clauses, obliqa: rules, nfcorpus: pairs }))
  contexts[name] = await encoder.buildContext(random.shuffle(corpus).slice(0, 512));
const embedders = (own, other) => ({
  "without context": plain,
  "own context": mapped(contexts[own]),
  [`context of ${other}`]: mapped(contexts[other]),
});

const labels = new Set(clauses.train.map(({ label }) => label)).size;
console.log(`classification: ${labels} kinds of clause, ${clauses.train.length} train, ${clauses.test.length} test`);
for (const method of ["probe", "knn"]) {
  let base;
  for (const [name, embedder] of Object.entries(embedders("cuad", "nfcorpus"))) {
    const { accuracy, macroF1, predicted } = await evaluateClassification(embedder, clauses, { method, c: 10 });
    const right = predicted.map((label, i) => (label === clauses.test[i].label ? 1 : 0));
    base ??= right;
    const interval = pairedBootstrap(
      right.map((value, i) => value - base[i]),
      { seed },
    );
    console.log(
      `  ${method}, ${name}: accuracy ${points(accuracy)} (${interval.map(points).join(" to ")}), macro F1 ${points(macroF1)}`,
    );
  }
}

const books = new Set(rules.texts.map(({ label }) => label)).size;
console.log(`clustering: ${books} rulebooks, ${rules.texts.length} rules; mean of five seeds, and their range`);
for (const [name, embedder] of Object.entries(embedders("obliqa", "nfcorpus"))) {
  const figures = [];
  for (let start = 0; start < 5; start++)
    figures.push((await evaluateClustering(embedder, rules.texts, { seed: start })).vMeasure);
  const mean = figures.reduce((sum, value) => sum + value, 0) / figures.length;
  console.log(
    `  ${name}: V-measure ${points(mean)} (${points(Math.min(...figures))} to ${points(Math.max(...figures))})`,
  );
}

console.log(`similarity: ${pairs.pairs.length} pairs`);
for (const [name, embedder] of Object.entries(embedders("nfcorpus", "cuad"))) {
  const { spearman, pearson } = await evaluateSimilarity(embedder, pairs.pairs, { as: ["queries", "documents"] });
  console.log(`  ${name}: Spearman ${points(spearman)}, Pearson ${points(pearson)}`);
}
await encoder.dispose();

/** The embedder, that encodes no text twice. */
function remembering(embedder) {
  const known = new Map();
  const embed = (kind) => async (texts) => {
    const unknown = [...new Set(texts)].filter((text) => !known.has(kind + text));
    const { vectors } = await embedder[kind](unknown);
    for (const [i, text] of unknown.entries()) known.set(kind + text, vectors[i]);
    return { vectors: texts.map((text) => known.get(kind + text)), truncated: [] };
  };
  const { dimensions } = embedder;
  return { dimensions, embedDocuments: embed("embedDocuments"), embedQueries: embed("embedQueries") };
}

/** The same in a spectral context, which is a map of those vectors. */
function mapped({ map }) {
  const embed = (kind) => async (texts) => ({ vectors: map.apply((await plain[kind](texts)).vectors), truncated: [] });
  const { dimensions } = plain;
  return { dimensions, embedDocuments: embed("embedDocuments"), embedQueries: embed("embedQueries") };
}

async function corpusOf(folder) {
  const texts = new Map();
  for await (const { id, title, text } of readCorpus(folder)) texts.set(id, { title, text });
  return texts;
}

/** Passages that answer questions of one kind only; the twelve kinds with most of them, evenly drawn. */
async function clauseTask(folder) {
  const corpus = await corpusOf(folder);
  const parts = {};
  for (const split of ["train", "test"]) {
    const kinds = new Map();
    for (const [query, judgements] of await readQrels(folder, split))
      for (const id of judgements.keys()) {
        const kind = query.split("-").slice(2).join("-");
        kinds.set(id, (kinds.get(id) ?? new Set()).add(kind));
      }
    parts[split] = [...kinds].flatMap(([id, set]) => (set.size === 1 ? [{ id, label: [...set][0] }] : []));
  }
  const count = (label) => parts.test.filter((entry) => entry.label === label).length;
  const chosen = [...new Set(parts.test.map(({ label }) => label))].sort((a, b) => count(b) - count(a)).slice(0, 12);
  const draw = (split, each) =>
    chosen.flatMap((label) =>
      random
        .shuffle(parts[split].filter((entry) => entry.label === label))
        .slice(0, each)
        .map(({ id }) => ({ text: corpus.get(id).text, label })),
    );
  return { train: draw("train", 40), test: draw("test", 40), corpus: [...corpus.values()].map(({ text }) => text) };
}

/** Sixty rules of each of the eight rulebooks with most of them, of at least ten words. */
async function ruleTask(folder) {
  const corpus = [...(await corpusOf(folder)).values()];
  const books = new Map();
  for (const { title, text } of corpus) {
    const [, book] = /\(([A-Z]{2,})\)/.exec(title) ?? [];
    if (book === undefined || text.split(/\s+/).length < 10) continue;
    books.set(book, [...(books.get(book) ?? []), text]);
  }
  const largest = [...books].sort((a, b) => b[1].length - a[1].length).slice(0, 8);
  const texts = largest.flatMap(([label, list]) =>
    random
      .shuffle(list)
      .slice(0, 60)
      .map((text) => ({ text, label })),
  );
  return { texts, corpus: corpus.map(({ text }) => text) };
}

/** 250 pairs of each judgement. */
async function pairTask(folder) {
  const corpus = await corpusOf(folder);
  const whole = ({ title, text }) => `${title} ${text}`;
  const queries = new Map();
  for await (const { id, text } of readQueries(folder)) queries.set(id, text);
  const judged = [...(await readQrels(folder, "dev"))].flatMap(([query, judgements]) =>
    [...judgements].map(([document, score]) => ({ query, document, score })),
  );
  const ids = [...corpus.keys()];
  const unjudged = Array.from({ length: 250 }, () => {
    const { query } = judged[random.integer(judged.length)];
    return { query, document: ids[random.integer(ids.length)], score: 0 };
  });
  const pairs = [1, 2].flatMap((score) =>
    random.shuffle(judged.filter((entry) => entry.score === score)).slice(0, 250),
  );
  return {
    pairs: [...pairs, ...unjudged].map(({ query, document, score }) => ({
      sentence1: queries.get(query),
      sentence2: whole(corpus.get(document)),
      score,
    })),
    corpus: [...corpus.values()].map(whole),
  };
}

function points(value) {
  return (100 * value).toFixed(1);
}
