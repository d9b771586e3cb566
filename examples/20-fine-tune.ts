/**
 * Fine-tuning on a legal corpus, offline, on the processor: licences' names find their texts. About a minute on two
 * cores. Pairs of your own: node examples/dist/20-fine-tune.js --data pairs.jsonl, a line being
 * {"query": "…", "positive": "…"}; a medical set would be questions and passages that answer them.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { retrievalEvaluator, Trainer, type TrainingPair } from "@cde-js/core/training";
import { createRandom, modelDirectory } from "cde-js";
import licences from "spdx-license-list/full.js";

const { values } = parseArgs({ options: { data: { type: "string" } } });

// 1. Pairs. Of each licence, the name is the query; its text without that name, which would give it away, the positive.
const pairs = values.data === undefined ? licencePairs() : await readPairs(values.data);
const shuffled = createRandom(1).shuffle(pairs);
const dev = shuffled.slice(0, 64);
const train = shuffled.slice(64, 64 + 256);
console.log(`${train.length} pairs to train on, ${dev.length} to measure by`);

// 2. What "better" means: dev queries among all dev documents.
const search = retrievalEvaluator("dev", {
  queries: new Map(dev.map(({ id, query }) => [id, query])),
  documents: new Map(dev.map(({ id, positive }) => [id, positive])),
  qrels: new Map(dev.map(({ id }) => [id, new Map([[id, 1]])])),
  metrics: ["ndcg@10"],
});

const folder = await mkdtemp(join(tmpdir(), "cde-fine-tune-"));
try {
  // 3. The bundled weights are int8; training starts from their rounded values. Four of six layers stay, and what they
  // make of a text is kept on disk, so that the second epoch is faster than the first.
  const size = 32;
  const epochs = 2;
  await using trainer = await Trainer.create(modelDirectory, {
    dequantize: true,
    totalSteps: epochs * Math.floor(train.length / size),
    learningRate: 1e-4,
    temperature: 0.05,
    maxTokens: 64,
    freeze: 4,
    layerCache: { directory: join(folder, "states") },
    evaluators: [search],
    best: { metric: "dev/ndcg@10" },
  });
  const before = await search.evaluate((options) => trainer.embedder(options));
  console.log(`before: nDCG@10 ${before["ndcg@10"].toFixed(3)}`);

  // 4. The loop. Batches are random here; createBatches packs neighbouring ones, which are harder.
  const batches = (epoch: number) => {
    const order = createRandom(epoch).shuffle(train);
    const starts = Array.from({ length: Math.floor(order.length / size) }, (_, i) => i * size);
    return starts.map((start) => ({ dataset: "licences", pairs: order.slice(start, start + size) }));
  };
  for await (const { step, loss, accuracy, milliseconds, metrics } of trainer.steps(batches, { epochs })) {
    const figure = metrics ? `, nDCG@10 ${metrics["dev/ndcg@10"].toFixed(3)}` : "";
    const seconds = (milliseconds / 1000).toFixed(1);
    console.log(`step ${step}: loss ${loss.toFixed(3)}, accuracy ${accuracy.toFixed(2)}, ${seconds} s${figure}`);
  }
  const forgetting = await trainer.forgetting();
  console.log(`general similarities moved by ${forgetting?.drift.toFixed(3)} in the mean`);

  // 5. A model directory like any other, half base, half trained: the cheapest remedy against forgetting.
  await trainer.export(join(folder, "model"), {
    averageWithBase: 0.5,
    card: { name: "Licences", licence: "apache-2.0", data: { licences: { licence: "CC0-1.0", source: "SPDX" } } },
  });
  console.log(`exported: best nDCG@10 ${trainer.best?.value.toFixed(3)}, step ${trainer.best?.step}`);
} finally {
  await rm(folder, { recursive: true });
}

function licencePairs(): TrainingPair[] {
  const seen = new Set<string>();
  return Object.entries(licences).flatMap(([id, { name, licenseText }]) => {
    const positive = licenseText.replaceAll(name, "this licence").replaceAll(/\s+/g, " ").trim().slice(0, 600);
    if (positive === "" || seen.has(positive)) return [];
    seen.add(positive);
    return [{ id, query: name, positive, negatives: [] }];
  });
}

async function readPairs(path: string): Promise<TrainingPair[]> {
  const lines = (await readFile(path, "utf8")).split("\n").filter((line) => line.trim() !== "");
  return lines.map((line, i) => {
    const { query, positive } = JSON.parse(line) as { query: string; positive: string };
    return { id: String(i + 1), query, positive, negatives: [] };
  });
}
