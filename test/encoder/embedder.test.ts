/** What an embedder promises, on small random models: order, cuts, prompts, streams, aborts, and what a context does. */
import { join } from "node:path";
import {
  ContextualEncoder,
  type Embedder,
  type EmbedProgress,
  FingerprintMismatchError,
  fingerprintOf,
  InvalidInputError,
} from "@cde-js/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const PROMPTS = { query: "query: ", document: "document: " };
let encoder: ContextualEncoder;
let embedder: ReturnType<ContextualEncoder["withoutContext"]>;

beforeAll(async () => {
  encoder = await ContextualEncoder.load(writeTinyModel(join(folder, "plain")));
  embedder = encoder.withoutContext();
});
afterAll(() => encoder.dispose());

/** Texts of 3 to about 30 tokens, all different. */
function sampleTexts(count: number): string[] {
  const words = ["flood", "damage", "rent", "tenant", "law", "court", "who", "pays", "for", "the"];
  return Array.from({ length: count }, (_, i) => {
    const start = Array.from({ length: (7 * i) % 23 }, (_, k) => words[(i + k * k) % words.length]);
    return [...start, String(i)].join(" ");
  });
}

describe("vectors", () => {
  test("come in the order of the texts, whatever their lengths", async () => {
    const texts = sampleTexts(150);
    const { vectors } = await embedder.embedDocuments(texts);
    const shuffled = texts.map((_, i) => (i * 67) % 150); // 67 and 150 share no factor
    const other = await embedder.embedDocuments(shuffled.map((i) => texts[i]!));
    const expected = shuffled.map((i) => vectors[i]!);
    expect(largestDifference(other.vectors, expected)).toBeLessThan(1e-6);
    // Control: one place off is far away, so the comparison above can fail.
    expect(largestDifference(other.vectors, [...expected.slice(1), expected[0]!])).toBeGreaterThan(0.1);
  });

  test("have unit length and one dimension, and belong to the caller", async () => {
    const { vectors } = await embedder.embedDocuments(["flood damage", "rent"]);
    for (const vector of vectors) expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
    expect(vectors.map(({ length }) => length)).toEqual([32, 32]);
    const before = vectors[1]!.slice();
    vectors[0]!.fill(9);
    expect(vectors[1]).toEqual(before);
    expect((await embedder.embedDocuments(["flood damage", "rent"])).vectors[1]).toEqual(before);
  });

  test("of an empty list are an empty list, and no work", async () => {
    const nothing = { vectors: [], truncated: [] };
    expect(await embedder.embedDocuments([])).toEqual(nothing);
    expect(await embedder.embedQueries([])).toEqual(nothing);
  });

  test("of an empty text are those of the special tokens alone", async () => {
    const { vectors, truncated } = await embedder.embedDocuments(["", "   ", "law"]);
    expect(largestDifference([vectors[0]!], [vectors[1]!])).toBe(0);
    expect(largestDifference([vectors[0]!], [vectors[2]!])).toBeGreaterThan(0.01);
    expect(truncated).toEqual([]);
  });

  test("report the texts that were cut, and their vectors are those of the cut text", async () => {
    const long = Array.from({ length: 40 }, () => "law").join(" ");
    const cut = Array.from({ length: 30 }, () => "law").join(" ");
    const { vectors, truncated } = await embedder.embedDocuments([long, "law", cut, `${long} court`]);
    expect(truncated).toEqual([0, 3]);
    expect(largestDifference([vectors[0]!, vectors[3]!], [vectors[2]!, vectors[2]!])).toBeLessThan(1e-6);
    expect(embedder.countTokens(long)).toBe(42);
  });

  test('truncation "error" refuses a long text by its position, and embeds nothing', async () => {
    const strict = encoder.withoutContext({ truncation: "error" });
    const long = Array.from({ length: 31 }, () => "law").join(" ");
    await expect(strict.embedDocuments(["law", "rent", long])).rejects.toMatchObject({
      code: "INVALID_INPUT",
      position: 2,
      message: expect.stringMatching(/^embedDocuments: text 2 takes 33 tokens, the model reads 32\./),
    });
    expect((await strict.embedDocuments(["law"])).truncated).toEqual([]);
    expect(() => encoder.withoutContext({ truncation: "start" as "end" })).toThrow(InvalidInputError);
  });

  test("progress rises to the number of texts", async () => {
    const seen: EmbedProgress[] = [];
    await embedder.embedDocuments(sampleTexts(200), { onProgress: (progress) => seen.push(progress) });
    expect(seen.length).toBeGreaterThan(1);
    expect(seen.map(({ done }) => done)).toEqual([...seen.map(({ done }) => done)].sort((a, b) => a - b));
    expect(seen.at(-1)).toEqual({ done: 200, total: 200 });
  });

  test.each([
    ["a number", 5],
    ["null", null],
    ["undefined", undefined],
    ["half a surrogate pair", "flood \ud83d damage"],
  ])("refuses %s by its position", async (_, bad) => {
    const texts = ["law", bad as string];
    for (const call of ["embedDocuments", "embedQueries"] as const) {
      const error = await embedder[call](texts).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(InvalidInputError);
      expect(error).toMatchObject({ position: 1, message: expect.stringContaining(`${call}: entry 1`) });
    }
    await expect(embedder.embedQuery(bad as string)).rejects.toThrow(InvalidInputError);
    expect(() => embedder.countTokens(bad as string)).toThrow(InvalidInputError);
  });
});

describe("prompts", () => {
  let prompted: ContextualEncoder;
  beforeAll(async () => {
    prompted = await ContextualEncoder.load(writeTinyModel(join(folder, "prompted"), { prompts: PROMPTS }));
  });
  afterAll(() => prompted.dispose());

  test("stand before queries, documents and context documents, and nowhere else", async () => {
    const with_ = prompted.withoutContext();
    const document = (await with_.embedDocuments(["flood damage"])).vectors;
    expect(largestDifference(document, (await embedder.embedDocuments(["document: flood damage"])).vectors)).toBe(0);
    const query = await with_.embedQuery("flood damage");
    expect(largestDifference([query], [await embedder.embedQuery("query: flood damage")])).toBe(0);
    expect(largestDifference([query], (await with_.embedQueries(["flood damage"])).vectors)).toBe(0);
    expect(largestDifference([query], document)).toBeGreaterThan(0.01);
    for await (const { text, vector } of with_.embedStream(["flood damage"])) {
      expect(text).toBe("flood damage");
      expect(largestDifference([vector], document)).toBe(0);
    }
    const context = await prompted.buildContext(["rent"]);
    const expected = (await embedder.embedDocuments(["document: rent"])).vectors;
    expect(largestDifference([context.vectors()], expected)).toBe(0);
  });

  test("count towards the tokens, the cut and the fingerprint", async () => {
    expect(prompted.withoutContext().countTokens("law")).toBe(embedder.countTokens("law") + 2);
    const text = Array.from({ length: 29 }, () => "law").join(" ");
    expect((await embedder.embedDocuments([text])).truncated).toEqual([]);
    expect((await prompted.withoutContext().embedDocuments([text])).truncated).toEqual([0]);
    expect(prompted.fingerprint).not.toBe(encoder.fingerprint);
  });

  test("that leave no room for a text are refused at loading", async () => {
    const directory = writeTinyModel(join(folder, "wordy"), { prompts: { query: "who pays for the flood: " } });
    await expect(ContextualEncoder.load(directory, { maxTokens: 8 })).rejects.toThrow(
      "the query prompt takes 8 of 8 tokens",
    );
    await using fits = await ContextualEncoder.load(directory, { maxTokens: 9 });
    expect((await fits.withoutContext().embedQueries(["law rent"])).truncated).toEqual([0]);
  });
});

describe("embedStream", () => {
  test("gives the vectors of embedDocuments in the order of the stream, across its slices", async () => {
    const texts = [...sampleTexts(2100), Array.from({ length: 40 }, () => "law").join(" ")];
    const { vectors } = await embedder.embedDocuments(texts);
    const items = [];
    for await (const item of embedder.embedStream(texts)) items.push(item);
    expect(items.map(({ position }) => position)).toEqual(texts.map((_, i) => i));
    expect(items.map(({ text }) => text)).toEqual(texts);
    expect(items.flatMap(({ truncated, position }) => (truncated ? [position] : []))).toEqual([2100]);
    expect(
      largestDifference(
        items.map(({ vector }) => vector),
        vectors,
      ),
    ).toBeLessThan(1e-6);
  });

  test("reads nothing before it is asked, never more than 1,024 ahead, and closes its source on an early return", async () => {
    let read = 0;
    let closed = false;
    async function* endless(): AsyncGenerator<string> {
      try {
        for (;;) yield `law ${read++}`;
      } finally {
        closed = true;
      }
    }
    const stream = embedder.embedStream(endless());
    expect(read).toBe(0);
    let taken = 0;
    let furthest = 0;
    for await (const { position } of stream) {
      furthest = Math.max(furthest, read - position);
      if (++taken === 1030) break;
    }
    expect(furthest).toBeLessThanOrEqual(1025);
    expect(read).toBeGreaterThan(1030);
    expect(closed).toBe(true);
  });

  test("of nothing gives nothing", async () => {
    for await (const item of embedder.embedStream([])) expect.unreachable(`got ${item.text}`);
  });

  test("names a bad text by its position in the stream, also behind the first slice", async () => {
    const texts = Array.from({ length: 1100 }, (_, i) => (i === 1050 ? (null as unknown as string) : "law"));
    const taken: number[] = [];
    const all = async (from: Embedder, list: string[]) => {
      for await (const { position } of from.embedStream(list)) taken.push(position);
    };
    await expect(all(embedder, texts)).rejects.toMatchObject({
      code: "INVALID_INPUT",
      position: 1050,
      message: expect.stringContaining("embedStream: entry 1050"),
    });
    expect(taken.length).toBe(1024);
    const long = Array.from({ length: 31 }, () => "law").join(" ");
    const strict = encoder.withoutContext({ truncation: "error" });
    await expect(
      all(
        strict,
        texts.map((_, i) => (i === 1060 ? long : "law")),
      ),
    ).rejects.toMatchObject({ position: 1060 });
  });

  test("passes an error of its source on, and stops when it is aborted", async () => {
    const broken = new Error("the source broke");
    function* source() {
      yield "law";
      throw broken;
    }
    const drain = async (stream: AsyncIterable<unknown>) => {
      for await (const _ of stream);
    };
    await expect(drain(embedder.embedStream(source()))).rejects.toBe(broken);
    const reason = new Error("no longer wanted");
    const controller = new AbortController();
    let read = 0;
    function* aborting() {
      for (;;) {
        if (++read === 10) controller.abort(reason);
        yield "law";
      }
    }
    await expect(drain(embedder.embedStream(aborting(), { signal: controller.signal }))).rejects.toBe(reason);
    expect(read).toBe(10);
  });
});

describe("an aborted call", () => {
  const reason = new Error("no longer wanted");

  test("rejects with the reason, before any work", async () => {
    const signal = AbortSignal.abort(reason);
    await expect(embedder.embedDocuments(["law"], { signal })).rejects.toBe(reason);
    await expect(embedder.embedDocuments([], { signal })).rejects.toBe(reason);
    await expect(embedder.embedQuery("law", { signal })).rejects.toBe(reason);
    await expect(encoder.buildContext(["law"], { signal })).rejects.toBe(reason);
    await expect(ContextualEncoder.load(join(folder, "plain"), { signal })).rejects.toBe(reason);
  });

  test("stops in the middle, and the encoder goes on", async () => {
    const texts = sampleTexts(2000);
    const controller = new AbortController();
    let last = 0;
    const onProgress = ({ done }: EmbedProgress) => {
      last = done;
      if (done >= 200) controller.abort(reason);
    };
    await expect(embedder.embedDocuments(texts, { signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(last).toBeLessThan(600);
    const [vector] = (await embedder.embedDocuments(["flood"])).vectors;
    expect(largestDifference([vector!], [await embedder.embedQuery("flood")])).toBe(0);
  });

  test("leaves another call on the same encoder alone", async () => {
    const texts = sampleTexts(300);
    const controller = new AbortController();
    const doomed = embedder.embedDocuments(texts, {
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    const [end, { vectors }] = await Promise.all([
      doomed.catch((error: unknown) => error),
      embedder.embedDocuments(texts),
    ]);
    expect(end).toBe(reason);
    expect(largestDifference(vectors, (await embedder.embedDocuments(texts)).vectors)).toBe(0);
  });

  test("a callback that throws ends the call with its error", async () => {
    const thrown = new Error("from the callback");
    const onProgress = () => {
      throw thrown;
    };
    await expect(embedder.embedDocuments(["law"], { onProgress })).rejects.toBe(thrown);
  });
});

describe("similarity", () => {
  test("is the cosine: 1 with itself, −1 with its opposite, 0 at a right angle", () => {
    const unit = (...places: [number, number][]) => {
      const vector = new Float32Array(32);
      for (const [at, value] of places) vector[at] = value;
      return vector;
    };
    expect(embedder.similarity(unit([0, 0.6], [1, 0.8]), unit([0, 0.6], [1, 0.8]))).toBeCloseTo(1, 12);
    expect(embedder.similarity(unit([3, 1]), unit([3, -1]))).toBe(-1);
    expect(embedder.similarity(unit([0, 1]), unit([1, 1]))).toBe(0);
    // 0.6 · 0.8 + 0.8 · 0.6
    expect(embedder.similarity(unit([0, 0.6], [1, 0.8]), unit([0, 0.8], [1, 0.6]))).toBeCloseTo(0.96, 6);
  });

  test("refuses vectors of another dimension", () => {
    expect(() => embedder.similarity(new Float32Array(32), new Float32Array(31))).toThrow(
      "have 32 dimensions, got 32 and 31",
    );
  });

  test("refuses a vector of another context, which no check of dimensions would", async () => {
    const context = await encoder.buildContext(["law court", "the tenant pays rent"]);
    const within = encoder.withContext(context);
    const [plain, bound] = [await embedder.embedQuery("law"), await within.embedQuery("law")];
    expect(fingerprintOf(plain)).toBe(encoder.fingerprint);
    expect(fingerprintOf(bound)).toBe(context.fingerprint);
    const error = expect.objectContaining({ expected: context.fingerprint, actual: encoder.fingerprint });
    for (const [a, b] of [
      [plain, bound],
      [bound, plain],
    ] as const) {
      expect(() => within.similarity(a, b)).toThrow(FingerprintMismatchError);
      expect(() => within.similarity(a, b)).toThrow(error);
    }
    // Equal fingerprints are equal, whichever embedder they came from; a copy is not known.
    const off = encoder.withContext(context.withStrength("off"));
    expect(off.similarity(plain, await off.embedQuery("law"))).toBeCloseTo(1, 6);
    expect(fingerprintOf(plain.slice())).toBeUndefined();
    expect(within.similarity(plain.slice(), bound)).toBeLessThan(1);
  });

  test("refuses a vector that has no direction", () => {
    const one = new Float32Array(32).fill(1);
    for (const bad of [0, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => embedder.similarity(one, new Float32Array(32).fill(bad))).toThrow("it has no direction");
    }
  });
});

describe("effect", () => {
  const texts = sampleTexts(40);
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

  test("measures how far texts move between two contexts: what the vectors themselves say", async () => {
    const law = encoder.withContext(await encoder.buildContext(sampleTexts(20)));
    const effect = await law.effect(texts, { against: embedder });
    const [here, there] = [await law.embedDocuments(texts), await embedder.embedDocuments(texts)];
    const distances = here.vectors.map((vector, i) => 1 - dot(vector, there.vectors[i]!));
    expect(effect.mean).toBeCloseTo(distances.reduce((a, b) => a + b) / 40, 5);
    expect(effect.min).toBeCloseTo(Math.min(...distances), 5);
    expect(effect.max).toBeCloseTo(Math.max(...distances), 5);
    expect(effect.moved).toBe(40);
    expect(effect.min).toBeGreaterThan(1e-4);
  });

  test("shows a context that is not read: nothing moved", async () => {
    // What the users of the reference reported: another fingerprint, the same vectors.
    const deaf: Embedder = {
      modelId: embedder.modelId,
      dimensions: 32,
      maxTokens: 32,
      batchInvariant: true,
      fingerprint: "f".repeat(64),
      embedQuery: (text) => embedder.embedQuery(text),
      embedQueries: (list) => embedder.embedQueries(list),
      embedDocuments: (list) => embedder.embedDocuments(list),
      embedStream: (list) => embedder.embedStream(list),
    };
    expect(await embedder.effect(texts, { against: deaf })).toEqual({ mean: 0, min: 0, max: 0, moved: 0 });
  });

  test("refuses an embedder of the same fingerprint, of other dimensions, and no texts", async () => {
    await using wide = await ContextualEncoder.load(writeTinyModel(join(folder, "wide"), { hiddenSize: 48 }));
    const law = encoder.withContext(await encoder.buildContext(["law", "rent"]));
    await expect(law.effect(texts, { against: law })).rejects.toThrow(/^effect: both embedders have the fingerprint/);
    await expect(law.effect(texts, { against: wide.withoutContext() })).rejects.toThrow(
      "32 dimensions, the other's 48",
    );
    await expect(law.effect([], { against: embedder })).rejects.toThrow("effect: got no texts");
    const signal = AbortSignal.abort(new Error("stop"));
    await expect(law.effect(texts, { against: embedder, signal })).rejects.toThrow("stop");
  });
});

test("an encoder that was disposed of rejects with a typed error, and disposing twice is fine", async () => {
  const other = await ContextualEncoder.load(join(folder, "plain"));
  const bound = other.withoutContext();
  const running = bound.embedDocuments(sampleTexts(500));
  await Promise.all([other.dispose(), expect(running).rejects.toMatchObject({ code: "RUNTIME" })]);
  await other.dispose();
  await expect(bound.embedQuery("law")).rejects.toMatchObject({ code: "RUNTIME" });
});
