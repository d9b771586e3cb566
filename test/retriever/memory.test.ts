/** How often base vectors are held, by the array buffers of a process whose search keeps no rows at all. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CorpusContext, type Embedder } from "@cde-js/core";
import { CorpusIndex, type VectorIndex } from "@cde-js/retriever";
import { afterAll, expect, test } from "vitest";
import { randomVectors } from "../support/random-vectors.js";

const COUNT = 8000;
const DIMENSIONS = 384;
const BASE = 4 * COUNT * DIMENSIONS;
const folder = await mkdtemp(join(tmpdir(), "cde-memory-"));
afterAll(() => rm(folder, { recursive: true, force: true }));
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

function embedder(context?: CorpusContext): Embedder {
  const embedDocuments: Embedder["embedDocuments"] = async (texts) => ({
    vectors: texts.map((text) => {
      const vector = randomVectors(1, DIMENSIONS, Number(text));
      const length = Math.hypot(...vector);
      return vector.map((x) => x / length);
    }),
    truncated: [],
  });
  const fail = async (): Promise<never> => {
    throw new Error("not needed");
  };
  return {
    modelId: "stub/random",
    dimensions: DIMENSIONS,
    maxTokens: 8,
    fingerprint: context?.fingerprint ?? "0".repeat(64),
    batchInvariant: true,
    context,
    base: context && embedder(),
    embedQuery: fail,
    embedQueries: fail,
    embedDocuments,
    // biome-ignore lint/correctness/useYield: an index never asks for it.
    async *embedStream() {
      throw new Error("not needed");
    },
  };
}
const rows = Float32Array.from(
  (await embedder().embedDocuments(["1", "2", "3", "4"])).vectors.flatMap((vector) => [...vector]),
);
const context = await CorpusContext.fromBaseVectors(embedder(), ["1", "2", "3", "4"], rows);

/** What the search keeps is measured by nobody here: a worker frees what it was sent when it likes. */
const rowless = (dimensions: number): VectorIndex => ({
  dimensions,
  count: 0,
  upsert: async () => {},
  delete: async () => 0,
  search: async () => [],
  close: async () => {},
  [Symbol.asyncDispose]: async () => {},
});

/** Bytes of array buffers that an index of `COUNT` vectors keeps in this thread, as parts of its base vectors. */
async function kept(model: Embedder, directory?: string): Promise<number> {
  const measure = async (): Promise<number> => {
    for (let i = 0; i < 3; i++) {
      collect();
      await new Promise((resolve) => setImmediate(resolve));
    }
    return process.memoryUsage().arrayBuffers;
  };
  const before = await measure();
  const documents = Array.from({ length: COUNT }, (_, i) => ({ id: String(i), text: String(i) }));
  const options = { split: false, lexical: false, vectorIndex: rowless, ...(directory && { directory }) } as const;
  await using _ = await CorpusIndex.build(model, documents, options);
  return ((await measure()) - before) / BASE;
}

test("a folder's base vectors stay on the disk, mapped or not", async () => {
  expect(await kept(embedder(), join(folder, "plain"))).toBeLessThan(0.5);
  expect(await kept(embedder(context), join(folder, "mapped"))).toBeLessThan(0.5);
}, 60_000);

test("without a folder they are held once beside the rows of the search, and mapped ones not at all", async () => {
  for (const model of [embedder(), embedder(context)]) {
    const part = await kept(model);
    // The control: they are seen by this measure.
    expect(part).toBeGreaterThan(0.9);
    expect(part).toBeLessThan(1.5);
  }
}, 60_000);
