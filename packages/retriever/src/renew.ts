/**
 * The next generation of an index from the one that is there: without what was deleted (compaction), or under another
 * context. Searches go on meanwhile; updates wait.
 */
import type { Embedder } from "@cde-js/core";
import { ingest, recordFusion } from "./build-generation.js";
import { type BuildProgress, embedDocuments, type KnownDocument } from "./build-index.js";
import type { CorpusDocument } from "./documents.js";
import { IndexState, mapOf, mapRows, type StateOptions, storingEmbedder } from "./index-state.js";
import type { LexicalPart } from "./lexical/lexical-part.js";
import type { DocumentStore } from "./storage/document-store.js";
import type { FileSystem } from "./storage/file-system.js";
import { OpenGeneration } from "./storage/index-reader.js";
import type { IndexWriter } from "./storage/index-writer.js";
import type { FormerContext, GenerationState, Manifest } from "./storage/manifest.js";
import { FileVectors } from "./stored-vectors.js";

export interface Renewal extends StateOptions {
  /** Of the new generation: that of the old one, or one with another context. */
  readonly embedder: Embedder;
  /** Whether this is another context: then what is there now can be rolled back to. */
  readonly recontext: boolean;
  /** Average length of the lexical part from now on. @default the one that is frozen */
  readonly averageLength?: number | undefined;
  /** Documents at the head that were there when the context was chosen. @default as many as in the old generation */
  readonly settled?: number | undefined;
  /** The file of its context, for an embedder that doesn't say. */
  readonly keptContext?: Uint8Array | undefined;
  /** Go on with what an interrupted run has embedded. @default true */
  readonly resume?: boolean | undefined;
  readonly onProgress?: ((progress: BuildProgress) => void) | undefined;
}

/** A folder that is being written. */
export interface Folder {
  readonly fileSystem: FileSystem;
  readonly directory: string;
  readonly writer: IndexWriter;
  /** The last update. */
  readonly sequence: number;
}

/** Writes the generation, durably, and reads it back. It isn't the folder's index before `writer.publish()`. */
export async function renewInFolder(state: IndexState, folder: Folder, renewal: Renewal): Promise<IndexState> {
  const manifest = await writeGeneration(state, folder, renewal);
  const generation = await OpenGeneration.ofManifest(folder.fileSystem, folder.directory, manifest);
  const next = await IndexState.read(generation, renewal.embedder, renewal);
  try {
    await recordFusion(next, folder.writer);
    return next;
  } catch (error) {
    await next.close();
    throw error;
  }
}

/** Writes the generation, durably; `writer.publish()` makes it the folder's index. */
export async function writeGeneration(state: IndexState, folder: Folder, renewal: Renewal): Promise<Manifest> {
  const { writer, sequence } = folder;
  const { embedder, signal } = renewal;
  const labels = state.documents.liveLabels();
  let contents: { documents: DocumentStore; lexical: Uint8Array | undefined };
  if (keepsVectors(state, embedder)) {
    const map = mapOf(embedder);
    const mapped = map && storesBase(state, embedder);
    for await (const rows of state.stored.blocks(labels)) {
      signal?.throwIfAborted();
      await writer.addVectors(rows);
      if (mapped) await writer.addVectors(await mapRows(rows, map, signal), "rows");
    }
    await writer.addVectors(new Float32Array(0));
    if (mapped) await writer.addVectors(new Float32Array(0), "rows");
    contents = { documents: state.documents, lexical: state.lexical?.toBytes(labels, renewal.averageLength) };
  } else {
    const lexical = state.lexical?.emptied();
    const { store } = await ingest(embedder, liveDocuments(state), folder, {
      operation: "recontext",
      split: state.splitOption("recontext"),
      lexical,
      resume: renewal.resume ?? true,
      known: knownOfFormer(state, embedder),
      total: state.documents.liveDocuments,
      signal,
      onProgress: renewal.onProgress,
    });
    freezeAs(state, lexical, renewal);
    contents = { documents: store, lexical: lexical?.toBytes() };
  }
  const former = await writeFormer(state, embedder, labels, renewal, writer);
  const frozen: GenerationState = {
    ...state.frozen(sequence),
    modelId: embedder.modelId,
    fingerprint: embedder.fingerprint,
    vectorFingerprint: keepsVectors(state, embedder) ? state.vectorFingerprint : storingEmbedder(embedder).fingerprint,
    former,
    // Another context gives other cosines.
    ...(embedder.fingerprint === state.embedder.fingerprint ? {} : { fusion: undefined }),
    ...(renewal.settled === undefined ? {} : { settled: renewal.settled }),
  };
  const present = await contextBytes(state);
  return await writer.prepare(frozen, {
    ...contents,
    context: renewal.recontext ? (embedder.context?.toBytes() ?? renewal.keptContext) : present,
    formerContext: renewal.recontext ? present : state.formerContext,
  });
}

/** The same without a folder. */
export async function renewInMemory(state: IndexState, renewal: Renewal): Promise<IndexState> {
  const { embedder, signal } = renewal;
  const { former, formerContext } = renewal.recontext
    ? { former: formerOf(state, 0), formerContext: state.embedder.context?.toBytes() }
    : { former: state.frozen(0).former, formerContext: state.formerContext };
  const lexical = state.lexical?.emptied();
  const { splitter, split, notes, documents } = state;
  const { rows, vectorIndex } = renewal;
  const kept = { rows, vectorIndex, lexical, split, splitter, notes, former, formerContext };
  const next = await IndexState.empty(embedder, kept);
  try {
    if (keepsVectors(state, embedder)) {
      for (const number of documents.live()) {
        signal?.throwIfAborted();
        const { document, passages } = documents.read(number);
        const first = documents.firstPassage(number);
        const rows = await state.stored.read(Uint32Array.from(passages, (_, i) => first + i));
        await next.add([{ document, passages, rows, titleLeftOut: false, truncated: false }]);
      }
    } else {
      const slices = embedDocuments(storingEmbedder(embedder), liveDocuments(state), {
        operation: "recontext",
        split: state.splitOption("recontext"),
        total: documents.liveDocuments,
        signal,
        onProgress: renewal.onProgress,
      });
      for await (const slice of slices) await next.add(slice);
    }
    freezeAs(state, lexical, renewal);
    next.settled = renewal.settled ?? state.liveBefore(state.settled);
    await next.autoFusion();
    return next;
  } catch (error) {
    await next.close();
    throw error;
  }
}

/** An average that isn't fixed yet, of an index that began empty, stays so. */
function freezeAs({ lexical: old }: IndexState, lexical: LexicalPart | undefined, { averageLength }: Renewal): void {
  if (averageLength !== undefined || old?.index.isFrozen) {
    lexical?.index.freeze(averageLength ?? old?.index.parameters.averageLength);
  }
}

/** Whether the vectors that are kept serve this embedder too. */
export function keepsVectors(state: IndexState, embedder: Embedder): boolean {
  const { vectorFingerprint } = state;
  return vectorFingerprint === embedder.fingerprint || vectorFingerprint === storingEmbedder(embedder).fingerprint;
}

/** Whether they are base vectors of this embedder: those of an old folder may be mapped ones. */
function storesBase(state: IndexState, embedder: Embedder): boolean {
  return state.vectorFingerprint !== embedder.fingerprint;
}

/** The context of the embedder, or the one that the folder keeps for an embedder that doesn't say. */
async function contextBytes({ embedder, generation }: IndexState): Promise<Uint8Array | undefined> {
  return embedder.context?.toBytes() ?? (await generation?.bytes("context"))?.bytes;
}

/** What a later rollback returns to. */
function formerOf(state: IndexState, passages: number): FormerContext {
  const { modelId, fingerprint } = state.embedder;
  return {
    modelId,
    fingerprint,
    vectorFingerprint: state.vectorFingerprint,
    passages,
    settled: state.liveBefore(state.settled),
    averageLength: state.lexical?.index.parameters.averageLength ?? null,
  };
}

/** Keeps the vectors of the former context where no map gives them; those of documents that are there still. */
async function writeFormer(
  state: IndexState,
  embedder: Embedder,
  labels: Uint32Array,
  { recontext }: Renewal,
  writer: IndexWriter,
): Promise<FormerContext | null> {
  if (recontext) {
    if (keepsVectors(state, embedder)) return formerOf(state, 0);
    for await (const rows of state.stored.blocks(labels)) await writer.addVectors(rows, "formerVectors");
    return formerOf(state, labels.length);
  }
  const { generation } = state;
  const { former } = state.frozen(0);
  if (!former || !generation?.manifest.files.formerVectors) return former;
  const kept = labels.filter((label) => label < former.passages);
  const vectors = new FileVectors(generation, "formerVectors");
  for await (const rows of vectors.blocks(kept)) await writer.addVectors(rows, "formerVectors");
  return { ...former, passages: kept.length };
}

/** On the way back, the vectors of documents that were there before the context changed are still at hand. */
function knownOfFormer(
  state: IndexState,
  embedder: Embedder,
): ((document: CorpusDocument) => Promise<KnownDocument | undefined>) | undefined {
  const { former, generation, documents } = state;
  if (!former || !generation?.manifest.files.formerVectors) return undefined;
  if (former.vectorFingerprint !== storingEmbedder(embedder).fingerprint) return undefined;
  return async ({ id }) => {
    const number = documents.numberOf(id) as number;
    const [first, end] = [documents.firstPassage(number), documents.firstPassage(number + 1)];
    if (end > former.passages) return undefined;
    const { passages } = documents.read(number);
    const labels = Uint32Array.from(passages, (_, i) => first + i);
    const rows = await generation.vectorsOf(labels, "formerVectors");
    return { passages, rows, titleLeftOut: false, truncated: false };
  };
}

function* liveDocuments({ documents }: IndexState): Generator<CorpusDocument> {
  for (const number of documents.live()) yield documents.read(number).document;
}
