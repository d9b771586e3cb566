/**
 * The published two-stage models at their real size, with random weights: loads them from safetensors, builds a context
 * of 512 documents, embeds 16 documents and a query, and prints times and peak memory. A tokenizer of BERT is used for
 * both; for v2 its vocabulary is filled up to ModernBERT's size. Needs 1.3 GB of disk, and removes what it wrote.
 *
 *   npm run build && node bench/real-size.mjs --tokenizer <directory with tokenizer.json> [--model v1] [--threads 2]
 */
import { spawnSync } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ContextualEncoder } from "../packages/core/dist/index.js";
import { publishedWeights, readTwoStageDirectory } from "../packages/core/dist/model/checkpoint.js";
import { GraphWeights } from "../packages/core/dist/model/graph-weights.js";
import { writeSafetensors } from "../packages/core/dist/model/safetensors.js";
import { twoStageParameters } from "../packages/core/dist/model/two-stage.js";

const PUBLISHED = {
  v1: { embedder: "nomic-ai/nomic-bert-2048", tensors: 236, parameters: 281_140_992, vocabulary: 30_522 },
  v2: { embedder: "answerdotai/ModernBERT-base", tensors: 280, parameters: 305_706_240, vocabulary: 50_280 },
};

const { values } = parseArgs({
  options: {
    tokenizer: { type: "string" },
    model: { type: "string" },
    threads: { type: "string", default: "0" },
    measure: { type: "string" },
  },
});
if (values.measure) await measure(values.measure);
else for (const name of values.model ? [values.model] : ["v1", "v2"]) await makeAndMeasure(name);

async function makeAndMeasure(name) {
  const directory = await mkdtemp(join(tmpdir(), `cde-small-${name}-`));
  try {
    await writeModel(directory, PUBLISHED[name]);
    // A process of its own, so that the peak is the encoder's.
    const self = fileURLToPath(import.meta.url);
    const child = spawnSync(process.execPath, [self, "--measure", directory, "--threads", values.threads], {
      stdio: "inherit",
    });
    if (child.status !== 0) process.exitCode = 1;
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function writeModel(directory, { embedder, tensors, parameters, vocabulary }) {
  const config = {
    architectures: ["DatasetTransformer"],
    embedder,
    max_seq_length: 512,
    transductive_corpus_size: 512,
    transductive_tokens_per_document: 1,
    ...(embedder.includes("Modern") && { pool_ignore_instruction_tokens: true }),
  };
  await writeFile(join(directory, "config.json"), JSON.stringify(config));
  const tokenizer = JSON.parse(await readFile(join(values.tokenizer, "tokenizer.json"), "utf8"));
  for (let id = Object.keys(tokenizer.model.vocab).length; id < vocabulary; id++)
    tokenizer.model.vocab[`[fill${id}]`] = id;
  await writeFile(join(directory, "tokenizer.json"), JSON.stringify(tokenizer));
  await cp(join(values.tokenizer, "tokenizer_config.json"), join(directory, "tokenizer_config.json"));
  const weights = join(directory, "model.safetensors");
  await writeFile(weights, "");

  const description = await readTwoStageDirectory(directory);
  const all = new GraphWeights();
  const shapes = [...twoStageParameters(description.config, publishedWeights(all), all)];
  const total = shapes.reduce((sum, [, { shape }]) => sum + shape.reduce((a, b) => a * b, 1), 0);
  if (shapes.length !== tensors || total !== parameters)
    throw new Error(`${shapes.length} tensors with ${total} parameters, published are ${tensors} with ${parameters}`);
  const random = (shape) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const middle = shape.length === 1 ? 1 : 0; // gains; a bias of 1 does no harm here
    for (let i = 0; i < data.length; i++) data[i] = middle + 0.07 * (Math.random() - 0.5);
    return data;
  };
  const list = shapes.map(([name, { shape }]) => ({ name, dtype: "F32", shape, data: () => random(shape) }));
  await writeSafetensors(weights, list);
  console.log({ embedder, tensors: shapes.length, parameters: total, bytes: 4 * total });
}

async function measure(directory) {
  const words = ["river", "bank", "loan", "flood", "insurance", "claim", "court", "rain", "policy", "damage"];
  const text = (seed, length) =>
    Array.from({ length }, (_, i) => words[(seed * 7 + i * i * (seed + 3)) % words.length]).join(" ");
  const seconds = async (label, work) => {
    const start = performance.now();
    const result = await work();
    const peak = `${(process.resourceUsage().maxRSS / 1e6).toFixed(2)} GB`;
    console.log(label.padEnd(42), `${((performance.now() - start) / 1000).toFixed(2)} s`.padStart(10), "peak", peak);
    return result;
  };
  const runtime = { threads: Number(values.threads) };
  const encoder = await seconds("load", () => ContextualEncoder.load(directory, { runtime }));
  const documents = Array.from({ length: encoder.contextSize }, (_, i) => text(i, 40 + (i % 80)));
  const context = await seconds("context of 512 documents, 42 to 122 tokens", () => encoder.buildContext(documents));
  const embedder = encoder.withContext(context);
  await seconds("first query (context moves to the worker)", () => embedder.embedQuery("who pays for flood damage?"));
  const query = await seconds("a query", () => embedder.embedQuery("who pays for flood damage?"));
  const { vectors } = await seconds("16 documents of 130 tokens", () =>
    embedder.embedDocuments(Array.from({ length: 16 }, (_, i) => text(i + 600, 128))),
  );
  await seconds("a document of 512 tokens", () => embedder.embedDocuments([text(9, 600)]));
  const length = Math.hypot(...query);
  if (!(Math.abs(length - 1) < 1e-3) || vectors.length !== 16) throw new Error(`a query vector of length ${length}`);
  await encoder.dispose();
}
