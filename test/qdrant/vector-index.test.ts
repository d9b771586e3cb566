/** The low-level contract of every index of vectors, on a server. */
import { QdrantIndex, QdrantVectorIndex } from "@cde-js/adapters/qdrant";
import { CorpusIndex } from "@cde-js/retriever";
import { expect, test } from "vitest";
import { vectorIndexContract } from "../contracts/vector-index.js";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, newName, queries, testServer } from "./support.js";

const server = await testServer();
const options = () => ({ ...server.options, collection: newName(server), search: { exact: true } });

vectorIndexContract("a Qdrant collection", {
  create: (dimensions) => new QdrantVectorIndex(dimensions, options()),
  // Rows and queries are brought to unit length in float32 here and once more there.
  tolerance: 1e-6,
});

test("a corpus index takes it in place of its own, and finds the same", async () => {
  const embedder = stubEmbedder();
  await using own = await CorpusIndex.build(embedder, corpus(60));
  await using remote = await CorpusIndex.build(embedder, corpus(60), {
    vectorIndex: (dimensions) => new QdrantVectorIndex(dimensions, options()),
  });
  const filter = { must: [{ key: "year", range: { gte: 2005 } }] };
  for (const query of queries(10)) {
    for (const search of [{ mode: "dense" as const }, {}, { filter }]) {
      const [found, expected] = [await remote.search(query, search), await own.search(query, search)];
      expect(found.map(({ id, score }) => [id, score.toFixed(4)])).toEqual(
        expected.map(({ id, score }) => [id, score.toFixed(4)]),
      );
    }
  }
});

test("a collection of another kind or dimension is left alone; one of these is emptied by who opens it", async () => {
  const one = options();
  await using first = new QdrantVectorIndex(2, one);
  await first.upsert(Uint32Array.of(1, 2), Float32Array.of(1, 0, 0, 1));
  await using wide = new QdrantVectorIndex(3, one);
  await expect(wide.upsert(Uint32Array.of(1), Float32Array.of(1, 0, 0))).rejects.toMatchObject({
    code: "QDRANT_COLLECTION",
  });
  await using again = new QdrantVectorIndex(2, one);
  await again.upsert(Uint32Array.of(7), Float32Array.of(1, 1));
  expect(await again.search(Float32Array.of(1, 1), 5)).toMatchObject([{ label: 7 }]);
  expect(await first.search(Float32Array.of(1, 1), 5)).toMatchObject([{ label: 7 }]);
  const other = options();
  await using documents = await QdrantIndex.build(stubEmbedder({ dimensions: 2 }), corpus(3), other);
  await using stranger = new QdrantVectorIndex(2, other);
  await expect(stranger.upsert(Uint32Array.of(1), Float32Array.of(1, 0))).rejects.toThrow(
    /not one of 2 dimensions for rows/,
  );
  expect(await documents.countDocuments()).toBe(3);
});
