/**
 * Trains the encoder that is to be shipped, from the base weights, on sets whose licences allow it:
 *
 *   npm run train:mini -- --data <folder of BEIR sets> --base <folder of all-MiniLM-L6-v2> [--out mini] [--seed 1]
 *
 * Writes `<out>/model` (float32, with its card). Run again, it goes on where it was interrupted. The lower four layers stay as they
 * are. Pairs are the judged ones of train splits, and for three in ten words of a document that no dev or test query is judged
 * for, rare ones or some in a row, with the text around them: the base model finds exact words badly. Batches mix
 * all sets. It doesn't touch packages/model-mini: `npm run export:mini -- --base <out>/model` does.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createRandom } from "@cde-js/core";
import { readCorpus, readQrels } from "@cde-js/core/evaluation";
import { countDocumentFrequencies, pairsFromDocuments, readPairsBeir } from "@cde-js/core/training";

/** @typedef {{ set: string, pair: import("@cde-js/core/training").PairRecord }} Drawn */

/** Judged pairs and made ones together: what a run of `--steps` batches takes. */
const BATCH = 128;
const MADE_SHARE = 0.3;
/** As many as the trainer reads of a text, about. */
const SPAN_WORDS = 70;

/** Sets, the most pairs of each (templated ones must not lead), and what the model card says of them. */
const SETS = {
  medquad: { most: 4000, licence: "CC-BY-4.0", source: "MedQuAD, NIH consumer health questions" },
  squad: { most: 4000, licence: "CC-BY-SA-4.0", source: "SQuAD 1.1, dev articles" },
  cuad: { most: 2500, licence: "CC-BY-4.0", source: "CUAD, The Atticus Project" },
  boolq: { most: 4000, licence: "CC-BY-SA-3.0", source: "BoolQ" },
  scitldr: { most: 4000, licence: "Apache-2.0", source: "SciTLDR" },
  tldr_pages: { most: 4000, licence: "CC-BY-4.0", source: "tldr-pages" },
  nq: { most: 2000, licence: "CC-BY-SA-3.0", source: "Natural Questions, Wikipedia paragraphs" },
  tatqa: { most: 1700, licence: "CC-BY-4.0", source: "TAT-QA" },
  covidqa: { most: 800, licence: "Apache-2.0", source: "COVID-QA" },
};

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    out: { type: "string", default: "mini" },
    seed: { type: "string", default: "1" },
    steps: { type: "string", default: "200" },
    rate: { type: "string", default: "1e-4" },
    distillation: { type: "string", default: "0.3" },
    strategy: { type: "string", default: "random" },
    threads: { type: "string" },
  },
});
if (values.data === undefined || values.base === undefined) {
  console.error("usage: npm run train:mini -- --data <folder of BEIR sets> --base <folder of all-MiniLM-L6-v2>");
  process.exit(2);
}
const out = resolve(values.out);
const path = join(out, "train.json");
const resume = existsSync(join(out, "run", "checkpoint"));
if (!resume) {
  await mkdir(out, { recursive: true });
  const steps = Number(values.steps);
  const made = Math.round(MADE_SHARE * steps * BATCH);
  const random = createRandom(21);
  /** @type {Drawn[]} */
  const judged = [];
  /** @type {Drawn[]} */
  const unlabelled = [];
  for (const [set, { most }] of Object.entries(SETS)) {
    const folder = join(values.data, set);
    /** @type {import("@cde-js/core/training").PairRecord[]} */
    const pairs = [];
    for await (const { source: _, ...pair } of readPairsBeir(folder)) pairs.push({ ...pair, dataset: "all" });
    const drawn = random.shuffle(pairs).slice(0, most);
    const lexical = await madePairs(folder, Math.ceil((1.3 * made) / Object.keys(SETS).length), random);
    judged.push(...drawn.map((pair) => ({ set, pair })));
    unlabelled.push(...lexical.map((pair) => ({ set, pair })));
  }
  const parts = [random.shuffle(judged).slice(0, steps * BATCH - made), random.shuffle(unlabelled).slice(0, made)];
  await writeFile(
    join(out, "pairs.jsonl"),
    parts.flatMap((of) => of.map(({ pair }) => `${JSON.stringify(pair)}\n`)).join(""),
  );
  const weight = Number(values.distillation);
  const config = {
    model: resolve(values.base),
    output: join(out, "model"),
    run: join(out, "run"),
    seed: Number(values.seed),
    ...(values.threads !== undefined && { threads: Number(values.threads) }),
    data: [{ jsonl: "pairs.jsonl" }],
    faulty: "skip",
    batches: { strategy: values.strategy, batchSize: BATCH, surrogate: "base", smallDatasets: "skip" },
    budget: { steps },
    training: {
      learningRate: Number(values.rate),
      temperature: 0.03,
      maxTokens: 96,
      freeze: 4,
      layerCache: true,
      ...(weight > 0 && { distillation: { weight } }),
    },
    evaluation: false,
    checkpoints: { every: 20 },
    export: {
      // Half the way keeps the gain on unseen corpora and what the base knew besides: docs/results.md.
      averageWithBase: 0.5,
      card: {
        name: "cde-mini",
        licence: "apache-2.0",
        languages: ["en"],
        data: { all: { licence: "see the notes", source: "nine sets, mixed" } },
        notes: sharesOf(parts),
      },
    },
  };
  await writeFile(path, JSON.stringify(config, undefined, 2));
}
const cde = fileURLToPath(new URL("../packages/cli/dist/cde.js", import.meta.url));
const { status } = spawnSync(process.execPath, [cde, "train", ...(resume ? ["--resume"] : []), path], {
  stdio: "inherit",
});
process.exit(status ?? 1);

/**
 * What the model card says of the sets: batches mix them, so that to the trainer they are one.
 *
 * @param {readonly Drawn[][]} parts judged pairs and made ones
 */
function sharesOf(parts) {
  const total = parts.flat().length;
  const rows = Object.entries(SETS).map(([set, { licence, source }]) => {
    const [judged, made] = parts.map((of) => of.filter((drawn) => drawn.set === set).length);
    const share = `${((100 * (Number(judged) + Number(made))) / total).toFixed(1)} %`;
    return `| ${set}: ${source} | ${licence} | ${judged} | ${made} | ${share} |`;
  });
  return [
    "Pairs by set: judged ones of train splits, and ones made of words of a document and the text around them.",
    "",
    "| set | licence | judged | made | share |",
    "|---|---|---|---|---|",
    ...rows,
  ].join("\n");
}

/**
 * At most `most` pairs of rare words, or of words in a row, with a span of their document, which no dev or test query is
 * judged for.
 *
 * @param {string} folder
 * @param {number} most
 * @param {import("@cde-js/core").Random} random
 */
async function madePairs(folder, most, random) {
  const judged = new Set();
  for (const split of ["dev", "test"]) {
    if (!existsSync(join(folder, "qrels", `${split}.tsv.gz`))) continue;
    for (const grades of (await readQrels(folder, split)).values()) for (const id of grades.keys()) judged.add(id);
  }
  const documents = [];
  for await (const { id, title, text } of readCorpus(folder)) {
    documents.push({ id, text: (title ? `${title} ${text}` : text).trim() });
  }
  const documentFrequencies = await countDocumentFrequencies(documents);
  const unseen = random.shuffle(documents.filter(({ id }) => !judged.has(id)));
  /** @type {import("@cde-js/core/training").PairsFromDocumentsOptions} */
  const options = { methods: ["lexical"], documentFrequencies, spanWords: SPAN_WORDS };
  /** @type {import("@cde-js/core/training").PairRecord[]} */
  const pairs = [];
  for await (const { query, positive } of pairsFromDocuments(unseen, options)) {
    pairs.push({ query, positive, dataset: "all" });
    if (pairs.length === most) break;
  }
  return pairs;
}
