/** The texts that benchmarks encode: drawn from BEIR corpora, or made up where none are at hand. The same for a seed. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createRandom } from "@cde-js/core";
import { readCorpus } from "@cde-js/core/evaluation";

/** Sets that are mixed, where a folder has them: papers, clauses and reports, of 20 to 1,000 words. */
const MIXED = ["nfcorpus", "cuad", "fin10k"];

/** `data` is a folder of BEIR sets, or one set; without it texts are made from the tokenizer's words of `base`. */
export async function readDocuments({ data, base, count, seed = 1 }) {
  const random = createRandom(seed);
  if (data === undefined) return makeDocuments(base, count, random);
  const sets = existsSync(join(data, "corpus.jsonl.gz")) || existsSync(join(data, "corpus.jsonl")) ? [""] : MIXED;
  const pools = [];
  for (const set of sets) {
    const pool = [];
    for await (const { title, text } of readCorpus(join(data, set))) pool.push(title ? `${title} ${text}` : text);
    pools.push(random.shuffle(pool));
  }
  const documents = [];
  for (let i = 0; documents.length < count; i++) {
    const left = pools.filter((pool) => i < pool.length);
    if (left.length === 0) throw new Error(`${data} has ${documents.length} documents, ${count} are wanted.`);
    documents.push(...left.map((pool) => pool[i]));
  }
  return random.shuffle(documents.slice(0, count));
}

/** Lengths are lognormal with a median of 90 words; words are drawn by Zipf's law. */
async function makeDocuments(base, count, random) {
  const { model } = JSON.parse(await readFile(join(base, "tokenizer.json"), "utf8"));
  const words = random.shuffle(Object.keys(model.vocab).filter((word) => /^[a-z]{2,}$/.test(word)));
  return Array.from({ length: count }, () => {
    const length = Math.min(600, Math.max(3, Math.round(90 * Math.exp(0.8 * random.normal()))));
    return Array.from({ length }, () => words[Math.floor(words.length ** random.next()) - 1] ?? words[0]).join(" ");
  });
}

/** Queries of exactly `length` characters, cut from the documents. */
export function cutQueries(documents, count, length = 60) {
  return documents
    .filter((text) => text.length > 2 * length)
    .slice(0, count)
    .map((text) => text.slice(0, length));
}
