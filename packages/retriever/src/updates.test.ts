import { mkdtemp, readdir, readFile, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Embedder } from "@cde-js/core";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CorpusIndex } from "./corpus-index.js";
import type { BuildOptions } from "./corpus-index-options.js";
import type { CorpusDocument } from "./documents.js";
import type { Hit } from "./search/options.js";
import { naiveVectorIndex, spectralStub } from "./spectral-stub.test.support.js";
import { SimulatedFileSystem, systemError } from "./storage/simulated-file-system.test.support.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-updates-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
let folders = 0;
const newFolder = (): string => join(folder, `i${folders++}`);

const corpus: CorpusDocument[] = [
  { id: "flood", title: "Lease", text: "The tenant pays for flood damage.", metadata: { year: 2020, tags: ["law"] } },
  { id: "roof", text: "The landlord pays for the roof.", metadata: { year: 2021 } },
  { id: "pets", text: "Cats are welcome. Dogs must be on a lead.", metadata: { year: 2024 } },
];

async function all(index: CorpusIndex, options = {}): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of index.documents(options)) documents.push(document);
  return documents;
}

const stub = spectralStub();
const bound = stub.withContext(await stub.buildContext(corpus.map(({ text }) => text)));

describe.each(["in memory", "in a folder"])("an index %s", (kind) => {
  const build = async (
    options: BuildOptions = {},
    embedder = bound,
  ): Promise<{ index: CorpusIndex; reopen: () => Promise<CorpusIndex> }> => {
    const directory = kind === "in memory" ? undefined : newFolder();
    const index = await CorpusIndex.build(embedder, corpus, { ...options, ...(directory ? { directory } : {}) });
    const { rows, vectorIndex } = options;
    const reopen = async (): Promise<CorpusIndex> => {
      if (!directory) return index;
      await index.close();
      return await CorpusIndex.open(directory, stub, { rows, vectorIndex });
    };
    return { index, reopen };
  };

  test("takes new documents, replaces texts and embeds nothing that is unchanged", async () => {
    const { index, reopen } = await build();
    stub.embedded.length = 0;
    const report = await index.upsert([
      { ...(corpus[0] as CorpusDocument), metadata: { year: 2030 } },
      corpus[1] as CorpusDocument,
      { id: "pets", text: "No dogs at all." },
      { id: "bikes", text: "Bicycles stand in the yard." },
    ]);
    expect(report).toMatchObject({ added: 1, replaced: 1, metadataChanged: 1, unchanged: 1, embedded: 2 });
    expect(stub.embedded).toEqual(["No dogs at all.", "Bicycles stand in the yard."]);
    const expected = [
      { ...corpus[0], metadata: { year: 2030 } },
      corpus[1],
      { id: "pets", text: "No dogs at all." },
      { id: "bikes", text: "Bicycles stand in the yard." },
    ];
    const again = await reopen();
    for (const one of new Set([again])) {
      expect(await all(one)).toEqual(expected);
      expect([one.count, one.passageCount]).toEqual([4, 4]);
      expect((await one.search("bicycles in the yard", { k: 1 }))[0]).toMatchObject({ id: "bikes" });
      expect((await one.search("cats", { mode: "lexical" })).map(({ id }) => id)).toEqual([]);
      expect((await one.search("dogs", { mode: "lexical" })).map(({ id }) => id)).toEqual(["pets"]);
      expect(await one.search("anything", { mode: "dense", k: 100 })).toHaveLength(4);
      const filter = { must: [{ key: "year", range: { gte: 2025 } }] };
      expect((await one.search("flood", { filter })).map(({ id }) => id)).toEqual(["flood"]);
    }
    await again.close();
  });

  test("embeds a text again under another title, and not under the same", async () => {
    const { index, reopen } = await build();
    const titled = { ...(corpus[0] as CorpusDocument), title: "Water" };
    expect(await index.upsert([titled])).toMatchObject({ replaced: 1, embedded: 1 });
    stub.embedded.length = 0;
    expect(await index.upsert([titled])).toMatchObject({ unchanged: 1, embedded: 0 });
    expect(await index.upsert([{ ...titled, title: "Fire" }])).toMatchObject({ replaced: 1, embedded: 1 });
    expect(stub.embedded).toEqual([`Fire ${titled.text}`]);
    const again = await reopen();
    expect((await again.get(titled.id))?.title).toBe("Fire");
    expect((await again.search("water", { mode: "lexical" })).map(({ id }) => id)).not.toContain(titled.id);
    await again.close();
  });

  test("deletes by id and by filter, and takes a deleted id again", async () => {
    const { index, reopen } = await build();
    expect(await index.delete({ ids: ["roof", "nobody", "roof"] })).toBe(1);
    expect(await index.delete({ filter: { must: [{ key: "tags", match: { value: "law" } }] } })).toBe(1);
    expect(await index.get("flood")).toBeUndefined();
    await index.upsert([{ id: "roof", text: "A new roof." }]);
    const again = await reopen();
    expect((await all(again)).map(({ id }) => id)).toEqual(["pets", "roof"]);
    expect((await again.search("landlord roof", { k: 10, mode: "dense" })).map(({ id }) => id).sort()).toEqual([
      "pets",
      "roof",
    ]);
    expect(await again.delete({ filter: {} })).toBe(2);
    expect([again.count, again.passageCount, await again.search("roof")]).toEqual([0, 0, []]);
    await again.upsert(corpus);
    expect(again.count).toBe(3);
    await again.close();
  });

  test("changes metadata and embeds nothing; fields that are undefined go", async () => {
    const { index, reopen } = await build();
    stub.embedded.length = 0;
    expect(await index.updateMetadata("flood", { year: 1999, tags: undefined, new: { deep: [1] } })).toBe(1);
    expect(await index.updateMetadata(["roof", "pets"], { seen: true })).toBe(2);
    expect(await index.updateMetadata({ filter: { must: [{ key: "seen", match: { value: true } }] } }, { n: 1 })).toBe(
      2,
    );
    expect(stub.embedded).toEqual([]);
    const again = await reopen();
    expect((await again.get("flood"))?.metadata).toEqual({ year: 1999, new: { deep: [1] } });
    expect(await all(again, { filter: { must: [{ key: "n", match: { value: 1 } }] } })).toHaveLength(2);
    expect(
      (await again.search("roof", { mode: "lexical", filter: { must: [{ key: "n", match: { value: 1 } }] } }))[0],
    ).toMatchObject({
      id: "roof",
      metadata: { year: 2021, seen: true, n: 1 },
    });
    await again.close();
  });

  test("refuses bad updates with their place, and an array of them wholly", async () => {
    const { index } = await build();
    const good = { id: "good", text: "A good one." };
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    for (const [bad, message] of [
      [{ id: "x", text: 7 }, /upsert: the document at position 1 \(id "x"\) has a text that is a number/],
      [{ id: "good", text: "again" }, /upsert: the document at position 1 has the id "good" of the one at 0/],
      [{ id: "x", text: "", metadata: circle }, /nested deeper/],
      [{ id: "\ud800", text: "" }, /lone surrogate/],
    ] as const) {
      await expect(index.upsert([good, bad as never])).rejects.toMatchObject({
        code: "INVALID_INPUT",
        position: 1,
        message: expect.stringMatching(message),
      });
    }
    expect(index.count).toBe(3);
    // Also where the bad one stands behind slices that could have been written.
    const many = Array.from({ length: 1500 }, (_, i) => ({ id: `many${i}`, text: `Number ${i}.` }));
    await expect(index.upsert([...many, { id: "many0", text: "again" }])).rejects.toMatchObject({ position: 1500 });
    expect(index.count).toBe(3);
    await expect(index.upsert("abc" as never)).rejects.toThrow(/must be an iterable/);
    await expect(index.updateMetadata("nobody", {})).rejects.toThrow(/no document with the id "nobody"/);
    await expect(index.updateMetadata("flood", { at: new Date(0) } as never)).rejects.toThrow(/metadata\.at is a Date/);
    await expect(index.updateMetadata("flood", [] as never)).rejects.toThrow(/must be an object/);
    await expect(index.delete({} as never)).rejects.toThrow(/by \{ ids \} or by \{ filter \}/);
    await expect(index.delete({ ids: "flood" } as never)).rejects.toThrow(/array of strings/);
    await expect(index.delete({ filter: { must: [{ key: "a", like: 1 }] } as never })).rejects.toMatchObject({
      code: "INVALID_FILTER",
    });
    expect(await all(index)).toEqual(corpus);
    await index.close();
    for (const call of [
      index.upsert([good]),
      index.delete({ ids: [] }),
      index.compact(),
      index.recontext(),
      index.rollback(),
      index.drift(),
    ]) {
      await expect(call).rejects.toMatchObject({ code: "INDEX_CLOSED" });
    }
  });

  test("keeps ids of any Unicode and a text of 10 MB through updates", async () => {
    const { index, reopen } = await build({ split: false, lexical: false, vectorIndex: naiveVectorIndex });
    const ids = ["../../etc/passwd", "ü 🐈\u0000\n", "__proto__", "constructor", "مرحبا", "a".repeat(4096)];
    const long = `${"a".repeat(9999)} `.repeat(1000);
    await index.upsert([...ids.map((id) => ({ id, text: `Text of ${id}` })), { id: "long", text: long }]);
    await index.updateMetadata("__proto__", { ["__proto__"]: 1, own: 2 });
    const again = await reopen();
    for (const id of ids) expect((await again.get(id))?.text).toBe(`Text of ${id}`);
    expect((await again.get("long"))?.text === long).toBe(true);
    await again.compact();
    expect((await again.get("long"))?.text === long).toBe(true);
    await again.close();
  });

  test("answers as an index that was built anew from the same documents, whatever was done before", async () => {
    const id = fc.constantFrom("a", "b", "c", "d", "flood", "roof", "pets");
    const word = fc.constantFrom("roof", "flood", "cat", "dog", "rent", "river");
    const text = fc.array(word, { minLength: 1, maxLength: 12 }).map((words) => `${words.join(" ")}.`);
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("upsert" as const),
        documents: fc.uniqueArray(fc.record({ id, text }), { selector: (one) => one.id, maxLength: 4 }),
      }),
      fc.record({ kind: fc.constant("delete" as const), ids: fc.array(id, { maxLength: 3 }) }),
      fc.constant({ kind: "compact" as const }),
      fc.constant({ kind: "recontext" as const }),
      fc.constant({ kind: "reopen" as const }),
    );
    const options = { vectorIndex: naiveVectorIndex, split: { maxTokens: 6 } };
    const plain = ({ id, passage, score, scores }: Hit) => ({
      id,
      passage,
      score: score.toFixed(5),
      dense: scores.dense?.toFixed(5),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
        let { index } = await build(options);
        const directory = folders - 1;
        for (const one of steps) {
          if (one.kind === "upsert") await index.upsert(one.documents);
          else if (one.kind === "delete") await index.delete({ ids: one.ids });
          else if (one.kind === "compact") await index.compact();
          else if (one.kind === "recontext") {
            if (index.count > 1) await index.recontext({ contextSize: 4, seed: index.count });
          } else if (kind === "in a folder") {
            await index.close();
            index = await CorpusIndex.open(join(folder, `i${directory}`), stub, options as never);
          }
        }
        await using fresh = await CorpusIndex.build(index.embedder, await all(index), options);
        expect(await all(fresh)).toEqual(await all(index));
        for (const query of ["roof", "flood damage of the river", "cat dog"]) {
          for (const asked of [
            { mode: "dense" as const, k: 50 },
            { mode: "dense" as const, k: 3, offset: 2 },
            { mode: "dense" as const, mmr: { lambda: 0.5 } },
          ]) {
            expect((await index.search(query, asked)).map(plain)).toEqual(
              (await fresh.search(query, asked)).map(plain),
            );
          }
          const words = async (one: CorpusIndex) =>
            (await one.search(query, { mode: "lexical", k: 50 })).map((hit) => `${hit.id} ${hit.passage.start}`).sort();
          expect(await words(index)).toEqual(await words(fresh));
        }
        await index.close();
      }),
      { numRuns: process.env.CDE_FULL === "1" ? 300 : 25, seed: 7 },
    );
  }, 300_000);
});

test("frozen: documents added later are weighed by the average length of the generation, a recontext takes a new one", async () => {
  const lexicalScore = async (index: CorpusIndex): Promise<number> =>
    (await index.search("roof", { mode: "lexical", k: 1 }))[0]?.score as number;
  const short = [
    { id: "a", text: "roof one" },
    { id: "b", text: "flood two" },
  ];
  const long = { id: "c", text: `river ${"word ".repeat(50)}` };
  const options = { vectorIndex: naiveVectorIndex, split: false } as const;
  await using index = await CorpusIndex.build(stub.withoutContext(), short, options);
  await index.upsert([long]);
  // BM25 by hand: N = 3, n = 1, count 1, length 2; the average length is still 2.
  const idf = Math.log(1 + (3 - 1 + 0.5) / (1 + 0.5));
  const score = (average: number): number => (idf * 1.9) / (1 + 0.9 * (1 - 0.4 + (0.4 * 2) / average));
  expect(await lexicalScore(index)).toBeCloseTo(score(2), 6);
  await index.compact();
  expect(await lexicalScore(index)).toBeCloseTo(score(2), 6);
  await index.recontext();
  // (2 + 2 + 51) / 3
  expect(await lexicalScore(index)).toBeCloseTo(score(55 / 3), 6);
  await index.rollback();
  expect(await lexicalScore(index)).toBeCloseTo(score(2), 6);
});

describe("writers and readers of a folder", () => {
  test("one writes, a second is refused, readers see what was acknowledged when they opened", async () => {
    const directory = newFolder();
    await using writer = await CorpusIndex.build(bound, corpus, { directory });
    await using early = await CorpusIndex.open(directory, stub);
    await writer.upsert([{ id: "new", text: "Something new." }]);
    await using late = await CorpusIndex.open(directory, stub);
    await using other = await CorpusIndex.open(directory, stub);
    expect([early.count, late.count, other.count]).toEqual([3, 4, 4]);
    expect(await late.search("something new")).toEqual(await other.search("something new"));
    await expect(late.upsert(corpus)).rejects.toMatchObject({ code: "INDEX_LOCKED", pid: process.pid });
    await expect(late.save(directory)).rejects.toMatchObject({ code: "INDEX_LOCKED" });
    await writer.compact();
    // A reader of the generation before goes on answering.
    expect((await late.search("something new", { k: 1 }))[0]).toMatchObject({ id: "new" });
    await writer.close();
    // What they hold is of before: they may not write on it.
    await expect(early.upsert(corpus)).rejects.toMatchObject({ code: "INDEX_CHANGED", path: directory });
    const next = await CorpusIndex.open(directory, stub);
    expect(await next.delete({ ids: ["new"] })).toBe(1);
    await next.close();
    await expect(other.delete({ ids: ["flood"] })).rejects.toMatchObject({ code: "INDEX_CHANGED" });
  });

  test("a read-only disk is opened and searched, and refuses updates", async () => {
    const disk = new SimulatedFileSystem();
    const options = { directory: "index", fileSystem: disk, vectorIndex: naiveVectorIndex };
    await (await CorpusIndex.build(bound, corpus, options)).close();
    disk.beforeOperation = (_, name) => {
      if (!["list", "open"].includes(name)) throw systemError("EROFS", name);
    };
    await using index = await CorpusIndex.open("index", stub, { fileSystem: disk, vectorIndex: naiveVectorIndex });
    expect(await index.search("flood", { k: 1 })).toMatchObject([{ id: "flood" }]);
    for (const call of [index.upsert([{ id: "x", text: "x" }]), index.compact(), index.delete({ ids: ["flood"] })]) {
      await expect(call).rejects.toMatchObject({
        code: "STORAGE",
        errno: "EROFS",
        message: expect.stringMatching(/read-only/),
      });
    }
    expect(index.count).toBe(3);
  });

  test("a compaction of which nobody knows whether it counts takes no further update, and loses none", async () => {
    const disk = new SimulatedFileSystem();
    const options = { directory: "index", fileSystem: disk, vectorIndex: naiveVectorIndex };
    const index = await CorpusIndex.build(bound, corpus, options);
    await index.upsert([{ id: "x", text: "One more." }]);
    let renamed = false;
    disk.beforeOperation = (_, name) => {
      // The new manifest has its name, and whether a crash would keep it isn't known.
      if (renamed && name === "syncDirectory") throw systemError("EIO", name);
      renamed ||= name === "rename";
    };
    await expect(index.compact()).rejects.toMatchObject({ code: "STORAGE", errno: "EIO" });
    expect(renamed).toBe(true);
    disk.beforeOperation = () => {};
    await expect(index.upsert([{ id: "y", text: "Another." }])).rejects.toMatchObject({ code: "STORAGE" });
    expect((await index.search("flood", { k: 1 }))[0]?.id).toBe("flood");
    await index.close();
    await using again = await CorpusIndex.open("index", stub, { fileSystem: disk, vectorIndex: naiveVectorIndex });
    expect((await all(again)).map(({ id }) => id)).toEqual(["flood", "roof", "pets", "x"]);
    expect(await again.upsert([{ id: "y", text: "Another." }])).toMatchObject({ added: 1 });
  });

  test("a link in the place of a log is refused", async () => {
    const directory = newFolder();
    const index = await CorpusIndex.build(bound, corpus, { directory });
    await index.delete({ ids: ["flood"] });
    await index.close();
    const log = (await readdir(directory)).find((name) => name.startsWith("log-")) as string;
    const elsewhere = join(folder, "elsewhere");
    await writeFile(elsewhere, await readFile(join(directory, log)));
    await unlink(join(directory, log));
    await symlink(elsewhere, join(directory, log));
    await expect(CorpusIndex.open(directory, stub)).rejects.toThrow(/not a regular file/);
  });

  test("searches go on while a generation is renewed, and an update waits for it", async () => {
    const directory = newFolder();
    const many = Array.from({ length: 3000 }, (_, i) => ({ id: `n${i}`, text: `Number ${i}.` }));
    await using index = await CorpusIndex.build(bound, many, { directory, split: false, lexical: false });
    const order: string[] = [];
    const renewed = index.recontext({ seed: 4 }).then(() => order.push("recontext"));
    const updated = index.upsert([{ id: "late", text: "Late." }]).then(() => order.push("upsert"));
    let searches = 0;
    while (order.length === 0) {
      expect((await index.search("Number 77.", { k: 1 }))[0]).toMatchObject({ id: "n77" });
      searches++;
    }
    await Promise.all([renewed, updated]);
    expect(order).toEqual(["recontext", "upsert"]);
    expect(searches).toBeGreaterThan(1);
    expect(index.count).toBe(3001);
  });

  test("base vectors that were damaged are noticed before a new generation is made of them", async () => {
    const directory = newFolder();
    const index = await CorpusIndex.build(bound, corpus, { directory });
    await index.close();
    const path = join(directory, "vectors-000001.f32");
    const bytes = await readFile(path);
    bytes.writeUInt8(bytes.readUInt8(9) ^ 1, 9);
    await writeFile(path, bytes);
    await using opened = await CorpusIndex.open(directory, stub);
    for (const call of [opened.compact(), opened.recontext()])
      await expect(call).rejects.toMatchObject({ code: "CORRUPT_FILE" });
    expect((await opened.search("flood", { k: 1 }))[0]).toMatchObject({ id: "flood" });
    expect((await readdir(directory)).filter((name) => name.includes("000002"))).toEqual([]);
  });
});

describe("a compaction by itself", () => {
  test("comes when much was deleted, and loses nothing", async () => {
    const disk = new SimulatedFileSystem();
    const many = Array.from({ length: 9000 }, (_, i) => ({ id: `n${i}`, text: `Number ${i}.` }));
    const options = { fileSystem: disk, vectorIndex: naiveVectorIndex };
    const build = { ...options, directory: "index", split: false, lexical: false } as const;
    const index = await CorpusIndex.build(bound, many, build);
    await index.delete({ ids: many.slice(0, 8000).map(({ id }) => id) });
    // It runs before the next update.
    await index.upsert([{ id: "last", text: "The last." }]);
    const names = [...disk.files().keys()];
    expect(names.some((name) => name.endsWith("vectors-000002.f32"))).toBe(true);
    expect(names.some((name) => name.endsWith("vectors-000001.f32"))).toBe(false);
    expect(index.compactionError).toBeUndefined();
    expect((await index.search("Number 8500.", { k: 1 }))[0]).toMatchObject({ id: "n8500" });
    await index.close();
    await using again = await CorpusIndex.open("index", stub, options);
    expect(again.count).toBe(1001);
  });
});

describe("an interrupted build", () => {
  const many = Array.from({ length: 5000 }, (_, i) => ({ id: `n${i}`, text: `Number ${i} of many.`, metadata: { i } }));
  const options = { split: false, lexical: false, vectorIndex: naiveVectorIndex } as const;

  /** An embedder whose power fails at a call, and how many texts it got. */
  function failing(embedder: Embedder, failAt = Number.POSITIVE_INFINITY): { embedder: Embedder; texts: () => number } {
    let [calls, texts] = [0, 0];
    const base = embedder.base as Embedder;
    const embedDocuments: Embedder["embedDocuments"] = async (given, asked) => {
      if (++calls === failAt) throw new Error("the power went");
      texts += given.length;
      return await base.embedDocuments(given, asked);
    };
    return { embedder: { ...embedder, base: { ...base, embedDocuments } }, texts: () => texts };
  }

  test("is gone on with, and ends with the same files as one that wasn't interrupted", async () => {
    const [whole, parts] = [newFolder(), newFolder()];
    await (await CorpusIndex.build(bound, many, { ...options, directory: whole })).close();
    const first = failing(bound, 3);
    await expect(CorpusIndex.build(first.embedder, many, { ...options, directory: parts })).rejects.toThrow(
      "the power went",
    );
    expect(first.texts()).toBe(1024);
    expect(await readdir(parts)).toEqual(["build-000001-000001.bin"]);
    const second = failing(bound);
    await using index = await CorpusIndex.build(second.embedder, many, { ...options, directory: parts });
    expect(second.texts()).toBe(3976);
    expect(index.report).toMatchObject({ documents: 5000, resumed: 1024 });
    for (const kind of ["documents", "vectors", "rows"]) {
      const [a, b] = await Promise.all(
        [whole, parts].map(async (path) => {
          const name = (await readdir(path)).find((file) => file.startsWith(`${kind}-`)) as string;
          return await readFile(join(path, name));
        }),
      );
      expect(a?.equals(b as Buffer), kind).toBe(true);
    }
    expect((await readdir(parts)).filter((name) => name.startsWith("build-"))).toEqual([]);
  }, 60_000);

  test("takes nothing over from a document that has changed since, nor from other passages", async () => {
    const directory = newFolder();
    await expect(CorpusIndex.build(failing(bound, 2).embedder, many, { ...options, directory })).rejects.toThrow(
      "power",
    );
    const changed = many.map((one, i) => (i % 1000 === 7 ? { ...one, text: `Changed ${i}.` } : one)).toReversed();
    await expect(CorpusIndex.build(bound, changed, { ...options, directory, split: { maxTokens: 4 } })).rejects.toThrow(
      /texts split by false.*\{ resume: false \}/,
    );
    const again = failing(bound);
    await using index = await CorpusIndex.build(again.embedder, changed, { ...options, directory });
    // Of the first 512, one has changed.
    expect(index.report?.resumed).toBe(511);
    expect(again.texts()).toBe(5000 - 511);
    await using fresh = await CorpusIndex.build(bound, changed, options);
    for (const query of ["Changed 7.", "Number 8 of many."]) {
      const hits = (one: CorpusIndex) => one.search(query, { k: 3 });
      expect(await hits(index)).toEqual(await hits(fresh));
    }
  }, 60_000);

  test("is refused for another model and for vectors that depend on their batch, and can be discarded", async () => {
    const directory = newFolder();
    await expect(CorpusIndex.build(failing(bound, 2).embedder, many, { ...options, directory })).rejects.toThrow(
      "power",
    );
    const other: Embedder = { ...stub.withoutContext(), fingerprint: "another" };
    const few = many.slice(0, 5);
    await expect(CorpusIndex.build(other, few, { ...options, directory })).rejects.toMatchObject({
      code: "FINGERPRINT_MISMATCH",
      expected: stub.withoutContext().fingerprint,
      actual: "another",
    });
    const dynamic: Embedder = { ...stub.withoutContext(), batchInvariant: false };
    await expect(CorpusIndex.build(dynamic, few, { ...options, directory })).rejects.toThrow(
      /depend on their batch.*\{ resume: false \}/,
    );
    await using index = await CorpusIndex.build(other, few, { ...options, directory, resume: false });
    expect(index.count).toBe(5);
    expect((await readdir(directory)).filter((name) => name.startsWith("build-"))).toEqual([]);
  }, 60_000);
});

test("a splitter of one's own is needed again to add documents, and cuts as it did", async () => {
  const directory = newFolder();
  const lines = ({ text }: CorpusDocument) => [
    { start: 0, end: text.indexOf(" ") },
    { start: text.indexOf(" ") + 1, end: text.length },
  ];
  await (await CorpusIndex.build(bound, corpus, { directory, split: lines })).close();
  const without = await CorpusIndex.open(directory, stub);
  await expect(without.upsert([{ id: "x", text: "a b" }])).rejects.toThrow(/split: yourSplitter/);
  await without.close();
  await using index = await CorpusIndex.open(directory, stub, { split: lines });
  expect(await index.upsert([corpus[0] as CorpusDocument, { id: "x", text: "left right" }])).toMatchObject({
    added: 1,
    unchanged: 1,
  });
  expect(index.passageCount).toBe(8);
});
