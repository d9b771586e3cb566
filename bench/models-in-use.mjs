/**
 * A model beside the base that it was made from, both as they are used by default: without context, with the context that
 * `buildContext` makes of 512 documents and calibrates (strength and token weights), with another corpus's (control), and hybrid search with
 * `fusion: "auto"`. nDCG@10 on real judgements; documents and queries are cut at 128 tokens.
 *
 *   npm run build && node bench/models-in-use.mjs --data <folder> --base <folder> [--model <folder>]
 *     [--sets bankfaq,cisi] [--split dev --documents 1500 --queries 300] [--vectors <cache folder>] [--json <file>]
 *
 * The model left out is the bundled one. By default the nine reference sets' test queries and context documents are used; with
 * `--split dev` the unseen dev sets, cut to `--documents` (judged ones and others drawn by a seed): what weights are chosen
 * by. Intervals: 95 %, paired bootstrap over queries, sets weighing the same. With one set there is no control.
 */
import { writeFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { parseArgs } from "node:util";
import { modelDirectory } from "@cde-js/model-mini";
import { referenceIds } from "./lib/base-vectors.mjs";
import { gain, interval, meanOf, points } from "./lib/gains.mjs";
import { measureInUse, readSet } from "./lib/in-use.mjs";

const UNSEEN = "obliqa,oyez,nfcorpus,fin10k,bankfaq,techqa";
const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    model: { type: "string", default: modelDirectory },
    vectors: { type: "string" },
    sets: { type: "string" },
    split: { type: "string", default: "test" },
    documents: { type: "string", default: "1500" },
    queries: { type: "string", default: "300" },
    json: { type: "string" },
  },
});
if (!values.data || !values.base) {
  console.error("usage: node bench/models-in-use.mjs --data <folder> --base <folder> [--model <folder>]");
  process.exit(2);
}
const test = values.split === "test";
const reference = test ? await referenceIds(values.data) : {};
const sets = (values.sets ?? (test ? Object.keys(reference).join(",") : UNSEEN)).split(",");
const corpora = [];
const cut = { split: values.split, documents: Number(values.documents), queries: Number(values.queries) };
for (const set of sets) corpora.push(await readSet(values.data, set, { ...cut, reference: reference[set] }));

/** model → column → set → query → nDCG@10 */
const figures = {};
for (const [name, directory] of Object.entries({ base: values.base, model: values.model })) {
  figures[name] = await measureInUse(name, resolve(directory), corpora, { vectors: values.vectors });
}
if (values.json) await writeFile(values.json, JSON.stringify(figures));

console.log(`model: ${values.model}; base: ${basename(values.base)}`);
const columns = Object.entries(figures).flatMap(([name, of]) => Object.keys(of).map((column) => [name, column]));
console.table(
  Object.fromEntries([
    ...sets.map((set) => [
      set,
      Object.fromEntries(columns.map(([name, column]) => [`${name}, ${column}`, points(figures[name][column][set])])),
    ]),
    ["mean", Object.fromEntries(columns.map(([name, of]) => [`${name}, ${of}`, meanOf(figures[name][of])]))],
  ]),
);
for (const [title, ours, theirs] of [
  ["model without context over the base without", figures.model.plain, figures.base.plain],
  ["base with context over the base without", figures.base.context, figures.base.plain],
  ["model with context over the base without", figures.model.context, figures.base.plain],
  ["model with context over the base with context", figures.model.context, figures.base.context],
  ["model with context over the model without", figures.model.context, figures.model.plain],
  ...(sets.length > 1
    ? [["model with context over the model with another corpus's", figures.model.context, figures.model.wrong]]
    : []),
  ["model's hybrid over the base's hybrid", figures.model.hybrid, figures.base.hybrid],
]) {
  const found = gain(ours, theirs);
  console.log(`${title}: ${interval(found)}; significantly below on ${found.below.join(", ") || "none"}`);
}
