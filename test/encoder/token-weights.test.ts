/** Tokens that count by how rare they are in the corpus: the numbers, their fingerprints, and what is refused. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  ContextualEncoder,
  CorpusContext,
  CorruptFileError,
  DEFAULT_SMOOTHING,
  FingerprintMismatchError,
  InvalidInputError,
} from "@cde-js/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { goldenJson } from "../support/golden.js";
import { sharedPath } from "../support/shared.js";
import { TINY_VOCABULARY, writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const LAW = ["the law court", "the tenant pays rent", "rent law", "court of the tenant", "who pays for the law"];
const FLOOD = ["flood damage", "the flood pays", "damage for who", "flood of damage", "a1 b2 c3"];
const QUESTIONS = ["who pays for flood damage ?", "the tenant", "x y z"];
const weighted = { strength: "off", tokenWeights: { smoothing: 0.1 } } as const;
let encoder: ContextualEncoder;

beforeAll(async () => {
  encoder = await ContextualEncoder.load(writeTinyModel(join(folder, "tiny")));
});
afterAll(() => encoder.dispose());

const idOf = (token: string) => TINY_VOCABULARY.indexOf(token);

async function vectorsWith(context: CorpusContext, of: ContextualEncoder = encoder): Promise<Float32Array[]> {
  return (await of.withContext(context).embedDocuments(QUESTIONS)).vectors;
}

describe("token weights", () => {
  test("are a / (a + p), 32 empty documents being counted beside those given", async () => {
    const { tokenWeights } = await encoder.buildContext(LAW, weighted);
    // "the" is in four of five documents, "rent" in two, "[CLS]" in all, "flood" in none.
    expect(tokenWeights!.weightOf(idOf("the"))).toBeCloseTo(0.1 / (0.1 + 4 / 37), 7);
    expect(tokenWeights!.weightOf(idOf("rent"))).toBeCloseTo(0.1 / (0.1 + 2 / 37), 7);
    expect(tokenWeights!.weightOf(idOf("[CLS]"))).toBeCloseTo(0.1 / (0.1 + 5 / 37), 7);
    expect(tokenWeights!.weightOf(idOf("flood"))).toBe(1);
    expect(tokenWeights!.documents).toBe(5);
  });

  test("move vectors, another corpus's elsewhere, and a text has one vector alone and in any batch", async () => {
    const [law, flood] = [await encoder.buildContext(LAW, weighted), await encoder.buildContext(FLOOD, weighted)];
    const [a, b] = [await vectorsWith(law), await vectorsWith(flood)];
    const { vectors: none } = await encoder.withoutContext().embedDocuments(QUESTIONS);
    expect(largestDifference(a, none)).toBeGreaterThan(0.01);
    expect(largestDifference(b, none)).toBeGreaterThan(0.01);
    expect(largestDifference(a, b)).toBeGreaterThan(0.01);
    const bound = encoder.withContext(law);
    const alone = await Promise.all(QUESTIONS.map((text) => bound.embedQuery(text)));
    expect(largestDifference(alone, a)).toBeLessThan(1e-6);
    for (const vector of a) expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
  });

  test("have base vectors and a fingerprint of their own, of model and texts", async () => {
    const context = await encoder.buildContext(LAW, {
      tokenWeights: { smoothing: 0.1 },
      strength: { a: 0.3, s: 0.3, b: 0.5 },
    });
    const bound = encoder.withContext(context);
    const { base } = bound;
    expect(base!.fingerprint).toBe(context.identity.model);
    expect(base!.tokenWeights!.fingerprint).toBe(base!.fingerprint);
    expect(context.tokenWeights!.identity.model).toBe(encoder.fingerprint);
    expect(new Set([encoder.fingerprint, base!.fingerprint, bound.fingerprint]).size).toBe(3);
    // The context's vectors are base vectors, and the bound vectors are those through the map.
    const { vectors } = await base!.embedDocuments(LAW);
    const rows = LAW.map((_, i) => context.vectors().slice(32 * i, 32 * (i + 1)));
    expect(largestDifference(rows, vectors)).toBe(0);
    const mapped = context.map!.apply((await base!.embedDocuments(QUESTIONS)).vectors);
    expect(largestDifference(await vectorsWith(context), mapped)).toBeLessThan(1e-6);
    // At strength "off" the base vectors are the vectors.
    const off = encoder.withContext(context.withStrength("off"));
    expect(off.fingerprint).toBe(base!.fingerprint);
    expect(off.tokenWeights!.fingerprint).toBe(base!.fingerprint);

    const others = await Promise.all([
      encoder.buildContext(LAW, { ...weighted, tokenWeights: { smoothing: 0.2 } }),
      encoder.buildContext([...LAW].reverse(), weighted),
      encoder.buildContext(FLOOD, weighted),
      encoder.buildContext(LAW, { ...weighted, tokenWeights: "off" }),
    ]);
    const fingerprints = [context, ...others].map(({ identity }) => identity.model);
    expect(new Set(fingerprints).size).toBe(5);
    expect(fingerprints[4]).toBe(encoder.fingerprint);
  });

  test("stay with a context that is made of stored base vectors", async () => {
    const { base } = encoder.withContext(
      await encoder.buildContext(LAW, { tokenWeights: { smoothing: 0.1 }, strength: { a: 0.3, s: 0.3, b: 0.5 } }),
    );
    const { vectors } = await base!.embedDocuments(FLOOD);
    const rows = Float32Array.from(vectors.flatMap((vector) => [...vector]));
    const context = await CorpusContext.fromBaseVectors(base!, FLOOD, rows);
    expect(context.tokenWeights).toBe(base!.tokenWeights);
    const found = await vectorsWith(context);
    expect(largestDifference(found, context.map!.apply((await base!.embedDocuments(QUESTIONS)).vectors))).toBeLessThan(
      1e-6,
    );
    // Not those of the documents that this context is made of.
    const fresh = await encoder.buildContext(FLOOD, { ...weighted, strength: context.identity.strength! });
    expect(largestDifference(found, await vectorsWith(fresh))).toBeGreaterThan(0.01);
  });

  test("are chosen with the strength where nothing is said, and left out where a strength is given", async () => {
    const documents = Array.from(
      { length: 40 },
      (_, i) => `the law of the court is number${i} for the tenant. who pays the rent of x${i} is the law of damage.`,
    );
    const context = await encoder.buildContext(documents);
    const { smoothing } = context.calibration!;
    expect(context.tokenWeights?.identity.smoothing).toBe(smoothing);
    expect([undefined, DEFAULT_SMOOTHING]).toContain(smoothing);
    const again = await encoder.buildContext(documents, {
      strength: context.identity.strength!,
      tokenWeights: smoothing === undefined ? "off" : { smoothing },
    });
    expect(again.fingerprint).toBe(context.fingerprint);
    expect(largestDifference(await vectorsWith(again), await vectorsWith(context))).toBeLessThan(1e-6);
    expect((await encoder.buildContext(LAW, { strength: "off" })).tokenWeights).toBeUndefined();
    const without = await encoder.buildContext(documents, { tokenWeights: "off" });
    expect(without.tokenWeights).toBeUndefined();
    expect(without.calibration!.smoothing).toBeUndefined();
  });

  test("are saved with their context, and a file that was altered is refused", async () => {
    const context = await encoder.buildContext(LAW, {
      tokenWeights: { smoothing: 0.1 },
      strength: { a: 0.3, s: 0.3, b: 0.5 },
    });
    const path = join(folder, "law.context");
    await context.save(path);
    const read = await CorpusContext.load(path);
    expect(read.fingerprint).toBe(context.fingerprint);
    expect(read.tokenWeights!.identity).toEqual(context.tokenWeights!.identity);
    expect(largestDifference(await vectorsWith(read), await vectorsWith(context))).toBe(0);

    const bytes = context.toBytes();
    const refused = async (altered: Uint8Array) => {
      writeFileSync(path, altered);
      await expect(CorpusContext.load(path)).rejects.toThrow(CorruptFileError);
    };
    const text = Buffer.from(bytes).toString("latin1");
    const swapped = (from: string, to: string) => Buffer.from(text.replace(from, to), "latin1");
    expect(text).toContain('\\"smoothing\\":0.1');
    await refused(swapped('\\"smoothing\\":0.1', '\\"smoothing\\":0.2'));
    await refused(swapped('\\"smoothing\\":0.1', '\\"smoothing\\":9.1'));
    await refused(swapped('\\"documents\\":5', '\\"documents\\":1'));
    await refused(swapped('"tokens"', '"tokenz"'));
    for (const at of [1, 5, 9]) {
      const altered = Buffer.from(bytes);
      altered[bytes.length - at]! ^= 1; // the counts are the file's end
      await refused(altered);
    }
  });

  test("of another model, or one that reads texts otherwise, are refused", async () => {
    const context = await encoder.buildContext(LAW, weighted);
    await using other = await ContextualEncoder.load(join(folder, "tiny"), { maxTokens: 16 });
    expect(() => other.withContext(context)).toThrow(FingerprintMismatchError);
  });

  test("need a mean of tokens and a smoothing in (0, 1]", async () => {
    for (const smoothing of [0, -1, 1.5, Number.NaN, "0.1" as unknown as number]) {
      await expect(encoder.buildContext(LAW, { tokenWeights: { smoothing } })).rejects.toThrow(InvalidInputError);
    }
    await expect(encoder.buildContext(LAW, { tokenWeights: "auto", strength: "off" })).rejects.toThrow(
      /chosen together with a strength/,
    );
    await using first = await ContextualEncoder.load(writeTinyModel(join(folder, "cls"), { pooling: "cls" }));
    await expect(first.buildContext(LAW, weighted)).rejects.toThrow(/can't weigh tokens.*pools by the mean/);
    expect((await first.buildContext(LAW)).tokenWeights).toBeUndefined();
    await using prefix = await ContextualEncoder.fromBiencoder(join(folder, "tiny"), {
      secondStage: { kind: "prefix", spectral: true },
    });
    await expect(prefix.buildContext(LAW, weighted)).rejects.toThrow(/can't weigh tokens/);
  });
});

const base = sharedPath("models/all-MiniLM-L6-v2");
const golden = goldenJson<{
  documents: string[];
  texts: string[];
  counts: Record<string, number>;
  vectors: Record<string, number[][]>;
}>("token-weights/minilm.json");

describe.skipIf(!base)("with the real model (needs ../shared/models)", () => {
  test("vectors are PyTorch's hidden states, weighted; without weights, and at another smoothing, they differ", async () => {
    await using real = await ContextualEncoder.load(base!, { dtype: "float32" });
    const found = async (smoothing: number) => {
      const context = await real.buildContext(golden.documents, { strength: "off", tokenWeights: { smoothing } });
      return (await real.withContext(context).embedQueries(golden.texts)).vectors;
    };
    const expected = (smoothing: string) => golden.vectors[smoothing]!.map((vector) => Float32Array.from(vector));
    const [soft, hard] = [await found(0.3), await found(0.1)];
    expect(largestDifference(soft, expected("0.3"))).toBeLessThan(1e-5);
    expect(largestDifference(hard, expected("0.1"))).toBeLessThan(1e-5);
    expect(largestDifference(soft, expected("0.1"))).toBeGreaterThan(1e-3);
    const { vectors } = await real.withoutContext().embedQueries(golden.texts);
    expect(largestDifference(vectors, expected("0.3"))).toBeGreaterThan(1e-2);
  });
});
