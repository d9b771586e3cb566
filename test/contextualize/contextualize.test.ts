import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CorruptFileError,
  contextualize,
  DEFAULT_STRENGTH,
  type EmbedFunction,
  EmbedFunctionError,
  FingerprintMismatchError,
  fingerprintOf,
  fitSpectralMap,
  ModelChangedError,
  openAiCompatible,
  openContextualized,
  remap,
} from "@cde-js/core";
import { CorpusIndex } from "@cde-js/retriever";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FakeEndpoint, vectorOf } from "./fake-endpoint.js";

const corpus = Array.from({ length: 60 }, (_, i) => `document ${i} of the corpus`);
const embed: EmbedFunction = async (texts) => texts.map((text) => vectorOf(text, 16));
const options = { modelId: "hash-1" };
const unit = (vector: readonly number[]) => vector.map((x) => x / Math.hypot(...vector));
const farthest = (a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]) =>
  Math.max(...a.flatMap((row, n) => Array.from(row, (x, i) => Math.abs(x - b[n]![i]!))));

let folder = "";
let files = 0;
const newFile = () => join(folder, `f${files++}`);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-contextualize-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("contextualize", () => {
  test("gives the spectral map of the function's normalised vectors, for queries and documents", async () => {
    const embedder = await contextualize(embed, corpus, { ...options, strength: DEFAULT_STRENGTH });
    const context = corpus.map((text) => Float32Array.from(unit(vectorOf(text, 16))));
    const map = await fitSpectralMap(context);
    const texts = ["who pays?", "the roof"];
    const expected = map.apply(texts.map((text) => Float32Array.from(unit(vectorOf(text, 16)))));
    const { vectors, truncated } = await embedder.embedDocuments(texts);
    expect(farthest(vectors, expected)).toBeLessThan(1e-6);
    expect(truncated).toEqual([]);
    expect(farthest([await embedder.embedQuery("the roof")], [expected[1]!])).toBeLessThan(1e-6);
    const off = await embedder.withStrength("off").embedDocuments(texts);
    expect(
      farthest(
        off.vectors,
        texts.map((text) => unit(vectorOf(text, 16))),
      ),
    ).toBeLessThan(1e-6);
    expect(farthest(off.vectors, expected)).toBeGreaterThan(0.01); // control: the map does something
    expect(embedder).toMatchObject({ modelId: "hash-1", dimensions: 16, batchInvariant: true });
  });

  test("the fingerprint is of model id, dimension, texts in order and strength", async () => {
    const print = async (o = {}, documents = corpus) =>
      (await contextualize(embed, documents, { ...options, ...o })).fingerprint;
    const base = await print();
    expect(await print({ batchSize: 7, maxConcurrency: 1, onProgress: () => {} })).toBe(base);
    const others = await Promise.all([
      print({ modelId: "hash-2" }),
      print({ strength: { ...DEFAULT_STRENGTH, a: 0.4 } }),
      print({ strength: "off" }),
      print({ size: 20 }),
      print({ size: 20, seed: 1 }),
      print({}, corpus.toReversed()),
    ]);
    expect(new Set([base, ...others]).size).toBe(7);
    // Without effect, a context is no context: as if there were another one.
    expect(await print({ strength: "off" }, corpus.slice(5))).toBe(others[2]);
  });

  test("its vectors are known under it", async () => {
    const embedder = await contextualize(embed, corpus, options);
    const off = embedder.withStrength("off");
    const [{ vectors }, query] = [await embedder.embedDocuments(["one"]), await off.embedQuery("one")];
    expect(fingerprintOf(vectors[0]!)).toBe(embedder.fingerprint);
    expect(fingerprintOf(query)).toBe(off.fingerprint);
    expect(off.fingerprint).not.toBe(embedder.fingerprint);
  });

  test("draws the context from all documents of a stream, whatever its chunks, and passes over blank ones", async () => {
    async function* stream() {
      for (const text of ["", ...corpus, " \n"]) yield text;
    }
    const a = await contextualize(embed, stream(), { ...options, size: 10, seed: 4 });
    const b = await contextualize(embed, ["", ...corpus], { ...options, size: 10, seed: 4 });
    expect(a.context.size).toBe(10);
    expect(a.fingerprint).toBe(b.fingerprint);
  });

  test("tells queries from documents, batches, and keeps to maxConcurrency", async () => {
    const calls: [kind: string, count: number][] = [];
    let [open, mostOpen] = [0, 0];
    const watched: EmbedFunction = async (texts, { kind, signal }) => {
      mostOpen = Math.max(mostOpen, ++open);
      await new Promise((resolve) => setImmediate(resolve));
      open--;
      calls.push([kind, texts.length]);
      return embed(texts, { kind, signal });
    };
    const embedder = await contextualize(watched, corpus, { ...options, batchSize: 25, maxConcurrency: 3 });
    expect(calls).toEqual([
      ["document", 1], // the probe
      ["document", 25],
      ["document", 25],
      ["document", 10],
    ]);
    expect(mostOpen).toBe(3);
    const plain = await contextualize(embed, corpus, options);
    const many = Array.from({ length: 101 }, (_, i) => `query ${i}`);
    const seen: number[] = [];
    const { vectors } = await embedder.embedQueries(many, { onProgress: ({ done }) => seen.push(done) });
    expect(calls.slice(4).map(([kind]) => kind)).toEqual(["query", "query", "query", "query", "query"]);
    expect(seen.at(-1)).toBe(101);
    expect(vectors).toEqual((await plain.embedQueries(many)).vectors);
    const streamed = [];
    for await (const { position, vector } of embedder.embedStream(many)) streamed[position] = vector;
    expect(streamed).toEqual(vectors);
  });

  test("makes an index that finds things", async () => {
    const embedder = await contextualize(embed, corpus, options);
    const documents = corpus.map((text, i) => ({ id: `${i}`, text }));
    await using index = await CorpusIndex.build(embedder, documents, { split: false });
    expect((await index.search("document 7 of the corpus", { k: 1, ...{ mode: "dense" } }))[0]).toMatchObject({
      id: "7",
    });
  });

  test.each([
    ["too few vectors", (rows: number[][]) => rows.slice(1), "gave 9 vectors for 10 texts"],
    ["too many", (rows: number[][]) => [...rows, rows[0]], "gave 11 vectors"],
    ["nothing", () => undefined, "gave no array of vectors"],
    ["another dimension", (rows: number[][]) => rows.with(3, [1, 2]), "vector 23 has 2 dimensions, expected 16"],
    ["NaN", (rows: number[][]) => rows.with(3, rows[3]!.with(5, Number.NaN)), "vector 23 has NaN in dimension 5"],
    [
      "null",
      (rows: unknown[][]) => rows.with(3, rows[3]!.with(5, null)),
      "vector 23 has a value of type object in dimension 5",
    ],
    ["infinity", (rows: number[][]) => rows.with(3, rows[3]!.with(5, 1 / 0)), "vector 23 has Infinity"],
    [
      "a zero vector",
      (rows: number[][]) =>
        rows.with(
          3,
          rows[3]!.map(() => 0),
        ),
      "vector 23 is zero",
    ],
    ["no vector", (rows: unknown[]) => rows.with(3, undefined), "vector 23 has no dimensions"],
  ])("refuses %s, with the position", async (_, spoil, message) => {
    const embedder = await contextualize(
      async (texts, o) => {
        const rows = await embed(texts, o);
        return (texts[0] === "text 20" ? spoil(rows as number[][]) : rows) as number[][];
      },
      corpus,
      { ...options, batchSize: 10 },
    );
    const texts = Array.from({ length: 40 }, (_, i) => `text ${i}`);
    const error = await embedder.embedDocuments(texts).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(EmbedFunctionError);
    expect((error as Error).message).toContain(message);
    expect((error as EmbedFunctionError).position).toBe(message.includes("vector 23") ? 23 : 20);
  });

  test("names the caller's position of a context document that fails, though only some were drawn", async () => {
    const bad = corpus[37]!;
    const failing: EmbedFunction = async (texts) =>
      texts.map((text) => (text === bad ? [0, 0] : [1, text.length % 7])) as number[][];
    const attempts = [0, 1, 2, 3, 4, 5, 6, 7].map((seed) =>
      contextualize(failing, corpus, { ...options, size: 30, seed }).then(
        () => undefined,
        (error: EmbedFunctionError) => error.position,
      ),
    );
    const positions = await Promise.all(attempts);
    expect(new Set(positions)).toEqual(new Set([undefined, 37])); // drawn by some seeds, by others not
  });

  test("a rejection keeps its cause and stops the other calls; an abort is the caller's reason", async () => {
    let calls = 0;
    const cause = new Error("no memory");
    const failing: EmbedFunction = async (texts, o) => {
      if (++calls === 4) throw cause;
      return embed(texts, o);
    };
    const error = await contextualize(failing, corpus, { ...options, batchSize: 5 }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "EMBED_FUNCTION", cause, message: expect.stringContaining("no memory") });
    expect(calls).toBeLessThanOrEqual(6); // of 13
    const stop = new AbortController();
    const hanging: EmbedFunction = (_, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        stop.abort(new Error("enough"));
      });
    await expect(contextualize(hanging, corpus, { ...options, signal: stop.signal })).rejects.toThrow("enough");
  });

  test.each([
    [[], "got 0"],
    [["one", " "], "got 1"],
    [["one", 2 as unknown as string], "position 1 is number"],
  ])("refuses %j as a corpus", async (documents, message) => {
    await expect(contextualize(embed, documents, options)).rejects.toThrow(message);
  });

  test("refuses options that can't be meant", async () => {
    await expect(contextualize(embed, corpus, { modelId: " " })).rejects.toThrow("modelId");
    await expect(contextualize(embed, corpus, { ...options, size: 1 })).rejects.toThrow("got 1");
    await expect(contextualize(embed, corpus, { ...options, batchSize: 0 })).rejects.toThrow("batchSize");
    await expect(contextualize(embed, corpus, { ...options, dimensions: 8 })).rejects.toThrow(
      "16 dimensions, expected 8",
    );
  });

  test("identical documents give a context of their mean alone", async () => {
    const embedder = await contextualize(embed, Array(9).fill("the same"), options);
    expect(embedder.context.map?.degenerate).toBe(true);
    expect(Math.hypot(...(await embedder.embedQuery("another")))).toBeCloseTo(1, 6);
  });
});

describe("a saved context", () => {
  test("gives the same embedder, after one call for the probe", async () => {
    const path = newFile();
    const embedder = await contextualize(embed, corpus, { ...options, strength: { a: 0.5, s: 0.2, b: 0.7 } });
    await embedder.saveContext(path);
    let calls = 0;
    const counted: EmbedFunction = (texts, o) => {
      calls += texts.length;
      return embed(texts, o);
    };
    const again = await openContextualized(counted, path, options);
    expect(calls).toBe(1);
    expect(again.fingerprint).toBe(embedder.fingerprint);
    expect(await again.embedQuery("x")).toEqual(await embedder.embedQuery("x"));
  });

  test("is refused with a model that changed behind its name, or another name or dimension", async () => {
    const path = newFile();
    await (await contextualize(embed, corpus, options)).saveContext(path);
    const changed: EmbedFunction = async (texts) => texts.map((text) => vectorOf(text, 16, 2));
    const error = await openContextualized(changed, path, options).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ModelChangedError);
    expect((error as ModelChangedError).similarity).toBeLessThan(0.999);
    // Rounding of another processor passes; a change of a few degrees doesn't.
    const noisy =
      (size: number): EmbedFunction =>
      async (texts) =>
        texts.map((text) => vectorOf(text, 16).map((x, i) => x + (i % 2 ? size : -size)));
    await openContextualized(noisy(1e-3), path, options);
    await expect(openContextualized(noisy(0.5), path, options)).rejects.toThrow(ModelChangedError);
    await expect(openContextualized(embed, path, { modelId: "hash-2" })).rejects.toThrow(FingerprintMismatchError);
    const narrow: EmbedFunction = async (texts) => texts.map((text) => vectorOf(text, 8));
    await expect(openContextualized(narrow, path, options)).rejects.toThrow(FingerprintMismatchError);
    await expect(openContextualized(embed, path, { ...options, dimensions: 8 })).rejects.toThrow("16 dimensions");
  });

  test("is refused where any byte was changed", async () => {
    const path = newFile();
    await (await contextualize(embed, corpus.slice(0, 4), options)).saveContext(path);
    const bytes = await readFile(path);
    for (let at = 0; at < bytes.length; at += 13) {
      const altered = Buffer.from(bytes);
      altered[at]! ^= 1;
      const other = newFile();
      await writeFile(other, altered);
      const result = await openContextualized(embed, other, options).catch((e: unknown) => e);
      expect(result, `byte ${at}`).toBeInstanceOf(CorruptFileError);
    }
  });
});

describe("remap", () => {
  test("equals embedding afresh, for a new context and a new strength", async () => {
    const texts = corpus.slice(0, 30);
    const first = await contextualize(embed, corpus, options);
    const { vectors: base } = await first.withStrength("off").embedDocuments(texts);
    const second = await contextualize(embed, corpus.slice(30), { ...options, strength: { a: 0.6, s: 0.1, b: 0.9 } });
    const afresh = (await second.embedDocuments(texts)).vectors;
    expect(farthest(remap(base, second.context), afresh)).toBeLessThan(1e-6);
    expect(farthest(remap(base, second.context.map!), afresh)).toBeLessThan(1e-6);
    expect(farthest(remap(base, first.context), afresh)).toBeGreaterThan(0.01); // control: another context
  });

  test("takes rows of any length and number type, and a stream of them", async () => {
    const { context } = await contextualize(embed, corpus, options);
    const rows = Array.from({ length: 1500 }, (_, i) => vectorOf(`row ${i}`, 16));
    const expected = remap(rows, context);
    expect(
      farthest(
        remap(
          rows.map((row) => row.map((x) => 1e200 * x)),
          context,
        ),
        expected,
      ),
    ).toBeLessThan(1e-6);
    const coarse = remap(
      rows.map((row) => Int8Array.from(row, (x) => 15 * x)),
      context,
    );
    expect(farthest(coarse, expected)).toBeLessThan(0.1);
    async function* stream() {
      yield* rows;
    }
    const streamed = [];
    for await (const row of remap(stream(), context)) streamed.push(row);
    expect(streamed).toEqual(expected);
  });

  test("names the position of a row that is none, in a stream too", async () => {
    const { context } = await contextualize(embed, corpus, options);
    const rows = Array.from({ length: 1030 }, (_, i) => (i === 1027 ? new Array(16).fill(0) : vectorOf(`${i}`, 16)));
    expect(() => remap(rows, context)).toThrow("vector 1027 is zero");
    async function* stream() {
      yield* rows;
    }
    const read = async () => {
      for await (const _ of remap(stream(), context));
    };
    await expect(read()).rejects.toMatchObject({ position: 1027 });
    expect(() => remap([[1, 2]], context)).toThrow("has 2 dimensions, expected 16");
  });
});

test("an endpoint becomes contextual, and a silent change of its model is noticed", async () => {
  const endpoint = await FakeEndpoint.start();
  try {
    const remote = openAiCompatible({ baseUrl: endpoint.url, apiKey: "sk-secret", model: "m", dimensions: 16 });
    const embedder = await contextualize(remote, corpus, { ...options, batchSize: 8, maxConcurrency: 4 });
    expect(endpoint.mostOpen).toBeGreaterThan(1);
    expect(endpoint.mostOpen).toBeLessThanOrEqual(4);
    const local = await contextualize(embed, corpus, options);
    expect(farthest([await embedder.embedQuery("x")], [await local.embedQuery("x")])).toBeLessThan(1e-6);
    const path = newFile();
    await embedder.saveContext(path);
    await openContextualized(remote, path, options);
    endpoint.version = 2;
    await expect(openContextualized(remote, path, options)).rejects.toThrow(ModelChangedError);
    endpoint.fault = (_, response) => {
      response.writeHead(400).end("{}");
      return true;
    };
    await expect(embedder.embedDocuments(["a", "b"])).rejects.toMatchObject({
      code: "EMBED_FUNCTION",
      position: 0,
      cause: { code: "ENDPOINT_REFUSED" },
    });
  } finally {
    await endpoint.close();
  }
});
