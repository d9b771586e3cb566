/** Vectors that were made elsewhere, in a `CorpusIndex`: as one update, of one context, with words. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { contextualize, type Embedder, FingerprintMismatchError } from "@cde-js/core";
import { type CorpusDocument, CorpusIndex, ExactIndex, type VectorIndex } from "@cde-js/retriever";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { tableEmbedder } from "../support/table-embedder.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-given-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
let folders = 0;
const newFolder = (): string => join(folder, `i${folders++}`);

const embedder = stubEmbedder({ dimensions: 2 });
const at = (degrees: number): Float32Array =>
  Float32Array.of(Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180));
const texts = ["river flood", "roof repair", "flood claim"];
const documents: CorpusDocument[] = texts.map((text, i) => ({ id: `${i}`, text, metadata: { page: i } }));
const empty = (directory?: string) =>
  CorpusIndex.build(embedder, [], { split: false, ...(directory === undefined ? {} : { directory }) });

describe("given vectors", () => {
  test("are found by their cosine, their documents by words, and a blank text too", async () => {
    await using index = await empty();
    const blank = { id: "blank", text: " " };
    expect(await index.upsertVectors([...documents, blank], [at(0), at(60), at(90), at(180)])).toEqual({
      added: 4,
      replaced: 0,
      metadataChanged: 0,
      unchanged: 0,
      embedded: 0,
      withoutPassages: [],
      titlesLeftOut: [],
      truncated: [],
    });
    expect(await index.counts()).toEqual({ documents: 4, passages: 4 });
    const hits = await index.searchVector(at(0), { k: 9 });
    expect(hits.map(({ id }) => id)).toEqual(["0", "1", "2", "blank"]);
    // cos 0°, 60°, 90°, 180°
    for (const [i, cosine] of [1, 0.5, 0, -1].entries()) expect(hits[i]?.score).toBeCloseTo(cosine, 6);
    expect(hits[0]).toMatchObject({ text: "river flood", scoring: "cosine", metadata: { page: 0 } });
    const filter = { must: [{ key: "page", match: { value: 2 } }] };
    expect((await index.searchVector(at(0), { filter })).map(({ id }) => id)).toEqual(["2"]);
    expect((await index.search("flood", { mode: "lexical" })).map(({ id }) => id).sort()).toEqual(["0", "2"]);
  });

  test("replace by id, whether the text is another or not", async () => {
    await using index = await empty();
    await index.upsertVectors(documents, [at(0), at(60), at(90)]);
    const same = documents[0] as CorpusDocument;
    expect(await index.upsertVectors([same], [at(90)])).toMatchObject({ added: 0, replaced: 1 });
    expect((await index.searchVector(at(0), { k: 1 }))[0]?.id).toBe("1");
    expect(index.count).toBe(3);
    expect((await index.search("river", { mode: "lexical" })).map(({ id }) => id)).toEqual(["0"]);
  });

  test("of one call are all there or none, with the position of what is wrong", async () => {
    await using index = await empty();
    await index.upsertVectors(documents.slice(0, 1), [at(0)]);
    const cases: [CorpusDocument[], Float32Array[], RegExp][] = [
      [documents, [at(0), at(1)], /3 documents and 2 vectors/],
      [documents, [at(0), at(1), Float32Array.of(1)], /position 2 has 1 components, expected 2/],
      [documents, [at(0), at(1), Float32Array.of(Number.NaN, 1)], /position 2 has NaN at component 0/],
      [documents, [at(0), at(1), [1, 0] as never], /position 2 is no Float32Array/],
      [[documents[1]!, documents[1]!], [at(0), at(1)], /position 1 has the id "1" of the one at 0/],
      [[documents[1]!, { id: "", text: "x" }], [at(0), at(1)], /position 1 has an empty id/],
      [documents[1] as never, [], /must be arrays/],
    ];
    for (const [given, vectors, message] of cases) {
      await expect(index.upsertVectors(given, vectors)).rejects.toThrow(message);
    }
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(index.upsertVectors(documents, [at(0), at(1), at(2)], { signal })).rejects.toThrow("enough");
    expect([index.count, (await index.searchVector(at(0))).length]).toEqual([1, 1]);
  });

  test("of another context are refused, by what the caller says and by what this process knows", async () => {
    const near = await contextualize(async (some) => some.map((text) => at(text.length * 7)), ["a", "bb", "cccc"], {
      modelId: "near",
      strength: "off",
    });
    await using index = await CorpusIndex.build(near, [], { split: false });
    const own = await near.embedDocuments(["dd"]);
    await index.upsertVectors([{ id: "own", text: "dd" }], own.vectors, { fingerprint: near.fingerprint });
    const far = await contextualize(async (some) => some.map((text) => at(text.length * 7)), ["a", "bb", "cccc"], {
      modelId: "far",
      strength: "off",
    });
    const [vector] = (await far.embedDocuments(["dd"])).vectors as [Float32Array];
    const other = { code: "FINGERPRINT_MISMATCH", expected: near.fingerprint, actual: far.fingerprint };
    await expect(index.upsertVectors([{ id: "x", text: "dd" }], [vector])).rejects.toMatchObject(other);
    await expect(index.searchVector(vector)).rejects.toMatchObject(other);
    const copy = vector.slice();
    const { fingerprint } = far;
    await expect(index.upsertVectors([{ id: "x", text: "dd" }], [copy], { fingerprint })).rejects.toMatchObject(other);
    await expect(index.searchVector(copy, { fingerprint })).rejects.toBeInstanceOf(FingerprintMismatchError);
    // The control: of a copy nothing is known.
    expect(await index.searchVector(copy)).toHaveLength(1);
    expect(index.count).toBe(1);
  });

  test("are refused where base vectors are kept, and where a search needs words", async () => {
    const map = await contextualize(async (some) => some.map((text) => at(text.length * 7)), ["a", "bb", "cccc"], {
      modelId: "map",
      strength: { a: 0.5, s: 0.5, b: 0.5 },
    });
    await using index = await CorpusIndex.build(map, [{ id: "a", text: "a" }], { split: false });
    await expect(index.upsertVectors([{ id: "b", text: "b" }], [at(3)])).rejects.toThrow(/keeps base vectors/);
    for (const name of ["mode", "fusion", "rerank", "rerankCandidates", "highlight"]) {
      await expect(index.searchVector(at(0), { [name]: 1 } as never)).rejects.toThrow(`${name} needs the words`);
    }
    await expect(index.searchVector([1, 0] as never)).rejects.toThrow(/must be a Float32Array/);
    await expect(index.searchVector(Float32Array.of(1))).rejects.toThrow(/has 1 components, expected 2/);
  });

  test("survive in a folder, words included, and are taken over by compaction", async () => {
    const directory = newFolder();
    {
      await using index = await empty(directory);
      await index.upsertVectors(documents, [at(0), at(60), at(90)]);
    }
    for (const compacts of [true, false]) {
      await using opened = await CorpusIndex.open(directory, embedder);
      expect((await opened.searchVector(at(90), { k: 1 }))[0]).toMatchObject({ id: "2", text: "flood claim" });
      expect((await opened.search("claim", { mode: "lexical" })).map(({ id }) => id)).toEqual(["2"]);
      if (compacts) await opened.compact();
    }
  });
});

test("words of an index that began empty are weighed as in one that was built whole, saved and compacted too", async () => {
  const long = { id: "long", text: "flood of words that goes on for longer than any other text of these few" };
  const scores = async (index: CorpusIndex): Promise<number[]> =>
    (await index.search("flood", { mode: "lexical" })).map(({ score }) => score);
  const wide = stubEmbedder();
  await using built = await CorpusIndex.build(wide, [...documents, long], { split: false });
  const expected = await scores(built);
  const directory = newFolder();
  await using index = await CorpusIndex.build(wide, [], { split: false });
  await index.upsert(documents);
  const early = await scores(index);
  await index.upsert([long]);
  expect(await scores(index)).toEqual(expected);
  await index.save(directory);
  await index.compact();
  expect(await scores(index)).toEqual(expected);
  await using opened = await CorpusIndex.open(directory, wide);
  expect(await scores(opened)).toEqual(expected);
  // The controls: the average moved, and one that is built of documents keeps its own.
  await using kept = await CorpusIndex.build(wide, documents, { split: false });
  expect(await scores(kept)).toEqual(early);
  await kept.upsert([long]);
  expect(await scores(kept)).not.toEqual(expected);
});

/** An index of vectors that takes rows when it is told to. */
class GatedIndex extends ExactIndex {
  gate: Promise<void> | undefined;

  override async upsert(labels: Uint32Array, vectors: Float32Array): Promise<void> {
    await super.upsert(labels, vectors);
    await this.gate;
  }
}

describe("an index of vectors", () => {
  const table = { a: [1, 0], b: [0, 1], c: [1, 1], ask: [1, 0.1] } as const;
  const embedder = tableEmbedder(table);
  const [a, b]: CorpusDocument[] = [
    { id: "1", text: "a" },
    { id: "2", text: "b" },
  ];

  test("that takes its time doesn't show half of an update to a search", async () => {
    let made: GatedIndex | undefined;
    await using index = await CorpusIndex.build(embedder, [a!, b!], {
      split: false,
      vectorIndex: (dimensions) => {
        made = new GatedIndex(dimensions);
        return made;
      },
    });
    let open = (): void => {};
    made!.gate = new Promise((resolve) => {
      open = resolve;
    });
    const update = index.upsert([
      { id: "2", text: "a" },
      { id: "3", text: "c" },
    ]);
    const dense = async () => (await index.search("ask", { mode: "dense" })).map(({ id, text }) => id + text);
    // The rows are in the index, the documents are not.
    while (made!.count < 4) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(await dense()).toEqual(["1a", "2b"]);
    open();
    await update;
    expect(await dense()).toEqual(["1a", "2a", "3c"]);
  });

  test("that refuses an update leaves the index in memory as it was, and the next one is taken", async () => {
    let broken = false;
    const vectorIndex = (dimensions: number): VectorIndex => {
      const made = new ExactIndex(dimensions);
      const upsert = made.upsert.bind(made);
      made.upsert = async (...rows) => {
        if (broken) throw new Error("no room");
        await upsert(...rows);
      };
      return made;
    };
    await using index = await CorpusIndex.build(embedder, [a!, b!], { split: false, vectorIndex });
    broken = true;
    const changed = [
      { id: "2", text: "a" },
      { id: "3", text: "c" },
    ];
    await expect(index.upsert(changed)).rejects.toThrow("no room");
    const state = async () => [index.count, (await index.search("ask", { mode: "dense" })).map(({ text }) => text)];
    expect(await state()).toEqual([2, ["a", "b"]]);
    expect(await index.get("2")).toEqual(b);
    broken = false;
    await index.upsert(changed);
    expect(await state()).toEqual([3, ["a", "a", "c"]]);
  });

  test("of other dimensions is refused with both, and closed", async () => {
    let made: ExactIndex | undefined;
    const vectorIndex = () => {
      made = new ExactIndex(3);
      return made;
    };
    await expect(CorpusIndex.build(embedder, [], { split: false, vectorIndex })).rejects.toThrow(
      /an index of 3 dimensions, the embedder has 2/,
    );
    await expect(made?.search(Float32Array.of(1, 1, 1), 1)).rejects.toMatchObject({ code: "INDEX_CLOSED" });
  });
});

describe("an index that is opened detached", () => {
  test("takes updates in memory, leaves the folder to others, and is saved there when one says so", async () => {
    const directory = newFolder();
    const wide: Embedder = stubEmbedder();
    await using owner = await CorpusIndex.build(wide, documents, { directory });
    const before = await readdir(directory);
    await using loose = await CorpusIndex.open(directory, wide, { detached: true });
    await loose.upsert([{ id: "new", text: "a new flood" }]);
    await loose.delete("1");
    expect(await readdir(directory)).toEqual(before);
    const ask = async (index: CorpusIndex) => (await index.search("flood", { k: 9 })).map(({ id }) => id).sort();
    expect(await ask(loose)).toEqual(["0", "2", "new"]);
    expect(await ask(owner)).toEqual(["0", "1", "2"]);
    // Rows that lie in memory are found by MMR, by compaction and by saving.
    expect((await loose.search("flood", { k: 3, mmr: { lambda: 0.5 } })).map(({ id }) => id).sort()).toEqual([
      "0",
      "2",
      "new",
    ]);
    const elsewhere = newFolder();
    await loose.save(elsewhere);
    await using copy = await CorpusIndex.open(elsewhere, wide);
    expect(await copy.search("flood")).toEqual(await loose.search("flood"));
    await loose.compact();
    expect(await ask(loose)).toEqual(["0", "2", "new"]);
    await loose.save(directory);
    await using again = await CorpusIndex.open(directory, wide);
    expect(await ask(again)).toEqual(["0", "2", "new"]);
    // The control: an index that isn't detached writes.
    await again.upsert([{ id: "more", text: "more" }]);
    expect((await readdir(directory)).length).toBeGreaterThan(before.length);
    // Who opened before can't write any more.
    await expect(owner.upsert([{ id: "late", text: "late" }])).rejects.toMatchObject({ code: "INDEX_LOCKED" });
  });

  test("keeps rows for an index of vectors that has none to give back", async () => {
    const directory = newFolder();
    const wide = stubEmbedder();
    await (await CorpusIndex.build(wide, documents, { directory })).close();
    const options = { detached: true, rows: "int8" } as const;
    await using loose = await CorpusIndex.open(directory, wide, options);
    await loose.upsert([{ id: "new", text: "a new flood" }]);
    await using fresh = await CorpusIndex.build(wide, [...documents, { id: "new", text: "a new flood" }]);
    const asked = { mode: "dense", k: 4 } as const;
    expect((await loose.search("flood", asked)).map(({ id, score }) => [id, score.toFixed(6)])).toEqual(
      (await fresh.search("flood", asked)).map(({ id, score }) => [id, score.toFixed(6)]),
    );
  });
});
