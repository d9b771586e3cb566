/** Updates and contexts over time with a real encoder and with a function, as users have them. */
import { join } from "node:path";
import {
  ContextualEncoder,
  contextualize,
  createRandom,
  DEFAULT_STRENGTH,
  type Embedder,
  type EmbedFunction,
} from "@cde-js/core";
import { CorpusIndex } from "@cde-js/retriever";
import { expect, test } from "vitest";
import { vectorOf } from "../contextualize/fake-endpoint.js";
import { writeTinyModel } from "../support/tiny-model.js";
import { temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const corpus = Array.from({ length: 40 }, (_, i) => ({
  id: `d${i}`,
  text: `rent ${i} of tenant ${i * i} for court ${i % 7}`,
}));
const late = [{ id: "late", text: "who pays for the flood damage" }];
const queries = ["who pays the rent", "court 3"];

/** What a search of the dense part finds, scores to the last digit. */
async function answers(index: CorpusIndex): Promise<unknown> {
  return await Promise.all(
    queries.map(async (query) => {
      const hits = await index.search(query, { mode: "dense", k: 10 });
      return hits.map(({ id, score }) => ({ id, score }));
    }),
  );
}

async function freshly(embedder: Embedder): Promise<unknown> {
  await using fresh = await CorpusIndex.build(embedder, [...corpus, ...late]);
  return await answers(fresh);
}

test("an encoder: kept base vectors under a new context are, to the bit, what embedding anew gives", async () => {
  await using encoder = await ContextualEncoder.load(writeTinyModel(join(folder, "tiny")));
  const directory = join(folder, "encoder");
  const built = await CorpusIndex.fromCorpus(encoder, () => corpus, { directory, contextSize: 16 });
  const first = built.fingerprint;
  await built.close();
  await using index = await CorpusIndex.open(directory, encoder);
  expect(index.fingerprint).toBe(first);
  await index.upsert(late);
  expect(await answers(index)).toEqual(await freshly(index.embedder));
  const { embedded } = await index.recontext({ contextSize: 20, seed: 4 });
  expect(embedded).toBe(false);
  expect(index.fingerprint).not.toBe(first);
  const again = encoder.withContext(
    await encoder.buildContext(index.contextChoice?.chosen.map(({ text }) => text) as string[]),
  );
  expect(again.fingerprint).toBe(index.fingerprint);
  expect(await answers(index)).toEqual(await freshly(again));
  await index.rollback();
  expect(index.fingerprint).toBe(first);
  expect(await answers(index)).toEqual(await freshly(index.embedder));
});

test("an encoder whose tokens have weights: they stay with the base vectors, whatever context comes after", async () => {
  await using encoder = await ContextualEncoder.load(writeTinyModel(join(folder, "weighted")));
  const directory = join(folder, "weights");
  // No two of them nearly alike: those are left out of a context.
  const words = "law rent flood court tenant pays damage who for the".split(" ");
  const different = corpus.map(({ id }, i) => {
    const random = createRandom(i);
    return {
      id,
      text: Array.from({ length: 12 }, () => `${words[random.integer(10)]} ${random.integer(100)}`).join(" "),
    };
  });
  const freshly = async (embedder: Embedder) => {
    await using fresh = await CorpusIndex.build(embedder, [...different, ...late]);
    return await answers(fresh);
  };
  const built = await CorpusIndex.fromCorpus(encoder, () => different, {
    ...{ directory, contextSize: 16, strength: DEFAULT_STRENGTH },
    tokenWeights: { smoothing: 0.1 },
  });
  const { fingerprint: first, context: before } = built;
  expect(before!.tokenWeights!.documents).toBe(16);
  await built.close();
  await using index = await CorpusIndex.open(directory, encoder);
  expect(index.fingerprint).toBe(first);
  await index.upsert(late);
  expect(await answers(index)).toEqual(await freshly(index.embedder));
  // Control: the same context without weights answers otherwise.
  const alike = await encoder.buildContext(
    built.contextChoice!.chosen.map(({ text }) => text),
    {
      strength: DEFAULT_STRENGTH,
    },
  );
  expect(await answers(index)).not.toEqual(await freshly(encoder.withContext(alike)));

  expect((await index.recontext({ contextSize: 20, seed: 4 })).embedded).toBe(false);
  expect(index.fingerprint).not.toBe(first);
  expect(index.context!.tokenWeights!.identity).toEqual(before!.tokenWeights!.identity);
  expect(await answers(index)).toEqual(await freshly(index.embedder));
  await index.recontext({ strength: "off" });
  expect(index.fingerprint).toBe(before!.identity.model);
  expect(await answers(index)).toEqual(await freshly(index.embedder));
  await index.rollback();
  expect(await answers(index)).toEqual(await freshly(index.embedder));
  // A context that weighs tokens by others needs other base vectors: all is embedded again.
  const other = await encoder.buildContext(
    [...different, ...late].map(({ text }) => text),
    {
      strength: DEFAULT_STRENGTH,
      tokenWeights: { smoothing: 0.1 },
    },
  );
  expect((await index.recontext({ context: other })).embedded).toBe(true);
  expect(index.fingerprint).toBe(other.fingerprint);
  expect(await answers(index)).toEqual(await freshly(encoder.withContext(other)));
});

test("a function: the index keeps its base vectors, and gives it another context", async () => {
  let texts = 0;
  const embed: EmbedFunction = async (given) => {
    texts += given.length;
    // Of any length: only directions count.
    return given.map((text) => vectorOf(text, 16).map((x) => 3 * x));
  };
  const embedder = await contextualize(
    embed,
    corpus.map(({ text }) => text),
    { modelId: "hash", size: 12 },
  );
  const directory = join(folder, "function");
  await using index = await CorpusIndex.build(embedder, corpus, { directory, split: false });
  await index.upsert(late);
  texts = 0;
  await index.recontext({ contextSize: 20 });
  expect(texts).toBe(0);
  expect(await answers(index)).toEqual(await freshlyUnsplit(index.embedder));
  const { embedder: bound } = index;
  await index.close();
  await using opened = await CorpusIndex.open(directory, bound);
  await opened.rollback();
  expect(opened.fingerprint).toBe(embedder.fingerprint);
  await expect(CorpusIndex.open(directory, bound)).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
});

async function freshlyUnsplit(embedder: Embedder): Promise<unknown> {
  await using fresh = await CorpusIndex.build(embedder, [...corpus, ...late], { split: false });
  return await answers(fresh);
}
