/** Binds the model of an opened index to the context that is kept in it, and refuses another one. */
import { CorpusContext, type Embedder, FingerprintMismatchError } from "@cde-js/core";
import type { JsonObject } from "./documents.js";
import type { AutoFusion } from "./fusion/auto-fusion.js";
import { contextOf, type IndexState, mapOf, storingEmbedder } from "./index-state.js";
import { unfinished } from "./storage/build-checkpoint.js";
import type { FileSystem } from "./storage/file-system.js";
import { OpenGeneration } from "./storage/index-reader.js";
import type { Manifest } from "./storage/manifest.js";
import { asStorageErrors } from "./storage/storage-errors.js";

/** What binds a model to a context: a `ContextualEncoder`, or what `contextualize` gives. */
export interface ContextBinder {
  withContext(context: CorpusContext): Embedder;
  withoutContext(): Embedder;
}

/** What an index folder is, as its manifest says. */
export interface FolderDescription {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly dimensions: number;
  /** Of the last generation, without the updates since. */
  readonly documents: number;
  readonly passages: number;
  readonly generation: number;
  /** The context, where it is kept in the folder. */
  readonly context: CorpusContext | undefined;
  readonly canRollBack: boolean;
  readonly notes: JsonObject | undefined;
  /** See `CorpusIndex.fusion`. */
  readonly fusion: AutoFusion | undefined;
  /** Whether an interrupted build or `recontext` lies there, which the next one goes on with. */
  readonly isUnfinished: boolean;
}

export function isEmbedder(model: Embedder | ContextBinder): model is Embedder {
  return "embedQuery" in model;
}

/** @throws FingerprintMismatchError with both fingerprints */
export async function bindOpened(
  directory: string,
  generation: OpenGeneration,
  model: Embedder | ContextBinder,
): Promise<Embedder> {
  let embedder: Embedder;
  if (isEmbedder(model)) embedder = model;
  else {
    const context = await contextOf(generation);
    embedder = context ? model.withContext(context) : model.withoutContext();
  }
  refuseOther(directory, generation.manifest, embedder);
  return embedder;
}

export async function folderDescription(fileSystem: FileSystem, directory: string): Promise<FolderDescription> {
  const opened = await OpenGeneration.open(fileSystem, directory);
  try {
    const { modelId, fingerprint, dimensions, documents, passages, generation, former, notes, fusion } =
      opened.manifest;
    return {
      modelId,
      fingerprint,
      dimensions,
      documents,
      passages,
      generation,
      context: await contextOf(opened),
      canRollBack: former !== null,
      notes: notes ?? undefined,
      fusion,
      isUnfinished: (await asStorageErrors(directory, () => unfinished(fileSystem, directory))).length > 0,
    };
  } finally {
    await opened.close();
  }
}

/** The context that a rollback returns to. */
export async function formerContextOf({ formerContext }: IndexState): Promise<CorpusContext | undefined> {
  return formerContext && (await CorpusContext.fromBytes(formerContext, "the context before"));
}

export function refuseFingerprint(operation: string, expected: string, embedder: Embedder): void {
  if (embedder.fingerprint === expected) return;
  throw new FingerprintMismatchError(
    expected,
    embedder.fingerprint,
    `${operation}: the context before has the fingerprint ${expected}, this embedder has ${embedder.fingerprint}. Pass the one that is bound to it.`,
  );
}

function refuseOther(directory: string, index: Manifest, embedder: Embedder): void {
  const refuse = (expected: string, actual: string, what: string): never => {
    throw new FingerprintMismatchError(expected, actual, `open: the index in ${directory} ${what}`);
  };
  if (index.fingerprint !== embedder.fingerprint) {
    refuse(
      index.fingerprint,
      embedder.fingerprint,
      `was built with ${index.modelId}, fingerprint ${index.fingerprint}; the embedder is ${embedder.modelId}, ` +
        `fingerprint ${embedder.fingerprint}. Their vectors are not comparable; open the index with its own model and ` +
        "context, or build it again.",
    );
  }
  if (index.dimensions !== embedder.dimensions) {
    refuse(
      String(index.dimensions),
      String(embedder.dimensions),
      `has ${index.dimensions} dimensions, the embedder of the same fingerprint has ${embedder.dimensions}. Build the index again.`,
    );
  }
  if (index.vectorFingerprint === index.fingerprint) return;
  const base = mapOf(embedder) && storingEmbedder(embedder).fingerprint;
  if (base === index.vectorFingerprint) return;
  refuse(
    index.vectorFingerprint,
    base ?? "none",
    `keeps base vectors of fingerprint ${index.vectorFingerprint}; the embedder ${embedder.modelId} has ` +
      `${base === undefined ? "no base and no context to map them" : `a base of ${base}`}. Open it with an encoder, or with an embedder that the encoder bound.`,
  );
}
