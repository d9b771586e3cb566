/**
 * Opens the index in a folder with the model and context that it was built with: the model's place is in the index's
 * notes, the context in the index. Indexes of before kept both in files beside, named by the fingerprint; these are read.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type ContextualEncoder, CorpusContext, CorruptFileError } from "@cde-js/core";
import { CorpusIndex, type JsonObject } from "@cde-js/retriever";
import type { Invocation } from "./command.js";
import { loadEncoder, modelOption } from "./model.js";

export interface Settings {
  /** The model's directory; undefined for the bundled model. */
  readonly model: string | undefined;
  readonly context: CorpusContext | undefined;
}

export interface OpenedIndex extends AsyncDisposable {
  readonly encoder: ContextualEncoder;
  readonly index: CorpusIndex;
}

/** What an index keeps for `cde`. */
export function notesOf(model: string | undefined): JsonObject {
  return { model: model ?? null };
}

/** @throws MissingFileError where there is no index, FingerprintMismatchError for another model or context */
export async function openIndex(
  directory: string,
  invocation: Invocation,
  options: { readonly context?: CorpusContext | undefined; readonly autoCompact?: boolean } = {},
): Promise<OpenedIndex> {
  const { signal } = invocation;
  const { notes } = await CorpusIndex.describe(directory);
  const settings = await readSettings(directory);
  const encoder = await loadEncoder(modelOption(invocation) ?? settings.model, invocation);
  try {
    // A context from elsewhere, or from beside an index of before; others are kept in the index.
    const beside = options.context ?? (notes === undefined ? settings.context : undefined);
    const model = beside ? encoder.withContext(beside) : encoder;
    const { autoCompact = true } = options;
    const index = await CorpusIndex.open(directory, model, { signal, autoCompact });
    const close = async (): Promise<void> => {
      await index.close();
      await encoder.dispose();
    };
    return { encoder, index, [Symbol.asyncDispose]: close };
  } catch (error) {
    await encoder.dispose();
    throw error;
  }
}

/** @throws MissingFileError where there is no index or its context is gone, CorruptFileError */
export async function readSettings(directory: string): Promise<Settings> {
  const { fingerprint, notes, context } = await CorpusIndex.describe(directory);
  if (notes !== undefined || context !== undefined) {
    return { model: typeof notes?.model === "string" ? notes.model : undefined, context };
  }
  const owner = /^[0-9a-f]{16}/.exec(fingerprint)?.[0] ?? "0".repeat(16);
  const path = join(directory, `settings-${owner}.json`);
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (text === undefined) return { model: undefined, context: undefined };
  let json: Readonly<Record<string, unknown>>;
  try {
    json = Object(JSON.parse(text)) as Record<string, unknown>;
  } catch (cause) {
    throw new CorruptFileError(path, `${path} is not JSON. Build the index again.`, { cause });
  }
  const { format, fingerprint: stated, model } = json;
  if (format !== "cde-settings/1" || stated !== fingerprint || !(model === null || typeof model === "string")) {
    throw new CorruptFileError(path, `${path} does not hold the settings of this index. Build the index again.`);
  }
  const file = join(directory, `context-${owner}.safetensors`);
  return { model: model ?? undefined, context: json.context === true ? await CorpusContext.load(file) : undefined };
}
