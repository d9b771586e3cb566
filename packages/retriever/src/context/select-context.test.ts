import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { comparable, type Embedder } from "@cde-js/core";
import { describe, expect, test } from "vitest";
import { apportion } from "./groups.js";
import { byShingles } from "./near-duplicates.js";
import { type ContextChoice, type SelectContextOptions, selectContext } from "./select-context.js";

setFlagsFromString("--expose-gc"); // for the one test that asks what is kept alive

/** `count` texts of `words` random words each, the same on every run. */
function corpus(count: number, words = 12, seed = 1): string[] {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 8;
  };
  return Array.from({ length: count }, () =>
    Array.from({ length: words }, () => (next() % 46_656).toString(36).replace(/\d/g, "x")).join(" "),
  );
}

async function* stream<T>(items: readonly T[], pieces: number): AsyncGenerator<T> {
  for (let at = 0; at < items.length; at += pieces) {
    await Promise.resolve();
    yield* items.slice(at, at + pieces);
  }
}

/** A first stage for texts "x y": the direction (x, y), with the calls counted. */
function planar(): Embedder & { embedded: string[] } {
  const embedded: string[] = [];
  const embedDocuments = async (texts: readonly string[]) => {
    embedded.push(...texts);
    const vectors = texts.map((text) => {
      const [x = 1, y = 0] = (/(-?[\d.]+) (-?[\d.]+)$/.exec(text) ?? []).slice(1).map(Number);
      return Float32Array.of(x, y);
    });
    return { vectors, truncated: [] };
  };
  return { modelId: "planar", dimensions: 2, embedded, embedDocuments } as unknown as Embedder & { embedded: string[] };
}

const letters = (n: number): string => [...String(n)].map((digit) => "abcdefghij"[Number(digit)]).join("");

describe("random", () => {
  test("chooses the same for the same seed, whatever the pieces and the order; another seed chooses others", async () => {
    const texts = corpus(500);
    const choose = async (documents: Iterable<string> | AsyncIterable<string>, seed = 3) =>
      (await selectContext(documents, { size: 20, pool: 40, seed })).chosen;
    const chosen = await choose(texts);
    expect(new Set(chosen).size).toBe(20);
    expect(await choose(stream(texts, 1))).toEqual(chosen);
    expect(await choose(stream(texts, 97))).toEqual(chosen);
    expect(await choose(texts.toReversed())).toEqual(chosen);
    expect(await choose(texts, 4)).not.toEqual(chosen);
  });

  test("holds no more than the pool of a corpus that is far larger", async () => {
    const collect = runInNewContext("gc") as () => void;
    const held: number[] = [];
    async function* large(): AsyncGenerator<string> {
      for (let i = 0; i < 8000; i++) {
        // 16 kB each, 128 MB in all.
        yield `${letters(i)} ${"filler ".repeat(2300)}`;
        if (i % 2000 !== 1999) continue;
        collect();
        held.push(process.memoryUsage().heapUsed);
      }
    }
    collect();
    const before = process.memoryUsage().heapUsed;
    const { chosen } = await selectContext(large(), { size: 5, pool: 20, nearDuplicate: false });
    expect(chosen).toHaveLength(5);
    expect(held).toHaveLength(4);
    // Twice a pool of 20 is 0.7 MB.
    expect(Math.max(...held) - before).toBeLessThan(16e6);
  });

  test("each text is equally likely, first or last, and though some come fifty times", async () => {
    const texts = corpus(40);
    const often = [...Array<string>(50).fill(texts[7] as string), ...texts];
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 600; seed++) {
      const { chosen } = await selectContext(often, { size: 4, pool: 8, seed, nearDuplicate: false });
      for (const text of chosen) counts.set(text, (counts.get(text) ?? 0) + 1);
    }
    // texts[7] is half of the corpus: boilerplate. Of the other 39, each is drawn 600 · 4/39 = 61.5 times, sd 7.4.
    expect(counts.get(texts[7] as string)).toBeUndefined();
    expect(counts.size).toBe(39);
    expect(Math.min(...counts.values())).toBeGreaterThan(61.5 - 4 * 7.4);
    expect(Math.max(...counts.values())).toBeLessThan(61.5 + 4 * 7.4);
  });

  test("leaves out empty texts, duplicates, near duplicates and boilerplate, and says how many", async () => {
    const texts = corpus(30, 20);
    const near = `${texts[0]} and a little more`; // 24 words, 22 shingles, 18 of them texts[0]'s
    const documents = [
      ...texts,
      near,
      ` ${(texts[1] as string).toUpperCase()}!!`,
      "",
      " \n",
      "--- *** ---",
      ...Array.from({ length: 12 }, (_, i) => `Page ${i} of 12`),
    ];
    const choice = await selectContext(documents, { size: 100, atMost: true });
    expect(choice.chosen).toHaveLength(30);
    expect(choice).toMatchObject({
      seen: 47,
      pool: 31,
      repeated: 0,
      leftOut: { empty: 3, duplicates: 1, nearDuplicates: 1, boilerplate: 12 },
    });
    expect(choice.examples.boilerplate).toEqual([{ text: "Page 0 of 12", copies: 12 }]);
    expect(choice.examples.duplicates).toEqual([{ text: expect.any(String), copies: 2 }]);
    expect(choice.examples.nearDuplicates[0]?.similarity).toBeCloseTo(18 / 22, 10);
    expect(choice.chosen.filter((text) => text === near || text === texts[0])).toHaveLength(1);
    const all = await selectContext(documents, { size: 100, atMost: true, nearDuplicate: false });
    expect(all.chosen).toHaveLength(31); // control: without the filter both are there
  });

  test("a corpus of nothing but repeats keeps one of each", async () => {
    const choice = await selectContext(Array<string>(100).fill("all the same"), { size: 8, atMost: true });
    expect(choice.chosen).toEqual(["all the same"]);
    expect(choice.leftOut).toMatchObject({ duplicates: 99, boilerplate: 0 });
  });

  test("near duplicates by the thousand leave one", async () => {
    const base = corpus(1, 60)[0] as string;
    const others = corpus(20, 60, 9);
    const texts = Array.from({ length: 3000 }, (_, i) => `${base} ${letters(i)}`);
    const { chosen, leftOut } = await selectContext([...texts, ...others], { size: 200, atMost: true });
    expect(chosen).toHaveLength(21);
    expect(leftOut.nearDuplicates).toBe(2999);
  });
});

describe("a corpus smaller than the size wanted", () => {
  const texts = corpus(5);
  test("is an error that names both numbers and why, unless it is allowed", async () => {
    await expect(selectContext([...texts, ""], { size: 8 })).rejects.toThrow(
      "8 context documents are wanted, 5 can be used (of 6 read: 1 empty, 0 duplicates, 0 nearly so, 0 boilerplate)",
    );
    await expect(selectContext(["", " "], { size: 8, atMost: true })).rejects.toThrow("no document can be used");
    await expect(selectContext([], { size: 8, repeat: true })).rejects.toThrow("of 0 read");
  });

  test("is taken whole with atMost, and repeated about equally often with repeat", async () => {
    expect((await selectContext(texts, { size: 8, atMost: true })).chosen).toHaveLength(5);
    const { chosen, repeated } = await selectContext(texts, { size: 13, repeat: true });
    expect(repeated).toBe(8);
    const counts = texts.map((text) => chosen.filter((other) => other === text).length);
    expect(counts.sort()).toEqual([2, 2, 3, 3, 3]);
    expect((await selectContext(texts, { size: 13, repeat: true })).chosen).toEqual(chosen);
  });
});

describe("stratified", () => {
  const documents = corpus(1000).map((text, i) => ({
    id: `${i}`,
    text,
    metadata: { source: { year: i < 700 ? 2020 : i < 999 ? 2021 : "old" } },
  }));
  type Documents = (typeof documents)[number];
  const choose = (options: Partial<SelectContextOptions<Documents>>): Promise<ContextChoice<Documents>> =>
    selectContext(documents, { size: 20, strategy: "stratified", stratum: "source.year", ...options });

  test("takes of each stratum in proportion, and at least one of a stratum that the pool has missed", async () => {
    // One for each, then 17 in the proportion 700 : 299 : 1 is 11.9, 5.083 and 0.017: 12, 5 and 0.
    const shares = [
      { name: "2020", size: 700, chosen: 13 },
      { name: "2021", size: 299, chosen: 6 },
      { name: "old", size: 1, chosen: 1 },
    ];
    for (const seed of [0, 1, 2]) {
      const choice = await choose({ seed });
      expect(choice.groups).toEqual(shares);
      expect(choice.chosen.filter(({ metadata }) => metadata.source.year === "old")).toHaveLength(1);
    }
    // Control: drawn at random, the one of 1,000 is nearly always missed.
    const random = await selectContext(documents, { size: 20 });
    expect(random.chosen.some(({ metadata }) => metadata.source.year === "old")).toBe(false);
  });

  test("what a stratum can't give, the others do", async () => {
    const few = [...documents.slice(0, 4), ...Array.from({ length: 8 }, () => ({ ...documents[999] }))] as Documents[];
    const options = { size: 5, strategy: "stratified", stratum: "source.year" } as const;
    expect((await selectContext(few, options)).groups).toEqual([
      { name: "2020", size: 4, chosen: 4 },
      { name: "old", size: 8, chosen: 1 },
    ]);
  });

  test("bounds the number of strata, and has one for documents without the field", async () => {
    await expect(choose({ stratum: (document) => document.id, maxStrata: 10 })).rejects.toThrow("more than 10 strata");
    expect((await choose({ stratum: "nowhere.at.all" })).groups).toEqual([{ name: "(none)", size: 1000, chosen: 20 }]);
    await expect(choose({ stratum: "source" })).rejects.toThrow("position 0 is of type object, expected a string");
  });
});

describe("by vectors", () => {
  // Three bundles of directions: 60 near 0°, 30 near 90°, 10 near 180°, each spread over 20°.
  const at = (degrees: number) => `${Math.cos((degrees * Math.PI) / 180)} ${Math.sin((degrees * Math.PI) / 180)}`;
  const bundle = (middle: number, count: number) =>
    Array.from(
      { length: count },
      (_, i) => `${letters(middle + 1000 * i)} ${at(middle - 10 + (20 * i) / (count - 1))}`,
    );
  const texts = [...bundle(0, 60), ...bundle(90, 30), ...bundle(180, 10)];
  const angleOf = (text: string) => {
    const [x = 0, y = 0] = text.split(" ").slice(1).map(Number);
    return Math.round((Math.atan2(y, x) * 180) / Math.PI);
  };
  const bundleOf = (text: string) => Math.round(Math.abs(angleOf(text)) / 90);

  test("clusters: in proportion or equally many, those nearest to the centroids", async () => {
    const options = { size: 10, strategy: "clusters", clusters: 3, nearDuplicate: false } as const;
    const counts = ({ chosen }: ContextChoice<string>) =>
      [0, 1, 2].map((which) => chosen.filter((text) => bundleOf(text) === which).length);
    const proportional = await selectContext(texts, { ...options, embedder: planar() });
    expect(counts(proportional)).toEqual([6, 3, 1]);
    expect(proportional.groups.map(({ size, chosen }) => [size, chosen])).toEqual([
      [60, 6],
      [30, 3],
      [10, 1],
    ]);
    // Nearest: of 60 over 20°, six lie within ±1°.
    for (const text of proportional.chosen.filter((text) => bundleOf(text) === 0)) {
      expect(Math.abs(angleOf(text))).toBeLessThanOrEqual(1);
    }
    const equal = await selectContext(texts, { ...options, picks: "equal", embedder: planar() });
    expect(counts(equal).sort()).toEqual([3, 3, 4]);
    expect((await selectContext(stream(texts, 7), { ...options, embedder: planar() })).chosen).toEqual(
      proportional.chosen,
    );
  });

  test("clusters: those too near to a chosen one are passed over", async () => {
    const options = { size: 6, strategy: "clusters", clusters: 3, nearDuplicate: 0.9999 } as const; // 0.81°
    const { chosen, leftOut } = await selectContext(texts, { ...options, embedder: planar() });
    const angles = chosen.map(angleOf);
    for (const [i, a] of angles.entries()) {
      for (const b of angles.slice(i + 1)) expect(Math.abs(a - b)).toBeGreaterThan(0);
    }
    expect(leftOut.nearDuplicates).toBeGreaterThan(0);
  });

  test("farthest: the first three are one of each bundle, though one holds most", async () => {
    for (const seed of [0, 1, 2, 3]) {
      const options = { size: 3, strategy: "farthest", seed, embedder: planar() } as const;
      const { chosen } = await selectContext(texts, options);
      expect(chosen.map(bundleOf).sort()).toEqual([0, 1, 2]);
    }
  });

  test("farthest ends where all the rest is like what is chosen", async () => {
    const options = { strategy: "farthest", embedder: planar(), nearDuplicate: 0.9 } as const; // 26°: a bundle is one
    const choice = await selectContext(texts, { ...options, size: 20, atMost: true });
    expect(choice.chosen).toHaveLength(3);
    expect(choice.leftOut.nearDuplicates).toBe(97);
    await expect(selectContext(texts, { ...options, size: 20 })).rejects.toThrow("20 context documents are wanted, 3");
  });

  test("embeds no more than the pool, and refuses vectors that are none", async () => {
    const embedder = planar();
    await selectContext(texts, { size: 2, pool: 15, strategy: "farthest", embedder, nearDuplicate: false });
    expect(embedder.embedded).toHaveLength(15);
    const zero = selectContext(["a 0 0", "b 1 0"], { size: 2, strategy: "farthest", embedder });
    await expect(zero).rejects.toThrow("is zero everywhere");
  });
});

describe("bad input", () => {
  test.each([
    [{ size: 0 }, "size must be a positive integer, got 0"],
    [{ size: 1.5 }, "got 1.5"],
    [{ size: 5, pool: 4 }, "a pool of 4 texts can't give 5"],
    [{ size: 5, strategy: "best" as "random" }, 'no strategy "best"'],
    [{ size: 5, strategy: "clusters" as const }, "needs vectors"],
    [{ size: 5, strategy: "stratified" as const }, "without a stratum"],
    [{ size: 5, stratum: "year" }, "with a stratum"],
    [{ size: 5, atMost: true, repeat: true }, "exclude each other"],
    [{ size: 5, nearDuplicate: 1.1 }, "got 1.1"],
    [{ size: 5, seed: -1 }, "seed"],
  ])("refuses %o", async (options, message) => {
    await expect(selectContext(["a"], options)).rejects.toThrow(message);
  });

  test("names the position of what has no text", async () => {
    const broken = ["a", { text: 7 }] as unknown as string[];
    await expect(selectContext(broken, { size: 1 })).rejects.toMatchObject({ position: 1 });
    await expect(selectContext([null] as unknown as string[], { size: 1 })).rejects.toMatchObject({ position: 0 });
  });

  test("stops when it is aborted", async () => {
    const stop = new AbortController();
    async function* endless() {
      for (let i = 0; ; i++) yield `text ${letters(i)}`;
    }
    setTimeout(() => stop.abort(new Error("enough")), 30);
    await expect(selectContext(endless(), { size: 4, signal: stop.signal })).rejects.toThrow("enough");
  });
});

test("what makes texts the same: letters in order, and where numbers stand", () => {
  expect(comparable("  Ｐage 3, of 10:\n“Straße”! ")).toBe("page 0 of 0 straße");
  expect(comparable("--- *** ---")).toBe("");
  expect(comparable("page three")).not.toBe(comparable("page four"));
});

test("shingles tell texts in scripts without spaces apart", () => {
  const base = "押し寄せる洪水の被害は借主が負担し屋根の修理は貸主が行うものとする";
  const filter = byShingles(
    [base, `${base}。`, "全く別の文章がここに書かれており前のものとは何の関係もありません"],
    0.8,
  );
  expect([0, 1, 2].map((n) => filter.take(n)?.like)).toEqual([undefined, 0, undefined]);
});

test("apportion shares by largest remainders and leaves nobody out where it can", () => {
  expect(apportion(10, [6, 3, 1])).toEqual([6, 3, 1]);
  expect(apportion(10, [1, 1, 1])).toEqual([4, 3, 3]);
  expect(apportion(4, [97, 1, 1, 1], 1)).toEqual([1, 1, 1, 1]);
  expect(apportion(3, [97, 1, 1, 1], 1)).toEqual([3, 0, 0, 0]);
});
