/** A small index to write and read in tests of the storage, without an embedder. */
import { DocumentStore } from "./document-store.js";
import type { FileSystem } from "./file-system.js";
import { OpenGeneration } from "./index-reader.js";
import { IndexWriter } from "./index-writer.js";
import type { IndexIdentity } from "./manifest.js";

export const DIRECTORY: string = "index";
const identity: IndexIdentity = { modelId: "test/model", fingerprint: "f1", dimensions: 3 };

/** What an index holds, to compare. */
export interface Contents {
  readonly documents: unknown[];
  readonly vectors: number[];
  readonly lexical: string | undefined;
}

/** `count` documents of two passages each, told apart by `tag`. */
export function sampleContents(tag: string, count: number): Contents {
  return {
    documents: Array.from({ length: count }, (_, i) => ({
      document: { id: `${tag}/${i}/../é`, text: `Text ${tag}. Ünd ${i}`, metadata: { tag, n: i, list: [null, true] } },
      passages: [
        { start: 0, end: 6 },
        { start: 7, end: 12 },
      ],
    })),
    vectors: Array.from({ length: 6 * count }, (_, i) => i + 0.5),
    lexical: `the terms of ${tag}`,
  };
}

export async function write(fileSystem: FileSystem, { documents, vectors, lexical }: Contents): Promise<void> {
  const store = new DocumentStore();
  for (const entry of documents as { document: never; passages: never }[]) store.append(entry.document, entry.passages);
  const writer = await IndexWriter.begin(fileSystem, DIRECTORY);
  try {
    const half = (vectors.length / 6) * 3;
    await writer.addVectors(Float32Array.from(vectors.slice(0, half)));
    await writer.addVectors(Float32Array.from(vectors.slice(half)));
    await writer.commit(identity, store, lexical === undefined ? undefined : Buffer.from(lexical));
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

export async function read(fileSystem: FileSystem): Promise<Contents> {
  const generation = await OpenGeneration.open(fileSystem, DIRECTORY);
  try {
    const store = await generation.documents();
    const vectors: number[] = [];
    for await (const { rows } of generation.vectors()) vectors.push(...rows);
    const lexical = await generation.bytes("lexical");
    return {
      documents: Array.from({ length: store.documents }, (_, i) => store.read(i)),
      vectors,
      lexical: lexical && Buffer.from(lexical.bytes).toString("latin1"),
    };
  } finally {
    await generation.close();
  }
}
