/** `cde cluster`: the clusters of training pairs, and how much harder they make batches. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { InvalidInputError } from "@cde-js/core";
import type { Batches, PairClusters, PairSet } from "@cde-js/core/training";
import type { Command, Invocation } from "../command.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { clock, counted, grouped, shortened } from "../printable.js";
import { writeWhole } from "../train/run-folder.js";
import { openWork, WORK_HELP, WORK_OPTIONS } from "../train/work-folder.js";

const help = `cde cluster PAIRS ... [--out FILE.jsonl]

Clusters pairs as contextual batches do, and measures batches: how alike queries and other pairs' documents are
(difficulty), and what would be masked as a false negative, beside random batches of the same size. PAIRS are .jsonl,
.csv or .tsv files, or folders in BEIR's layout (their training split).

  --out FILE         write a line a pair: {"dataset", "cluster", "id", "query"}
  --batch-size N     pairs of a batch [256]
  --cluster-size N   pairs of a cluster on average [the batch size]
  --batches N        measure so many batches of each kind at most [50]
  ${MODEL_HELP}
  ${WORK_HELP}
`;

export const cluster: Command = {
  summary: "PAIRS ... [--out FILE.jsonl]: cluster training pairs, measure batches",
  help,
  options: {
    out: { type: "string" },
    "batch-size": { type: "string" },
    "cluster-size": { type: "string" },
    batches: { type: "string" },
    model: { type: "string" },
    ...WORK_OPTIONS,
  },
  run,
};

/** Clusters that are shown on a terminal, with an example each. */
const SHOWN = 5;

async function run(invocation: Invocation): Promise<void> {
  const { options, progress, signal } = invocation;
  const start = performance.now();
  const batchSize = options.integer("batch-size", 2) ?? 256;
  const clusterSize = options.integer("cluster-size", 1) ?? batchSize;
  const limit = options.integer("batches", 1) ?? 50;
  const seed = options.integer("seed", 0) ?? 0;
  const out = options.text("out");
  if (out !== undefined && existsSync(out)) {
    throw new InvalidInputError(`${out} is there already. Choose another file, or remove it.`);
  }
  // Loaded here, so that commands that don't train start without it.
  const { createBatches, measureBatches } = await import("@cde-js/core/training");
  const work = await openWork(out ?? "cde-cluster", invocation);
  await using pairs = work.pairs;
  await using encoder = await loadEncoder(modelOption(invocation), invocation);
  const common = { surrogate: encoder.withoutContext(), cache: work.cache, batchSize, seed, signal };
  await using contextual = await createBatches(pairs, {
    ...common,
    clusters: { clusterSize },
    onProgress: ({ dataset, phase, done, total }) =>
      progress.update(`${phase === "k-means" ? "clustering" : phase} ${dataset}`, { done, total, noun: "pair" }),
  });
  const measured = await measure("contextual", contextual);
  await using randomly = await createBatches(pairs, { ...common, strategy: "random" });
  const byChance = await measure("random", randomly);
  const datasets = contextual.clusters.map(summaryOf);
  if (out !== undefined) await writeWhole(resolve(out), await linesOf(pairs, contextual.clusters));
  const examples = await examplesOf(pairs, contextual.clusters);
  await work.finish();
  const seconds = (performance.now() - start) / 1000;
  invocation.answer(
    {
      pairs: pairs.size,
      batchSize,
      clusterSize,
      datasets,
      batches: { contextual: measured, random: byChance },
      out: out === undefined ? null : resolve(out),
      seconds,
    },
    [
      ...datasets.map(
        ({ dataset, pairs: count, clusters, smallest, median, largest, empty, objective }) =>
          `${dataset}: ${counted(count, "pair")} in ${counted(clusters, "cluster")} of ${grouped(smallest)} to ${grouped(largest)}, median ${grouped(median)}${empty > 0 ? `, ${grouped(empty)} empty` : ""}; mean cosine to the centroid ${objective.toFixed(3)}`,
      ),
      ...examples,
      ...[["contextual batches", measured] as const, ["random batches", byChance] as const].map(
        ([name, { batches, difficulty = 0, falseNegatives, candidates }]) =>
          `${name} (${grouped(batches)} of ${grouped(batchSize)} pairs): difficulty ${difficulty.toFixed(3)}, masked ${grouped(falseNegatives)}, ${((100 * falseNegatives) / Math.max(1, candidates)).toFixed(2)} % of what could be`,
      ),
      ...(out === undefined ? [] : [`clusters: ${resolve(out)}`]),
      `done in ${clock(seconds)}`,
    ],
  );

  async function measure(name: string, batches: Batches) {
    progress.update(`measuring ${name} batches`, { done: 0, noun: "batch" });
    const found = await measureBatches(batches, 0, { limit, signal });
    progress.update(`measuring ${name} batches`, { done: found.batches, noun: "batch" });
    return found;
  }
}

function sizesOf({ clusters, count }: PairClusters): number[] {
  const sizes = new Array<number>(count).fill(0);
  for (const number of clusters) sizes[number]! += 1;
  return sizes;
}

function summaryOf(found: PairClusters) {
  const sizes = sizesOf(found);
  const full = sizes.filter((size) => size > 0).sort((a, b) => a - b);
  return {
    dataset: found.dataset,
    pairs: found.positions.length,
    clusters: full.length,
    smallest: full[0]!,
    median: full[Math.floor(full.length / 2)]!,
    largest: full.at(-1)!,
    empty: sizes.length - full.length,
    objective: found.objective,
    trainedOn: found.trainedOn,
  };
}

/** A line a pair, in the order of the pairs. */
async function linesOf(pairs: PairSet, clusters: readonly PairClusters[]): Promise<string> {
  const clusterOf = new Map<number, number>();
  for (const { positions, clusters: numbers } of clusters) {
    for (const [i, position] of positions.entries()) clusterOf.set(position, numbers[i]!);
  }
  const lines: string[] = [];
  let position = 0;
  for await (const { id, query } of pairs.pairs()) {
    lines.push(JSON.stringify({ dataset: pairs.datasetOf(position), cluster: clusterOf.get(position), id, query }));
    position++;
  }
  return `${lines.join("\n")}\n`;
}

/** Queries of the largest clusters, so that a person sees what they are about. */
async function examplesOf(pairs: PairSet, clusters: readonly PairClusters[]): Promise<string[]> {
  const lines: string[] = [];
  for (const found of clusters) {
    const sizes = sizesOf(found);
    const largest = [...sizes.keys()].sort((a, b) => sizes[b]! - sizes[a]! || a - b).slice(0, SHOWN);
    for (const number of largest) {
      const rows = found.positions.filter((_, i) => found.clusters[i] === number).slice(0, 2);
      const queries = (await pairs.read(rows)).map(({ query }) => shortened(query, 60));
      if (queries.length > 0)
        lines.push(`  cluster ${number}, ${counted(sizes[number]!, "pair")}: ${queries.join(" | ")}`);
    }
  }
  return lines;
}
