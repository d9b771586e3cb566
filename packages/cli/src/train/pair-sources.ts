/** Training pairs from what a configuration or a command line names, as a pair set on disk. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { InvalidInputError } from "@cde-js/core";
import {
  countDocumentFrequencies,
  createPairSet,
  type PairRecord,
  PairSet,
  pairsFromDocuments,
  readPairsBeir,
  readPairsCsv,
  readPairsJsonl,
} from "@cde-js/core/training";
import type { Invocation } from "../command.js";
import { corpusOf, isBeir } from "../evaluate/corpora.js";
import { counted, grouped } from "../printable.js";
import type { DataSource } from "./config.js";

/** The pairs of all sources, one after the other. */
async function* recordsOf(
  sources: readonly DataSource[],
  seed: number,
  signal: AbortSignal,
): AsyncGenerator<PairRecord> {
  for (const source of sources) {
    const { dataset } = source;
    const common = { signal, ...(dataset !== undefined && { dataset }) };
    if ("jsonl" in source) yield* readPairsJsonl(source.jsonl, common);
    else if ("csv" in source) {
      const { csv, columns, delimiter } = source;
      yield* readPairsCsv(csv, {
        ...common,
        ...(columns && { columns }),
        ...(delimiter !== undefined && { delimiter }),
      });
    } else if ("beir" in source) {
      const { beir, dataset: _, ...options } = source;
      yield* readPairsBeir(beir, { ...options, ...common });
    } else {
      const { documents, dataset: _, ...options } = source;
      const documentFrequencies = options.methods?.includes("lexical")
        ? await countDocumentFrequencies(documentsOf(documents, signal), { signal })
        : undefined;
      yield* pairsFromDocuments(documentsOf(documents, signal), {
        ...options,
        ...common,
        ...(documentFrequencies && { documentFrequencies }),
        seed,
      });
    }
  }
}

async function* documentsOf(paths: string | readonly string[], signal: AbortSignal) {
  for await (const { document } of corpusOf(typeof paths === "string" ? [paths] : paths, signal).read()) yield document;
}

export interface OpenPairsOptions {
  readonly faulty?: "error" | "skip" | undefined;
  /** Of pairs that are made from documents. @default 0 */
  readonly seed?: number | undefined;
}

/** The pair set in `folder`, which is made of the sources where it isn't there yet. */
export async function openPairs(
  folder: string,
  sources: readonly DataSource[],
  { signal, progress }: Invocation,
  { faulty = "error", seed = 0 }: OpenPairsOptions = {},
): Promise<PairSet> {
  if (existsSync(folder)) return PairSet.open(folder);
  const pairs = await createPairSet(folder, recordsOf(sources, seed, signal), {
    faulty,
    signal,
    onProgress: ({ kept }) => progress.update("reading pairs", { done: kept, noun: "pair" }),
  });
  for (const line of describePairs(pairs)) progress.note(line);
  return pairs;
}

/** A line for each data set, and one of what was left out. */
function describePairs(pairs: PairSet): string[] {
  const { datasets, leftOut } = pairs.statistics();
  const lines = datasets.map(
    ({ name, pairs, queries, documents, negatives }) =>
      `${name}: ${counted(pairs, "pair")} of ${counted(queries, "different query")} and ${counted(documents, "different positive")}${negatives > 0 ? `, ${counted(negatives, "hard negative")}` : ""}`,
  );
  const faults = Object.entries(leftOut.faults).map(([fault, count]) => `${grouped(count)} ${fault}`);
  const parts = [...(leftOut.duplicates > 0 ? [counted(leftOut.duplicates, "duplicate")] : []), ...faults];
  return parts.length > 0 ? [...lines, `left out: ${parts.join(", ")}`] : lines;
}

/** What a path on a command line is, by its name: JSONL, CSV or TSV, or a BEIR folder's training split. */
export function sourceOf(path: string): DataSource {
  if (/\.jsonl(\.gz)?$/i.test(path)) return { jsonl: resolve(path) };
  if (/\.(csv|tsv)(\.gz)?$/i.test(path)) return { csv: resolve(path) };
  if (isBeir(path)) return { beir: resolve(path) };
  throw new InvalidInputError(
    `${path} is no .jsonl, .csv or .tsv file of pairs (plain or .gz), and no folder in BEIR's layout.`,
  );
}
