/** The folder in which mining and clustering keep pairs and vectors, so that a command run again goes on. */
import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { PairSet } from "@cde-js/core/training";
import { type Command, type Invocation, UsageError } from "../command.js";

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

/** The pairs that the command line names. `file` is what the folder is named after where --work names none. */
export async function openWork(file: string, invocation: Invocation): Promise<Work> {
  const { positionals, options } = invocation;
  if (positionals.length === 0) throw new UsageError("no file or folder of pairs is given.");
  // Loaded here, so that commands that don't train start without it.
  const { openPairs, sourceOf } = await import("./pair-sources.js");
  const sources = positionals.map(sourceOf);
  const named = options.text("work");
  const folder = resolve(named ?? `${file}-work`);
  const pairs = await openPairs(join(folder, "pairs"), sources, invocation, {
    faulty: options.flag("skip-faulty") ? "skip" : "error",
  });
  return {
    pairs,
    cache: join(folder, "surrogates"),
    async finish() {
      if (named === undefined) await rm(folder, { recursive: true, force: true });
    },
  };
}
