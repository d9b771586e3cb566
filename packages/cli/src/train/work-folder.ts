/** The folder in which mining and clustering keep pairs and vectors, so that a command run again goes on. */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { InvalidInputError } from "@cde-js/core";
import type { PairSet } from "@cde-js/core/training";
import { type Command, type Invocation, UsageError } from "../command.js";
import { writeWhole } from "./run-folder.js";

export const WORK_HELP: string = `--work DIR         keep pairs and vectors there, for other commands too [FILE-work, removed at the end]
  --skip-faulty      leave out empty or one-sided pairs and queries that equal their positive, and count them
  --seed N           seed of every draw [0]`;

export const WORK_OPTIONS: Command["options"] = {
  work: { type: "string" },
  "skip-faulty": { type: "boolean" },
  seed: { type: "string" },
};

export interface Work {
  readonly pairs: PairSet;
  /** For vectors and clusters. */
  readonly cache: string;
  /** After a success: removes what nobody asked to keep. */
  finish(): Promise<void>;
}

/** Files of a BEIR folder that pairs are read from. */
const OF_BEIR = [
  "corpus.jsonl",
  "corpus.jsonl.gz",
  "queries.jsonl",
  "queries.jsonl.gz",
  "qrels/train.tsv",
  "qrels/train.tsv.gz",
];

/** Pairs that are there are used again: they must be of the same files, as they are now. */
async function requireSame(folder: string, paths: readonly string[], faulty: string): Promise<void> {
  const place = join(folder, "sources.json");
  const files = paths
    .flatMap((path) => [path, ...OF_BEIR.map((name) => join(path, name))])
    .filter((path) => existsSync(path));
  const found = await Promise.all(
    files.map(async (path) => {
      const { size, mtimeMs } = await stat(path);
      return [resolve(path), size, mtimeMs];
    }),
  );
  const now = JSON.stringify({ faulty, files: found });
  if (!existsSync(join(folder, "pairs"))) {
    await mkdir(folder, { recursive: true });
    return writeWhole(place, now);
  }
  const before = await readFile(place, "utf8").catch(() => undefined);
  if (before !== now) {
    throw new InvalidInputError(
      `${folder} holds pairs of other files, or of these as they were before. Remove it, or name another one with --work.`,
    );
  }
}

/** The pairs that the command line names. `file` is what the folder is named after where --work names none. */
export async function openWork(file: string, invocation: Invocation): Promise<Work> {
  const { positionals, options } = invocation;
  if (positionals.length === 0) throw new UsageError("no file or folder of pairs is given.");
  // Loaded here, so that commands that don't train start without it.
  const { openPairs, sourceOf } = await import("./pair-sources.js");
  const sources = positionals.map(sourceOf);
  const named = options.text("work");
  const folder = resolve(named ?? `${file}-work`);
  const faulty = options.flag("skip-faulty") ? "skip" : "error";
  await requireSame(folder, positionals, faulty);
  const pairs = await openPairs(join(folder, "pairs"), sources, invocation, {
    faulty,
  });
  return {
    pairs,
    cache: join(folder, "surrogates"),
    async finish() {
      if (named === undefined) await rm(folder, { recursive: true, force: true });
    },
  };
}
