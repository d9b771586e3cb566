/**
 * Trains the encoder that is to be shipped, from the base weights, on sets whose licences allow it:
 *
 *   npm run train:mini -- --data <folder of BEIR sets> --base <folder of all-MiniLM-L6-v2> [--out mini] [--seed 1]
 *
 * Writes `<out>/model` (float32, with its card). Run again, it goes on where it was interrupted. The lower four layers stay as they
 * are; only train splits are read. It doesn't touch packages/model-mini: `npm run export:mini -- --base <out>/model` does.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createRandom } from "@cde-js/core";
import { readPairsBeir } from "@cde-js/core/training";

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
    rate: { type: "string", default: "5e-5" },
    distillation: { type: "string", default: "0" },
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
  const records = [];
  for (const [set, { most }] of Object.entries(SETS)) {
    const pairs = [];
    for await (const { source: _, ...pair } of readPairsBeir(join(values.data, set))) pairs.push(pair);
    records.push(...createRandom(21).shuffle(pairs).slice(0, most));
  }
  await writeFile(join(out, "pairs.jsonl"), records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  const weight = Number(values.distillation);
  const config = {
    model: resolve(values.base),
    output: join(out, "model"),
    run: join(out, "run"),
    seed: Number(values.seed),
    ...(values.threads !== undefined && { threads: Number(values.threads) }),
    data: [{ jsonl: "pairs.jsonl" }],
    faulty: "skip",
    batches: { strategy: values.strategy, batchSize: 128, surrogate: "base", smallDatasets: "skip" },
    budget: { epochs: 1 },
    training: {
      learningRate: Number(values.rate),
      temperature: 0.03,
      maxTokens: 128,
      freeze: 4,
      ...(weight > 0 && { distillation: { weight } }),
    },
    evaluation: false,
    checkpoints: { every: 20 },
    export: {
      card: {
        name: "cde-mini",
        licence: "apache-2.0",
        languages: ["en"],
        data: Object.fromEntries(Object.entries(SETS).map(([set, { licence, source }]) => [set, { licence, source }])),
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
