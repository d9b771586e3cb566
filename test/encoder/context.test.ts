/** Contexts made by an encoder: what they determine, what they refuse, and how they are saved. */
import { join } from "node:path";
import {
  ContextualEncoder,
  CorpusContext,
  DEFAULT_STRENGTH,
  FingerprintMismatchError,
  InvalidInputError,
} from "@cde-js/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const LAW = ["law court", "the tenant pays rent", "rent law", "court of the tenant", "who pays for the law"];
const FLOOD = ["flood damage", "the flood pays", "damage for who", "flood of damage", "a1 b2 c3"];
const QUESTIONS = ["who pays for flood damage ?", "the tenant", "x y z"];
let encoder: ContextualEncoder;

beforeAll(async () => {
  encoder = await ContextualEncoder.load(writeTinyModel(join(folder, "tiny")));
});
afterAll(() => encoder.dispose());

async function vectorsWith(context: CorpusContext, of: ContextualEncoder = encoder): Promise<Float32Array[]> {
  return (await of.withContext(context).embedDocuments(QUESTIONS)).vectors;
}

describe("a context", () => {
  test("is its documents' vectors in order, and says what it was made from", async () => {
    const context = await encoder.buildContext(LAW);
    const { vectors } = await encoder.withoutContext().embedDocuments(LAW);
    const rows = LAW.map((_, i) => context.vectors().slice(32 * i, 32 * (i + 1)));
    expect(largestDifference(rows, vectors)).toBe(0);
    expect(context).toMatchObject({ size: 5, stage: "spectral", modelId: "tiny", dimensions: 32, truncated: [] });
    expect(context.identity.model).toBe(encoder.fingerprint);
    // |m|² of the rows' mean m.
    const mean = Array.from({ length: 32 }, (_, k) => rows.reduce((sum, row) => sum + row[k]! / 5, 0));
    expect(context.map?.meanNormSquared).toBeCloseTo(
      mean.reduce((sum, x) => sum + x * x, 0),
      6,
    );
  });

  test("moves vectors, and another corpus's moves them elsewhere", async () => {
    const [law, flood] = [await encoder.buildContext(LAW), await encoder.buildContext(FLOOD)];
    const [a, b] = [await vectorsWith(law), await vectorsWith(flood)];
    const { vectors: none } = await encoder.withoutContext().embedDocuments(QUESTIONS);
    for (const [x, y] of [
      [a, b],
      [a, none],
      [b, none],
    ] as const)
      expect(largestDifference(x, y)).toBeGreaterThan(0.01);
    for (const vector of a) expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
    expect(law.fingerprint).not.toBe(flood.fingerprint);
  });

  test("gives a text one vector, alone and in any batch, as query and as document", async () => {
    const embedder = encoder.withContext(await encoder.buildContext(LAW));
    const { vectors } = await embedder.embedDocuments(QUESTIONS);
    const alone = await Promise.all(QUESTIONS.map((text) => embedder.embedQuery(text)));
    expect(largestDifference(alone, vectors)).toBeLessThan(1e-6);
  });

  test('at strength "off" is the null context: its fingerprint, and its vectors bit for bit', async () => {
    const off = await encoder.buildContext(LAW, { strength: "off" });
    const bound = encoder.withContext(off);
    expect([off.fingerprint, bound.fingerprint]).toEqual([encoder.fingerprint, encoder.withoutContext().fingerprint]);
    const { vectors } = await encoder.withoutContext().embedDocuments(QUESTIONS);
    expect(largestDifference(await vectorsWith(off), vectors)).toBe(0);
    expect((await encoder.buildContext(LAW)).withStrength("off").fingerprint).toBe(encoder.fingerprint);
  });

  test("at another strength equals one built at it, and the caller's object stays the caller's", async () => {
    const strength = { a: 0.5, s: 0.2, b: 0.25 };
    const built = await encoder.buildContext(LAW, { strength });
    const changed = (await encoder.buildContext(LAW)).withStrength(strength);
    expect(changed.fingerprint).toBe(built.fingerprint);
    expect(largestDifference(await vectorsWith(changed), await vectorsWith(built))).toBe(0);
    strength.a = 0;
    expect(built.identity.strength).toEqual({ a: 0.5, s: 0.2, b: 0.25 });
    const extended = { ...DEFAULT_STRENGTH, note: "not a parameter" };
    expect((await encoder.buildContext(LAW, { strength: extended })).fingerprint).toBe(
      (await encoder.buildContext(LAW)).fingerprint,
    );
  });

  test("refuses an impossible strength before any work, by name and number", async () => {
    let worked = false;
    const onProgress = () => {
      worked = true;
    };
    const strength = { a: 2, s: 0.3, b: 0.5 };
    await expect(encoder.buildContext(LAW, { strength, onProgress })).rejects.toThrow("strength a is 2");
    await expect(encoder.buildContext(LAW, { strength: { ...strength, a: Number.NaN } })).rejects.toThrow(
      InvalidInputError,
    );
    const context = await encoder.buildContext(LAW);
    expect(() => context.withStrength(strength)).toThrow("strength a is 2");
    expect(worked).toBe(false);
  });

  test("lists its documents that were cut", async () => {
    const long = Array.from({ length: 40 }, () => "law").join(" ");
    const context = await encoder.buildContext(["rent", long, "law"]);
    expect(context.truncated).toEqual([1]);
    await context.save(join(folder, "cut.safetensors"));
    expect((await CorpusContext.load(join(folder, "cut.safetensors"))).truncated).toEqual([1]);
    expect(context.withStrength("off").truncated).toEqual([1]);
  });

  test("of chunks grouped by document is that of the chunks one by one, in order", async () => {
    const grouped = await encoder.buildContext([LAW.slice(0, 2), LAW.slice(2)]);
    expect(grouped.fingerprint).toBe((await encoder.buildContext(LAW)).fingerprint);
    expect((await encoder.buildContext([LAW.slice(2), LAW.slice(0, 2)])).fingerprint).not.toBe(grouped.fingerprint);
  });
});

describe("unusual corpora", () => {
  test.each([
    ["one document", ["law court"], false],
    ["the same document many times", Array.from({ length: 12 }, () => "law court"), true],
  ])("%s: only the mean acts", async (_, documents, degenerate) => {
    const context = await encoder.buildContext(documents);
    expect(context.map?.degenerate).toBe(degenerate);
    expect(Math.max(...context.map!.eigenvalues)).toBe(0);
    const [m] = (await encoder.withoutContext().embedDocuments(["law court"])).vectors;
    const { vectors } = await encoder.withoutContext().embedDocuments(QUESTIONS);
    // W is the identity, so each vector is e − m/2, scaled to unit length.
    const expected = vectors.map((e) => {
      const moved = e.map((value, k) => value - m![k]! / 2);
      return moved.map((value) => value / Math.hypot(...moved));
    });
    expect(largestDifference(await vectorsWith(context), expected)).toBeLessThan(1e-6);
  });

  test("fewer documents than dimensions, repeated ones, and many: finite unit vectors", async () => {
    const many = Array.from({ length: 70 }, (_, i) => `${LAW[i % 5]} ${FLOOD[(i * 3) % 5]} ${i}`);
    for (const documents of [LAW, [...LAW, ...LAW, ...LAW], many]) {
      for (const vector of await vectorsWith(await encoder.buildContext(documents))) {
        expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
      }
    }
    // Mean and covariance don't change when every document counts three times; the fingerprint does.
    const [once, thrice] = [await encoder.buildContext(LAW), await encoder.buildContext([...LAW, ...LAW, ...LAW])];
    expect(largestDifference(await vectorsWith(once), await vectorsWith(thrice))).toBeLessThan(1e-5);
    expect(thrice.fingerprint).not.toBe(once.fingerprint);
  });

  test("a text that the map sends to zero is refused, not made NaN", async () => {
    const context = await encoder.buildContext(["law court"], { strength: { a: 0.35, s: 0.3, b: 1 } });
    await expect(encoder.withContext(context).embedDocuments(["rent", "law court"])).rejects.toThrow(InvalidInputError);
  });

  test.each([
    ["nothing", [], undefined],
    ["documents without chunks", [[], []], undefined],
    ["a number", ["law", 7], 1],
    ["half a surrogate pair", ["law", "rent", "x\udc00"], 2],
    ["a lone string", "law", undefined],
    ["null in a document's chunks", [["law"], ["rent", null]], 2],
  ])("refuses %s", async (_, documents, position) => {
    const error = await encoder.buildContext(documents as string[]).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InvalidInputError);
    expect(error).toMatchObject({ position, message: expect.stringMatching(/^buildContext: /) });
  });
});

describe("building", () => {
  const many = Array.from({ length: 300 }, (_, i) => `law ${i} rent`);

  test("two at once on one encoder are both right", async () => {
    const alone = [await encoder.buildContext(LAW), await encoder.buildContext(many)];
    const together = await Promise.all([encoder.buildContext(LAW), encoder.buildContext(many)]);
    together.forEach((context, i) => {
      expect(context.fingerprint).toBe(alone[i]!.fingerprint);
      expect(context.vectors()).toEqual(alone[i]!.vectors());
    });
    expect(largestDifference(await vectorsWith(together[0]!), await vectorsWith(alone[0]!))).toBe(0);
  });

  test("that is aborted gives the reason and no context, and the encoder goes on", async () => {
    const reason = new Error("no longer wanted");
    const controller = new AbortController();
    const seen: number[] = [];
    const onProgress = ({ done }: { done: number }) => {
      seen.push(done);
      controller.abort(reason);
    };
    await expect(encoder.buildContext(many, { signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(seen).toHaveLength(1); // the rest of the 300 is not embedded first
    expect((await encoder.buildContext(LAW)).size).toBe(5);
  });

  test("reports progress over the documents", async () => {
    const seen: number[] = [];
    await encoder.buildContext(many, { onProgress: ({ done, total }) => seen.push(done / total) });
    expect(seen.at(-1)).toBe(1);
    expect(seen.length).toBeGreaterThan(1);
  });
});

describe("mixing", () => {
  test("a context of another model, or of this one set up differently, is refused with both fingerprints", async () => {
    const context = await encoder.buildContext(LAW);
    const others = [
      await ContextualEncoder.load(writeTinyModel(join(folder, "other"), { seed: 2 })),
      await ContextualEncoder.load(join(folder, "tiny"), { maxTokens: 16 }),
      await ContextualEncoder.load(join(folder, "tiny"), { dtype: "int8" }),
    ];
    for (const other of others) {
      await using _ = other;
      let error: unknown;
      try {
        other.withContext(context);
      } catch (reason) {
        error = reason;
      }
      expect(error).toBeInstanceOf(FingerprintMismatchError);
      expect(error).toMatchObject({ expected: other.fingerprint, actual: encoder.fingerprint });
    }
  });

  test("another encoder of the same model takes it, and gives the same vectors", async () => {
    const context = await encoder.buildContext(LAW);
    await using twin = await ContextualEncoder.load(writeTinyModel(join(folder, "twin")));
    expect(twin.fingerprint).toBe(encoder.fingerprint);
    expect(largestDifference(await vectorsWith(context, twin), await vectorsWith(context))).toBe(0);
  });
});

describe("a saved context", () => {
  test.each(["off", DEFAULT_STRENGTH] as const)("gives identical vectors (strength %o)", async (strength) => {
    const context = await encoder.buildContext(LAW, { strength });
    const path = join(folder, "saved.safetensors");
    await context.save(path);
    const loaded = await CorpusContext.load(path);
    expect(loaded.fingerprint).toBe(context.fingerprint);
    expect(loaded.identity).toEqual(context.identity);
    expect(loaded.vectors()).toEqual(context.vectors());
    expect(largestDifference(await vectorsWith(loaded), await vectorsWith(context))).toBe(0);
    expect(loaded.withStrength({ a: 1, s: 0.5, b: 0 }).fingerprint).toBe(
      context.withStrength({ a: 1, s: 0.5, b: 0 }).fingerprint,
    );
  });

  test("can be saved over itself, and its vectors can't be reached from outside", async () => {
    const path = join(folder, "again.safetensors");
    await (await encoder.buildContext(LAW)).save(path);
    const loaded = await CorpusContext.load(path);
    loaded.vectors().fill(0);
    await loaded.save(path);
    expect((await CorpusContext.load(path)).vectors()).toEqual((await encoder.buildContext(LAW)).vectors());
    expect(() => (loaded.identity.texts as string[]).push("x")).toThrow(TypeError);
  });
});
