import { createRandom, DEFAULT_STRENGTH, type Embedder, type Embeddings, fitSpectralMap, fnv1a32 } from "@cde-js/core";
import { expect, test } from "vitest";
import { embedOnce, inContext, wordsOnly } from "./embed-once.js";

/** Random unit vectors by text, other ones for queries; texts of more than 20 characters are cut. */
function counting(): { embedder: Embedder; encoded: string[] } {
  const encoded: string[] = [];
  const embed =
    (kind: string) =>
    async (texts: readonly string[]): Promise<Embeddings> => {
      encoded.push(...texts.map((text) => `${kind} ${text}`));
      const vectors = texts.map((text) => {
        const random = createRandom(fnv1a32(kind + text));
        const vector = Float32Array.from({ length: 8 }, () => random.normal() + 0.5);
        return vector.map((value) => value / Math.hypot(...vector));
      });
      return { vectors, truncated: texts.flatMap((text, i) => (text.length > 20 ? [i] : [])) };
    };
  const embedder: Embedder = {
    modelId: "stub/counting",
    dimensions: 8,
    maxTokens: 16,
    fingerprint: "base",
    batchInvariant: true,
    countTokens: (text) => text.length,
    embedQuery: async (text) => (await embed("query")([text])).vectors[0]!,
    embedQueries: embed("query"),
    embedDocuments: embed("document"),
    // biome-ignore lint/correctness/useYield: nothing asks for it.
    async *embedStream() {
      throw new Error("not needed");
    },
  };
  return { embedder, encoded };
}
const texts = Array.from({ length: 12 }, (_, i) => `text ${i}`);

test("each text is encoded once, as a query and as a document, however often and in whatever company it comes", async () => {
  const { embedder, encoded } = counting();
  const once = embedOnce(embedder);
  const first = await once.embedDocuments(["a", "b", "a", "a text that is too long"]);
  expect(first.truncated).toEqual([3]);
  expect(first.vectors[0]).toEqual(first.vectors[2]);
  const again = await once.embedDocuments(["a text that is too long", "c", "b"]);
  expect(again.truncated).toEqual([0]);
  expect(again.vectors[2]).toEqual(first.vectors[1]);
  const [query] = (await once.embedQueries(["a"])).vectors;
  expect(await once.embedQuery("a")).toEqual(query);
  expect(query).not.toEqual(first.vectors[0]);
  expect(encoded).toEqual(["document a", "document b", "document a text that is too long", "document c", "query a"]);
  expect(once).toMatchObject({ fingerprint: "base", dimensions: 8, maxTokens: 16, modelId: "stub/counting" });
  expect(once.countTokens!("abc")).toBe(3);
});

/** Of a context for the base vectors of that fingerprint. */
const of = (model: string) => ({
  identity: { model, stage: "spectral", strength: DEFAULT_STRENGTH, texts: [] } as const,
});

test("a spectral context maps base vectors and encodes nothing; another context gives other vectors", async () => {
  const { embedder, encoded } = counting();
  const base = embedOnce(embedder);
  const { vectors } = await base.embedDocuments(texts);
  const mapOf = (rows: Float32Array[]) =>
    fitSpectralMap({ rows: Float32Array.from(rows.flatMap((row) => [...row])), dimensions: 8 });
  const [own, other] = [await mapOf(vectors.slice(0, 6)), await mapOf(vectors.slice(6))];
  const bound: Embedder = { ...embedder, fingerprint: "in context" };
  const within = inContext(base, bound, { map: own, ...of("base") });
  expect(within.fingerprint).toBe("in context");
  const found = (await within.embedDocuments(texts)).vectors;
  expect(found).toEqual(own.apply(vectors));
  expect(found).not.toEqual(vectors);
  expect((await inContext(base, bound, { map: other, ...of("base") }).embedDocuments(texts)).vectors).not.toEqual(
    found,
  );
  expect(encoded).toHaveLength(texts.length);
  expect(await within.embedQuery("text 1")).toEqual(own.apply([await base.embedQuery("text 1")])[0]);
});

test("a context that is no map of base vectors is left to the encoder", () => {
  const { embedder } = counting();
  expect(inContext(embedOnce(embedder), embedder, { map: undefined, ...of("base") })).toBe(embedder);
  expect(inContext(undefined, embedder, { map: undefined, ...of("base") })).toBe(embedder);
});

test("one that is a map of other base vectors too, as where tokens have weights", async () => {
  const { embedder } = counting();
  const base = embedOnce(embedder);
  const { vectors } = await base.embedDocuments(texts);
  const map = await fitSpectralMap({ rows: Float32Array.from(vectors.flatMap((row) => [...row])), dimensions: 8 });
  expect(inContext(base, embedder, { map, ...of("weighted") })).toBe(embedder);
  expect(inContext(base, embedder, { map, ...of("base") })).not.toBe(embedder);
});

test("for words alone nothing is encoded", async () => {
  const { embedder, encoded } = counting();
  const words = wordsOnly(embedder);
  expect(await words.embedDocuments(["a", "b"])).toEqual({
    vectors: [Float32Array.of(1), Float32Array.of(1)],
    truncated: [],
  });
  expect(words.countTokens!("abcd")).toBe(4);
  expect(encoded).toEqual([]);
});
