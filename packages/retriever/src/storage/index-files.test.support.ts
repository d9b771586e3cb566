/** A small index to write and read in tests of the storage, without an embedder. */
import type { AutoFusion } from "../fusion/auto-fusion.js";
import { DocumentStore } from "./document-store.js";
import type { FileSystem } from "./file-system.js";
import { OpenGeneration } from "./index-reader.js";
import { IndexWriter } from "./index-writer.js";
import type { IndexIdentity } from "./manifest.js";

export const DIRECTORY: string = "index";
const identity: IndexIdentity = { modelId: "test/model", fingerprint: "f1", dimensions: 3 };
const fixed = { ...identity, vectorFingerprint: "f1", split: null, sequence: 0, notes: null, former: null };

/** What an index holds, to compare. */
export interface Contents {
  readonly documents: unknown[];
  readonly vectors: number[];
  readonly lexical: string | undefined;
  readonly fusion: AutoFusion | undefined;
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
    fusion: { asked: count, fall: 0.25, passages: 640 },
  };
}

export async function write(fileSystem: FileSystem, contents: Contents): Promise<void> {
  const { documents, vectors, lexical, fusion } = contents;
  const store = new DocumentStore();
  for (const entry of documents as { document: never; passages: never }[]) store.append(entry.document, entry.passages);
  const writer = await IndexWriter.begin(fileSystem, DIRECTORY);
  try {
    const half = (vectors.length / 6) * 3;
    await writer.addVectors(Float32Array.from(vectors.slice(0, half)));
    await writer.addVectors(Float32Array.from(vectors.slice(half)));
    const settled = store.documents;
    await writer.prepare(
      { ...fixed, settled },
      { documents: store, lexical: lexical === undefined ? undefined : Buffer.from(lexical) },
    );
    if (fusion) await writer.addFusion(fusion);
    await writer.publish();
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
      fusion: generation.manifest.fusion,
    };
  } finally {
    await generation.close();
  }
}
