/** Writes a model directory wholly or not at all, with the files that stay as they are copied from another. */
import { mkdir, mkdtemp, readdir, readFile, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { InvalidInputError, RuntimeFailureError } from "../errors.js";

/** What a directory of sentence-transformers, or a module's folder in it, holds beside weights. */
export const COMPANIONS = [
  "config.json",
  "modules.json",
  "sentence_bert_config.json",
  "config_sentence_transformers.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
] as const;

/**
 * Runs `write` on a folder beside `target` and gives it that name when it is complete. `target` must not exist, or be an
 * empty directory. Raises InvalidInputError otherwise, and RuntimeFailureError where the disk fails.
 */
export async function writeDirectory(
  operation: string,
  target: string,
  write: (folder: string) => Promise<void>,
): Promise<void> {
  await requireFree(operation, target);
  const place = resolve(target);
  let temporary: string | undefined;
  try {
    await mkdir(dirname(place), { recursive: true });
    temporary = await mkdtemp(join(dirname(place), `.${basename(place)}-`));
    await write(temporary);
    await rmdir(place).catch(ignoreMissing); // an empty one, over which not every system renames
    await rename(temporary, place);
  } catch (cause) {
    if (temporary !== undefined) await rm(temporary, { recursive: true, force: true });
    if (cause instanceof Error && "syscall" in cause) {
      throw new RuntimeFailureError(`${operation}: can't write ${target}: ${cause.message}`, { cause });
    }
    throw cause;
  }
}

/** Copies files of one folder into another; those that don't exist are left out. */
export async function copyFiles(source: string, target: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const bytes = await readFile(join(source, name)).catch(ignoreMissing);
    if (!bytes) continue;
    await mkdir(target, { recursive: true });
    await writeFile(join(target, name), bytes);
  }
}

/** Before the work, which may take long. */
export async function requireFree(operation: string, target: string): Promise<void> {
  const entries = await readdir(target).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw new InvalidInputError(`${operation}: can't write to ${target}: ${error.message}`, { cause: error });
  });
  if (entries.length === 0) return;
  throw new InvalidInputError(
    `${operation}: ${target} holds ${entries.length} files already. Give another target, or delete it first.`,
  );
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
  return undefined;
}
