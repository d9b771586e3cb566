import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  CorpusIndex,
  ExactIndex,
  type GraphReport,
  HnswIndex,
  hnsw,
  hnswAvailability,
  labelSet,
} from "@cde-js/retriever";
import { expect, test } from "vitest";
import { randomVectors } from "../support/random-vectors.js";
import { stubEmbedder } from "../support/stub-embedder.js";
import { temporaryFolder } from "../support/vectors.js";
import { vectorIndexContract } from "./vector-index.js";

const availability = await hnswAvailability();
const skip = availability.state === "ready" ? undefined : `hnswlib-node is ${availability.state}`;
const needs = skip === undefined ? "" : ` (skipped: ${skip})`;
const graphTest = test.skipIf(skip !== undefined);
const folder = temporaryFolder();

const labelsTo = (count: number): Uint32Array => Uint32Array.from({ length: count }, (_, i) => i);
/** A graph is asked however few the rows are. */
const always = { scanShare: Number.POSITIVE_INFINITY };

vectorIndexContract("the HNSW index, by its graph", {
  skip,
  // Every search waits for the graph first; otherwise all rows would be compared.
  create: async (dimensions) => waitingForGraph(await HnswIndex.create(dimensions, { ...always, ef: 300 })),
  tolerance: 1e-6,
});
vectorIndexContract("the HNSW index, before its graph is there and where the graph does not pay", {
  skip,
  create: (dimensions) => HnswIndex.create(dimensions),
  tolerance: 1e-6,
});

function waitingForGraph(index: HnswIndex): HnswIndex {
  const upsert = index.upsert.bind(index);
  index.upsert = async (labels, vectors) => {
    await upsert(labels, vectors);
    await index.ready();
  };
  return index;
}

graphTest(`finds most of the true ten by the graph, with their exact scores${needs}`, async () => {
  const [count, dimensions] = [6000, 32];
  const vectors = randomVectors(count, dimensions, 3);
  await using exact = new ExactIndex(dimensions);
  await using graph = await HnswIndex.create(dimensions, { ...always, ef: 150 });
  await using poor = await HnswIndex.create(dimensions, { ...always, m: 2, efConstruction: 2, ef: 10 });
  for (const index of [exact, graph, poor]) await index.upsert(labelsTo(count), vectors);
  expect(await graph.ready()).toEqual({
    rows: count,
    source: "built",
    reason: undefined,
    saved: false,
    fault: undefined,
  });
  await poor.ready();
  const found = { graph: 0, poor: 0 };
  for (let q = 0; q < 50; q++) {
    const query = randomVectors(1, dimensions, 100 + q);
    const truth = new Map((await exact.search(query, 10)).map(({ label, score }) => [label, score]));
    for (const [name, index] of Object.entries({ graph, poor })) {
      const hits = await index.search(query, 10);
      expect(hits).toHaveLength(10);
      for (const { label, score } of hits) {
        const own = truth.get(label);
        if (own === undefined) continue;
        found[name as keyof typeof found]++;
        expect(Math.abs(score - own)).toBeLessThan(1e-6);
      }
    }
  }
  expect(found.graph).toBeGreaterThanOrEqual(485);
  // The control: it is the graph that is asked. One of hardly any links finds less.
  expect(found.poor).toBeLessThan(450);
});

graphTest(`a filter that has to do with the query still gets its k, by comparing all rows${needs}`, async () => {
  const [count, dimensions] = [3000, 8];
  const vectors = randomVectors(count, dimensions, 4);
  // Allowed are the rows that point away from the query: no candidate of the graph is among them.
  const query = randomVectors(1, dimensions, 5);
  const dots = [...labelsTo(count)].map((label) => {
    const row = vectors.subarray(label * dimensions, (label + 1) * dimensions);
    return row.reduce((sum, x, i) => sum + x * (query[i] as number), 0);
  });
  const away = [...labelsTo(count)].filter((label) => (dots[label] as number) < 0);
  expect(away.length).toBeGreaterThan(1000);
  await using exact = new ExactIndex(dimensions);
  await using graph = await HnswIndex.create(dimensions, { ...always, ef: 20 });
  for (const index of [exact, graph]) await index.upsert(labelsTo(count), vectors);
  await graph.ready();
  const expected = await exact.search(query, 10, { allowed: labelSet(away) });
  const found = await graph.search(query, 10, { allowed: labelSet(away) });
  expect(found.map(({ label }) => label)).toEqual(expected.map(({ label }) => label));
});

graphTest(`labels up to the largest of the contract come back as they went in${needs}`, async () => {
  await using index = await HnswIndex.create(2, always);
  const labels = Uint32Array.of(0xffff_fffe, 0x8000_0000, 7);
  await index.upsert(labels, Float32Array.of(1, 0, 0, 1, -1, 0));
  await index.ready();
  expect((await index.search(Float32Array.of(1, 0.1), 3)).map(({ label }) => label)).toEqual([...labels]);
});

graphTest(`thousands of replacements and removals leave no stale row to be found${needs}`, async () => {
  const [count, dimensions] = [700, 12];
  await using index = await HnswIndex.create(dimensions, { ...always, ef: 200 });
  let vectors = randomVectors(count, dimensions, 6);
  for (let round = 0; round < 5; round++) {
    vectors = randomVectors(count, dimensions, 7 + round);
    await index.upsert(labelsTo(count), vectors);
    await index.ready();
  }
  await index.delete(labelsTo(100));
  expect(index.count).toBe(600);
  expect((await index.ready()).rows).toBe(600);
  for (const label of [0, 99, 100, 350, 699]) {
    const own = vectors.slice(label * dimensions, (label + 1) * dimensions);
    const [best] = await index.search(own, 1);
    if (label >= 100) expect(best).toEqual({ label, score: expect.closeTo(1, 6) });
    else expect(best?.score).toBeLessThan(0.99);
  }
});

graphTest(`the event loop stays free while a graph is built, and searches are answered meanwhile${needs}`, async () => {
  const [count, dimensions] = [6000, 64];
  await using index = await HnswIndex.create(dimensions);
  await index.upsert(labelsTo(count), randomVectors(count, dimensions, 8));
  let building = true;
  const ready = index.ready().finally(() => {
    building = false;
  });
  let [turns, searches] = [0, 0];
  while (building) {
    await new Promise((resolve) => setImmediate(resolve));
    if (turns++ % 1000 !== 0) continue;
    expect(await index.search(randomVectors(1, dimensions, 9), 3)).toHaveLength(3);
    if (building) searches++;
  }
  await ready;
  // One thread of work would leave a handful of turns and no search.
  expect(turns).toBeGreaterThan(1000);
  expect(searches).toBeGreaterThan(1);
});

test.each([
  ["dimensions", 0, {}],
  ["m", 4, { m: 1 }],
  ["efConstruction", 4, { efConstruction: 3 }],
  ["ef", 4, { ef: 0 }],
  ["ef", 4, { ef: 1.5 }],
  ["seed", 4, { seed: -1 }],
  ["scanShare", 4, { scanShare: Number.NaN }],
  ["cacheFile", 4, { cacheFile: "" }],
])("refuses a %s out of range", async (name, dimensions, options) => {
  await expect(HnswIndex.create(dimensions, options)).rejects.toThrow(`hnsw: ${name} must be`);
});

/** Opens an index over these rows, in two batches, and says where its graph came from. */
async function reportOf(
  cacheFile: string,
  rows: Float32Array,
  dimensions: number,
  options: { ef?: number; m?: number; efConstruction?: number } = {},
): Promise<GraphReport> {
  await using index = await HnswIndex.create(dimensions, { cacheFile, ...always, ...options });
  const count = rows.length / dimensions;
  const half = count >> 1;
  await index.upsert(labelsTo(half), rows.subarray(0, half * dimensions));
  await index.upsert(labelsTo(count).slice(half), rows.subarray(half * dimensions));
  const report = await index.ready();
  const query = rows.slice((count - 1) * dimensions);
  expect((await index.search(query, 1))[0]).toEqual({ label: count - 1, score: expect.closeTo(1, 6) });
  return report;
}

graphTest(
  `keeps the graph in a file, and builds it anew, saying why, for all that is not the same${needs}`,
  async () => {
    const [count, dimensions] = [800, 16];
    const rows = randomVectors(count, dimensions, 10);
    const cacheFile = join(folder, "graph.hnsw");
    const built = { rows: count, source: "built", saved: true, fault: undefined };
    const fromCache = { ...built, source: "cache", reason: undefined, saved: false };
    expect(await reportOf(cacheFile, rows, dimensions)).toEqual({ ...built, reason: "there is none" });
    expect(readdirSync(folder).sort()).toEqual(["graph.hnsw", "graph.hnsw.json"]);
    expect(await reportOf(cacheFile, rows, dimensions)).toEqual(fromCache);
    // ef is of searches only.
    expect(await reportOf(cacheFile, rows, dimensions, { ef: 30 })).toEqual(fromCache);

    const other = rows.slice();
    other[5] = (other[5] as number) + 1e-3;
    expect(await reportOf(cacheFile, other, dimensions)).toEqual({ ...built, reason: "it is of other rows" });
    expect((await reportOf(cacheFile, other, dimensions)).source).toBe("cache");
    expect(await reportOf(cacheFile, rows, dimensions, { m: 8 })).toMatchObject({
      source: "built",
      reason: "its m is 16, expected 8",
    });
    // Fewer rows than the file has, and more.
    expect(await reportOf(cacheFile, rows.subarray(0, 600 * dimensions), dimensions, { m: 8 })).toMatchObject({
      rows: 600,
      reason: "it holds 800 rows, the index 600",
    });
    expect(await reportOf(cacheFile, rows, dimensions, { m: 8 })).toMatchObject({
      rows: 800,
      source: "cache",
      saved: true,
    });

    const graph = (): Buffer => readFileSync(cacheFile);
    for (const [damage, reason] of [
      [() => writeFileSync(cacheFile, graph().subarray(0, 1000)), /has 1000 bytes, its manifest says/],
      [() => writeFileSync(cacheFile, graph().fill(0xff, 200, 296)), /checksum/],
      [() => writeFileSync(`${cacheFile}.json`, "{"), /manifest can't be read/],
      [() => writeFileSync(`${cacheFile}.json`, "[]"), /its format is undefined/],
      [() => unlinkSync(cacheFile), /can't be read/],
    ] as const) {
      damage();
      const report = await reportOf(cacheFile, rows, dimensions, { m: 8 });
      expect(report).toMatchObject({ source: "built", saved: true });
      expect(report.reason).toMatch(reason);
    }
    // A link is not followed, and is replaced by the file.
    const elsewhere = join(folder, "elsewhere");
    writeFileSync(elsewhere, readFileSync(cacheFile));
    unlinkSync(cacheFile);
    symlinkSync(elsewhere, cacheFile);
    expect((await reportOf(cacheFile, rows, dimensions, { m: 8 })).reason).toMatch(/not a regular file/);
    expect((await reportOf(cacheFile, rows, dimensions, { m: 8 })).source).toBe("cache");
  },
);

/** Changes the graph's file and lets its manifest agree. */
function forge(cacheFile: string, change: (bytes: Buffer) => Buffer | undefined): void {
  const bytes = readFileSync(cacheFile);
  const changed = change(bytes) ?? bytes;
  writeFileSync(cacheFile, changed);
  const manifest = JSON.parse(readFileSync(`${cacheFile}.json`, "utf8"));
  const checksum = createHash("sha256").update(changed).digest("hex");
  writeFileSync(`${cacheFile}.json`, JSON.stringify({ ...manifest, bytes: changed.length, checksum }));
}

graphTest(
  `a forged graph file is refused before hnswlib follows it, even with a manifest that fits${needs}`,
  async () => {
    const [count, dimensions, m] = [400, 4, 3];
    const rows = randomVectors(count, dimensions, 11);
    const cacheFile = join(folder, "forged.hnsw");
    const wide = join(folder, "wide.hnsw");
    const options = { m, efConstruction: 20 } as const;
    await reportOf(cacheFile, rows, dimensions, options);
    await reportOf(wide, randomVectors(count, 8, 11), 8, options);
    const point = 8 * m + 4 + 4 * dimensions + 8;
    const levels = 96 + count * point;
    /** Where the length of the first point's links lies that has some above the ground. */
    const raised = (bytes: Buffer): number => {
      let at = levels;
      while (bytes.readUInt32LE(at) === 0) at += 4;
      return at;
    };
    /** A point that is on the ground only. */
    const low = (bytes: Buffer): number => ((raised(bytes) - levels) / 4 === 0 ? lowAfter(bytes) : 0);
    const lowAfter = (bytes: Buffer): number => {
      let [at, row] = [levels, 0];
      for (let length = bytes.readUInt32LE(at); length > 0; length = bytes.readUInt32LE(at)) {
        at += 4 + length;
        row++;
      }
      return row;
    };
    const forgeries: [string, RegExp, (bytes: Buffer) => Buffer | undefined][] = [
      ["another dimension", /as the bytes of a point/, () => readFileSync(wide)],
      ["fewer points", /as its number of points/, (bytes) => void bytes.writeBigUInt64LE(399n, 16)],
      ["room for more than the machine has", /has room for/, (bytes) => void bytes.writeBigUInt64LE(2n ** 40n, 8)],
      [
        "a link out of the graph",
        /point 7 linked to 400/,
        (bytes) => void bytes.writeUInt32LE(400, 96 + 7 * point + 4),
      ],
      ["too many links", /point 7 linked 7 times/, (bytes) => void bytes.writeUInt16LE(7, 96 + 7 * point)],
      ["another vector", /another vector 9/, (bytes) => void bytes.writeFloatLE(0.5, 96 + 9 * point + 8 * m + 4)],
      ["another label", /another label at point 9/, (bytes) => void bytes.writeUInt8(1, 96 + 10 * point - 8)],
      ["a deleted point", /point 9 as deleted/, (bytes) => void bytes.writeUInt8(1, 96 + 9 * point + 2)],
      ["an entry that is not there", /begins at point 4000/, (bytes) => void bytes.writeUInt32LE(4000, 52)],
      ["a factor of 0", /draws levels by 0/, (bytes) => void bytes.writeDoubleLE(0, 80)],
      ["levels of odd lengths", /bytes of links/, (bytes) => void bytes.writeUInt32LE(17, raised(bytes))],
      ["a link to a point below", /on level 1/, (bytes) => void bytes.writeUInt32LE(low(bytes), raised(bytes) + 8)],
      ["more at its end", /goes on/, (bytes) => Buffer.concat([bytes, Buffer.of(0)])],
      ["less at its end", /ends at/, (bytes) => bytes.subarray(0, -3)],
      ["nothing but a beginning", /shorter than its header/, (bytes) => bytes.subarray(0, 40)],
    ];
    for (const [what, reason, change] of forgeries) {
      forge(cacheFile, change);
      const report = await reportOf(cacheFile, rows, dimensions, options);
      expect(report, what).toMatchObject({ source: "built", saved: true });
      expect(report.reason, what).toMatch(reason);
    }
    // The control: unchanged, it is taken.
    forge(cacheFile, () => undefined);
    expect((await reportOf(cacheFile, rows, dimensions, options)).source).toBe("cache");
  },
);

graphTest(`a cache file that can't be written is reported, and the index works${needs}`, async () => {
  const report = await reportOf(join(folder, "no", "such", "folder.hnsw"), randomVectors(100, 4, 12), 4);
  expect(report).toMatchObject({ source: "built", saved: false, fault: expect.stringContaining("ENOENT") });
});

graphTest(`a corpus index searches by the graph and opens again with its file${needs}`, async () => {
  const directory = join(folder, "index");
  const embedder = stubEmbedder();
  const documents = Array.from({ length: 300 }, (_, i) => ({ id: `d${i}`, text: `word${i} common`, metadata: { i } }));
  const reports: GraphReport[] = [];
  const vectorIndex = hnsw({
    ...always,
    cacheFile: join(folder, "corpus.hnsw"),
    onReady: (report) => reports.push(report),
  });
  const expected = async (index: CorpusIndex): Promise<void> => {
    const [hit] = await index.search("word123", { k: 1, mode: "dense" });
    expect(hit?.id).toBe("d123");
    const filter = { must: [{ key: "i", range: { gte: 290 } }] };
    expect(await index.search("word123", { k: 10, mode: "dense", filter })).toHaveLength(10);
  };
  {
    await using index = await CorpusIndex.build(embedder, documents, { directory, split: false, vectorIndex });
    await expected(index);
    while (reports.length === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  {
    await using index = await CorpusIndex.open(directory, embedder, { vectorIndex });
    await expected(index);
    while (reports.length === 1) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(reports.map(({ source, rows }) => ({ source, rows }))).toEqual([
    { source: "built", rows: 300 },
    { source: "cache", rows: 300 },
  ]);
  expect(existsSync(join(folder, "corpus.hnsw.json"))).toBe(true);
});
