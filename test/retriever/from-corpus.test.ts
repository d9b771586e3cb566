import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { ContextualEncoder, CorpusContext, FingerprintMismatchError, NoNullContextError } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { type ContextEncoder, type CorpusDocument, CorpusIndex } from "@cde-js/retriever";
import { expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";

/** An encoder whose contexts are the texts that they were built from. */
function stubEncoder(contextSize?: number): ContextEncoder & { built: (readonly string[])[] } {
  const built: (readonly string[])[] = [];
  return {
    modelId: "stub/bag-of-words",
    maxTokens: 32,
    contextSize,
    built,
    async buildContext(texts) {
      built.push(texts);
      return { fingerprint: texts.join("\n") } as CorpusContext;
    },
    withContext: ({ fingerprint }) => stubEmbedder({ context: fingerprint }),
    withoutContext: () => stubEmbedder(),
  };
}

const corpus: CorpusDocument[] = Array.from({ length: 40 }, (_, i) => ({
  id: `d${i}`,
  title: `Rule ${"abcdefghij"[i % 10]}`,
  text: `Sentence ${"klmnopqrst"[i % 10]}${"uvwxyz"[i % 4]} about a roof. Another ${"abcdefghij"[i % 10]}${i < 20 ? "x" : "y"} sentence about pets.`,
  metadata: { year: 2000 + (i % 4) },
}));
const split = { maxTokens: 9 };

test("the context consists of passages as they are embedded, and the index answers under it", async () => {
  const encoder = stubEncoder();
  await using index = await CorpusIndex.fromCorpus(encoder, () => corpus, { contextSize: 10, split, seed: 2 });
  const [context = []] = encoder.built;
  expect(context).toHaveLength(10);
  const passages = new Set<string>();
  for (const { title, text } of corpus)
    for (const part of text.match(/[^.]+\./g) ?? []) passages.add(`${title} ${part.trim()}`);
  expect(context.filter((text) => !passages.has(text))).toEqual([]);
  expect(index).toMatchObject({ count: 40, passageCount: 80 });
  expect(index.fingerprint).toBe(stubEmbedder({ context: context.join("\n") }).fingerprint);
  expect(index.embedder.fingerprint).toBe(index.fingerprint);
  expect(index.context?.fingerprint).toBe(context.join("\n"));
  expect(index.contextChoice).toMatchObject({ seen: 80, repeated: 0 });
  expect(index.contextChoice?.chosen[0]).toMatchObject({ id: expect.stringMatching(/^d\d+$/) });
  const again = stubEncoder();
  await using same = await CorpusIndex.fromCorpus(
    again,
    async function* () {
      yield* corpus.toReversed();
    },
    { contextSize: 10, split, seed: 2 },
  );
  expect(same.fingerprint).toBe(index.fingerprint);
});

test("a corpus with fewer passages than 512 gives all of them where any number will do, and says so", async () => {
  const encoder = stubEncoder();
  await using index = await CorpusIndex.fromCorpus(encoder, () => corpus, { split: false });
  expect(encoder.built[0]).toHaveLength(40);
  expect(index.contextChoice).toMatchObject({ seen: 40, pool: 40, repeated: 0 });
  const report = { empty: 0, duplicates: 0, nearDuplicates: 0, boilerplate: 0 };
  expect(index.contextChoice?.leftOut).toEqual(report);
});

test("of a larger corpus 512 passages are drawn at random, unless another number is asked for", async () => {
  const word = (n: number): string => n.toString(36).replace(/\d/g, (digit) => "klmnopqrst"[Number(digit)] as string);
  const many = Array.from({ length: 600 }, (_, i) => ({
    id: `m${i}`,
    text: `${word(7919 * i)} ${word(104_729 * i + 1)}`,
  }));
  const encoder = stubEncoder();
  await using index = await CorpusIndex.fromCorpus(encoder, () => many, { split: false, lexical: false });
  expect(encoder.built[0]).toHaveLength(512);
  expect(index.contextChoice).toMatchObject({ seen: 600, groups: [] });
  await using small = await CorpusIndex.fromCorpus(encoder, () => many, {
    split: false,
    lexical: false,
    contextSize: 64,
  });
  expect(encoder.built[1]).toHaveLength(64);
  expect(small.count).toBe(600);
});

test("a model that reads an exact number refuses fewer, with both numbers, unless they may repeat", async () => {
  const few = corpus.slice(0, 3);
  await expect(CorpusIndex.fromCorpus(stubEncoder(16), () => few, { split: false })).rejects.toThrow(
    "16 context documents are wanted, 3 can be used",
  );
  const encoder = stubEncoder(16);
  await using index = await CorpusIndex.fromCorpus(encoder, () => few, { split: false, repeat: true });
  expect(encoder.built[0]).toHaveLength(16);
  expect(index.contextChoice?.repeated).toBe(13);
  await expect(CorpusIndex.fromCorpus(encoder, () => few, { contextSize: 8 })).rejects.toThrow("exactly 16");
});

test("a source that can't be read twice is refused before anything is read, or where it shows", async () => {
  let read = 0;
  async function* once() {
    for (const document of corpus) {
      read++;
      yield document;
    }
  }
  const iterator = once();
  await expect(CorpusIndex.fromCorpus(stubEncoder(), () => iterator)).rejects.toThrow("the same iterator twice");
  expect(read).toBe(0);
  const list = corpus as unknown as () => CorpusDocument[];
  await expect(CorpusIndex.fromCorpus(stubEncoder(), list)).rejects.toThrow("() => documents");
  const readable = Readable.from(corpus);
  await expect(CorpusIndex.fromCorpus(stubEncoder(), () => readable)).rejects.toThrow();
  let calls = 0;
  const shrinking = () => corpus.slice(calls++);
  await expect(CorpusIndex.fromCorpus(stubEncoder(), shrinking)).rejects.toThrow("40 documents the first time and 39");
});

test("an index in a folder is not begun where the second reading differs, and opens with its context only", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cde-from-corpus-"));
  try {
    let calls = 0;
    const differing = () => corpus.slice(0, 40 - calls++);
    await expect(CorpusIndex.fromCorpus(stubEncoder(), differing, { directory })).rejects.toThrow("40 documents");
    await expect(CorpusIndex.open(directory, stubEmbedder())).rejects.toMatchObject({ code: "MISSING_FILE" });
    const index = await CorpusIndex.fromCorpus(stubEncoder(), () => corpus, { directory });
    const { embedder } = index;
    await index.close();
    await using opened = await CorpusIndex.open(directory, embedder);
    expect(opened.context).toBeUndefined();
    await expect(CorpusIndex.open(directory, stubEmbedder())).rejects.toThrow(FingerprintMismatchError);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

test("strata come from the metadata of documents, vectors from the encoder without context", async () => {
  const encoder = stubEncoder();
  const options = { contextSize: 8, strategy: "stratified", stratum: "year", split: false } as const;
  await using stratified = await CorpusIndex.fromCorpus(encoder, () => corpus, options);
  expect(stratified.contextChoice?.groups.map(({ name, chosen }) => [name, chosen])).toEqual([
    ["2000", 2],
    ["2001", 2],
    ["2002", 2],
    ["2003", 2],
  ]);
  await using farthest = await CorpusIndex.fromCorpus(encoder, () => corpus, {
    contextSize: 8,
    strategy: "farthest",
    split: false,
  });
  expect(farthest.contextChoice?.chosen).toHaveLength(8);
});

test("a model without null context says how its texts can be split", async () => {
  const encoder: ContextEncoder = {
    ...stubEncoder(4),
    withoutContext: () => {
      throw new NoNullContextError("none");
    },
  };
  await expect(CorpusIndex.fromCorpus(encoder, () => corpus)).rejects.toThrow("split: false");
  await using whole = await CorpusIndex.fromCorpus(encoder, () => corpus, { split: false });
  expect(whole.count).toBe(40);
  const counting = { ...encoder, countTokens: (text: string) => stubEmbedder().countTokens?.(text) ?? 0 };
  await using parts = await CorpusIndex.fromCorpus(counting, () => corpus, { split });
  expect(parts.passageCount).toBe(80);
});

test("reports progress of both readings, and stops when it is aborted", async () => {
  const seen: number[] = [];
  const built: number[] = [];
  await using _ = await CorpusIndex.fromCorpus(stubEncoder(), () => corpus, {
    split: false,
    onContextProgress: ({ documents }) => seen.push(documents),
    onProgress: ({ fraction }) => built.push(fraction ?? Number.NaN),
  });
  expect(seen.at(-1)).toBe(40);
  expect(built.at(-1)).toBe(1);
  const stop = AbortSignal.abort(new Error("enough"));
  await expect(CorpusIndex.fromCorpus(stubEncoder(), () => corpus, { signal: stop })).rejects.toThrow("enough");
});

test("a real encoder's index in a folder is opened again with the context that was saved beside it", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cde-from-corpus-"));
  await using encoder = await ContextualEncoder.load(modelDirectory);
  try {
    const index = await CorpusIndex.fromCorpus(encoder, () => corpus.slice(0, 12), { directory, contextSize: 8 });
    const [hit] = await index.search("pets");
    await index.context?.save(join(directory, "corpus.context"));
    await index.close();
    const context = await CorpusContext.load(join(directory, "corpus.context"));
    expect(context.size).toBe(8);
    await using opened = await CorpusIndex.open(directory, encoder.withContext(context));
    expect((await opened.search("pets"))[0]).toEqual(hit);
    await expect(CorpusIndex.open(directory, encoder.withoutContext())).rejects.toThrow(FingerprintMismatchError);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
