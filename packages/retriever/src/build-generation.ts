/** Embeds documents into a new generation of a folder, which becomes the index when all of it was read back. */
import { setImmediate as pause } from "node:timers/promises";
import { type Embedder, InvalidInputError } from "@cde-js/core";
import {
  type BuildProgress,
  type BuildReport,
  embedDocuments,
  type KnownDocument,
  ReportLists,
  type SplitOptions,
  type Splitter,
  splitIdentity,
} from "./build-index.js";
import type { BuildInMemoryOptions } from "./build-memory.js";
import type { CorpusDocument } from "./documents.js";
import { IndexState, joined, mapOf, mapRows, storingEmbedder } from "./index-state.js";
import type { LexicalPart } from "./lexical/lexical-part.js";
import { BuildCheckpoint, unfinished } from "./storage/build-checkpoint.js";
import { DocumentStore } from "./storage/document-store.js";
import type { FileSystem } from "./storage/file-system.js";
import { OpenGeneration } from "./storage/index-reader.js";
import { IndexWriter } from "./storage/index-writer.js";

export interface IngestOptions {
  readonly operation: string;
  readonly split: SplitOptions | Splitter | false | undefined;
  /** An empty one, which takes the words. */
  readonly lexical: LexicalPart | undefined;
  /** Go on with what an interrupted run has embedded; false discards it. */
  readonly resume: boolean;
  /** Vectors that are at hand before those of an interrupted run. */
  readonly known?: ((document: CorpusDocument) => Promise<KnownDocument | undefined>) | undefined;
  /** Documents that will come, where that is known and they are no array. */
  readonly total?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BuildProgress) => void) | undefined;
}

/** Milliseconds of counting words after which the event loop gets a turn. */
const TURN = 15;

/** Writes the vectors of all documents; gives the documents, for the writer's `prepare`. */
export async function ingest(
  embedder: Embedder,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  target: { readonly fileSystem: FileSystem; readonly directory: string; readonly writer: IndexWriter },
  options: IngestOptions,
): Promise<{ readonly store: DocumentStore; readonly report: BuildReport }> {
  const { lexical, split, signal } = options;
  const { writer } = target;
  const storing = storingEmbedder(embedder);
  const map = mapOf(embedder);
  const checkpoint = await checkpointOf(storing, target, options);
  const store = new DocumentStore();
  const lists = new ReportLists();
  const known = async (document: CorpusDocument, passages?: KnownDocument["passages"]) =>
    (await options.known?.(document)) ?? (await checkpoint?.find(document, passages));
  try {
    const slices = embedDocuments(storing, documents, {
      operation: options.operation,
      split,
      known,
      total: options.total,
      signal,
      onProgress: options.onProgress,
    });
    for await (const slice of slices) {
      await checkpoint?.add(slice.filter(({ fresh }) => fresh));
      let turn = performance.now();
      for (const embedded of slice) {
        const { document, passages } = embedded;
        lists.add(embedded);
        for (const [i, { start, end }] of passages.entries()) {
          lexical?.add(store.passages + i, document.title, document.text.slice(start, end));
          if (performance.now() - turn < TURN) continue;
          await pause();
          turn = performance.now();
        }
        store.append(document, passages);
      }
      const rows = joined(slice.map((embedded) => embedded.rows));
      await writer.addVectors(rows);
      if (map) await writer.addVectors(await mapRows(rows, map, signal), "rows");
    }
    writer.finishesBuild = true;
    const { reused = 0 } = checkpoint ?? {};
    const report = { documents: store.documents, passages: store.passages, ...lists, resumed: reused };
    return { store, report };
  } finally {
    await checkpoint?.close();
  }
}

export interface BuildInFolderOptions extends BuildInMemoryOptions {
  readonly fileSystem: FileSystem;
  readonly directory: string;
  readonly resume: boolean;
}

/** Makes the folder's index of the documents. */
export async function buildInFolder(
  embedder: Embedder,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  options: BuildInFolderOptions,
): Promise<{ readonly state: IndexState; readonly report: BuildReport }> {
  const { fileSystem, directory, lexical, split, notes } = options;
  const writer = await IndexWriter.begin(fileSystem, directory);
  let state: IndexState | undefined;
  try {
    const asked = { ...options, operation: "build" };
    const { store, report } = await ingest(embedder, documents, { fileSystem, directory, writer }, asked);
    // Documents of a later version of this index are weighed by the average length of these.
    lexical?.index.freeze();
    const { modelId, fingerprint, dimensions, context } = embedder;
    const frozen = {
      modelId,
      fingerprint,
      dimensions,
      vectorFingerprint: storingEmbedder(embedder).fingerprint,
      split: splitIdentity(embedder, split),
      sequence: 0,
      settled: store.documents,
      notes,
      former: null,
    };
    const contents = { documents: store, lexical: lexical?.toBytes(), context: context?.toBytes() };
    const manifest = await writer.prepare(frozen, contents);
    // What was written is read back, checked, before it takes the place of what was there.
    const generation = await OpenGeneration.ofManifest(fileSystem, directory, manifest);
    state = await IndexState.read(generation, embedder, options);
    await recordFusion(state, writer);
    await writer.publish();
    return { state, report };
  } catch (error) {
    await state?.close();
    await writer.abort();
    throw error;
  }
}

/** Chooses what mixes are weighed by, of a generation that was read back, and writes it down. */
export async function recordFusion(state: IndexState, writer: IndexWriter): Promise<void> {
  const before = state.fusion;
  const fusion = await state.autoFusion();
  if (fusion && fusion !== before) await writer.addFusion(fusion);
}

async function checkpointOf(
  storing: Embedder,
  { fileSystem, directory, writer }: Parameters<typeof ingest>[2],
  { operation, split, resume }: IngestOptions,
): Promise<BuildCheckpoint | undefined> {
  if (!storing.batchInvariant) {
    // A text's vector depends on its batch mates: a resumed build would be another index.
    if (resume && (await unfinished(fileSystem, directory)).length > 0) {
      throw new InvalidInputError(
        `${operation}: ${directory} holds an unfinished build, and this embedder's vectors depend on their batch, so it ` +
          "can't be gone on with. Discard it with { resume: false }.",
      );
    }
    return undefined;
  }
  const { fingerprint: vectorFingerprint, dimensions } = storing;
  const identity = { vectorFingerprint, dimensions, split: splitIdentity(storing, split) };
  return await BuildCheckpoint.open(fileSystem, directory, writer.generation, { identity, resume });
}
