/** Loads a reranker that a command line names: an ES module of the user's own. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { CdeError, InvalidInputError, MissingFileError } from "@cde-js/core";
import type { Reranker } from "@cde-js/retriever";

/**
 * The module's default export, or what it exports as `rerank`: `(query, hits) => scores`. What it throws becomes an
 * InvalidInputError that names it.
 *
 * @throws MissingFileError, InvalidInputError for a module that can't be loaded or exports no function
 */
export async function loadReranker(path: string): Promise<Reranker> {
  const file = resolve(path);
  if (!existsSync(file)) throw new MissingFileError(file, `there is no file ${path}, given as --rerank.`);
  let found: unknown;
  try {
    const module = (await import(pathToFileURL(file).href)) as {
      readonly default?: unknown;
      readonly rerank?: unknown;
    };
    found = module.default ?? module.rerank;
  } catch (cause) {
    throw new InvalidInputError(`--rerank ${path} can't be loaded: ${messageOf(cause)}`, { cause });
  }
  if (typeof found !== "function")
    throw new InvalidInputError(
      `--rerank ${path} exports no function, by default or as "rerank". Export (query, hits) => scores.`,
    );
  const rerank = found as Reranker;
  return async (query, hits) => {
    try {
      return await rerank(query, hits);
    } catch (cause) {
      if (cause instanceof CdeError) throw cause;
      throw new InvalidInputError(`--rerank ${path} failed: ${messageOf(cause)}`, { cause });
    }
  };
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
