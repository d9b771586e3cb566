/** The contract of LangChain vector stores: the twelve cases of Python's langchain-tests, and ours. */
import assert from "node:assert/strict";
import { type Case, type ExpectedFailures, runContract, type TestFramework } from "./contract.js";

/** `DocumentInterface` of @langchain/core. */
export interface DocumentLike {
  pageContent: string;
  metadata: Record<string, unknown>;
  id?: string;
}

/** What the cases call of `VectorStore` of @langchain/core (`addDocuments` is to resolve to the ids), and `getByIds`, which JavaScript's lacks. */
export interface VectorStoreLike {
  addDocuments(documents: DocumentLike[], options?: { ids?: string[] }): Promise<unknown>;
  delete(params?: { ids: string[] }): Promise<void>;
  similaritySearch(query: string, k?: number): Promise<DocumentLike[]>;
  similaritySearchWithScore(query: string, k?: number): Promise<[DocumentLike, number][]>;
  maxMarginalRelevanceSearch?(
    query: string,
    options: { k: number; fetchK?: number; lambda?: number },
    callbacks: undefined,
  ): Promise<DocumentLike[]>;
  getByIds?(ids: string[]): Promise<DocumentLike[]>;
}

export interface VectorStoreSubject {
  /** A new, empty store. Its embeddings must put texts that share words near each other. */
  readonly create: () => VectorStoreLike | Promise<VectorStoreLike>;
  readonly close?: (store: VectorStoreLike) => Promise<void>;
  /** Opens what `store` holds with embeddings of another context; must reject. */
  readonly openWithOtherContext?: (store: VectorStoreLike) => Promise<unknown>;
  readonly expectedFailures?: ExpectedFailures<VectorStoreCase>;
}

export type VectorStoreCase =
  | "is_empty"
  | "add_documents"
  | "still_empty"
  | "deleting_documents"
  | "deleting_bulk_documents"
  | "delete_missing_content"
  | "add_documents_with_ids_is_idempotent"
  | "add_documents_by_id_with_mutation"
  | "get_by_ids"
  | "get_by_ids_missing"
  | "add_documents_documents"
  | "add_documents_with_existing_ids"
  | "add_nothing"
  | "scores_descend"
  | "alone_equals_in_batch"
  | "repeated_search"
  | "mmr_direction"
  | "refuses_other_context"
  | "concurrent_queries";

type Run = (store: VectorStoreLike) => Promise<void>;

/** Each case has a store of its own, closed afterwards. */
function inNewStore(title: string, run: Run): Case<VectorStoreSubject> {
  return {
    title,
    async run(subject) {
      const store = await subject.create();
      try {
        await run(store);
      } finally {
        await subject.close?.(store);
      }
    },
  };
}

const foo = (): DocumentLike => ({ pageContent: "foo", metadata: { id: 1 } });
const bar = (): DocumentLike => ({ pageContent: "bar", metadata: { id: 2 } });
const baz = (): DocumentLike => ({ pageContent: "baz", metadata: { id: 3 } });

const cases: Record<VectorStoreCase, Case<VectorStoreSubject>> = {
  is_empty: inNewStore("a search in a new store finds nothing", async (store) => {
    assert.deepEqual(await store.similaritySearch("foo", 1), []);
  }),
  add_documents: inNewStore(
    "documents come back best first, with the ids returned, all of them, and the caller's are left as they were",
    async (store) => {
      const documents = [foo(), bar()];
      const ids = idsOf(await store.addDocuments(documents), 2);
      assert.deepEqual(documents, [foo(), bar()]);
      const found = await store.similaritySearch("bar", 2);
      assert.deepEqual(plain(found), [
        { ...bar(), id: ids[1] },
        { ...foo(), id: ids[0] },
      ]);
    },
  ),
  still_empty: inNewStore("the next store starts empty too", async (store) => {
    assert.deepEqual(await store.similaritySearch("foo", 1), []);
  }),
  deleting_documents: inNewStore("given ids are returned, and a deleted document is not found", async (store) => {
    const given = await store.addDocuments([foo(), bar()], { ids: ["1", "2"] });
    assert.deepEqual(given, ["1", "2"]);
    await store.delete({ ids: ["1"] });
    assert.deepEqual(plain(await store.similaritySearch("foo", 1)), [{ ...bar(), id: "2" }]);
  }),
  deleting_bulk_documents: inNewStore("two of three are deleted in one call", async (store) => {
    await store.addDocuments([foo(), bar(), baz()], { ids: ["1", "2", "3"] });
    await store.delete({ ids: ["1", "2"] });
    assert.deepEqual(plain(await store.similaritySearch("foo", 3)), [{ ...baz(), id: "3" }]);
  }),
  delete_missing_content: inNewStore("deleting what isn't there is no error", async (store) => {
    await store.delete({ ids: ["1"] });
    await store.delete({ ids: ["1", "2", "3"] });
  }),
  add_documents_with_ids_is_idempotent: inNewStore("the same documents and ids twice are there once", async (store) => {
    for (let i = 0; i < 2; i++) await store.addDocuments([foo(), bar()], { ids: ["1", "2"] });
    assert.deepEqual(plain(await store.similaritySearch("bar", 2)), [
      { ...bar(), id: "2" },
      { ...foo(), id: "1" },
    ]);
    assert.equal((await store.similaritySearch("bar", 9)).length, 2);
  }),
  add_documents_by_id_with_mutation: inNewStore("an id that is there gets the new text and metadata", async (store) => {
    await store.addDocuments([foo(), bar()], { ids: ["1", "2"] });
    const changed = { pageContent: "new foo", metadata: { id: 1, some_other_field: "foo" } };
    await store.addDocuments([changed], { ids: ["1"] });
    assert.deepEqual(plain(await store.similaritySearch("new foo", 2)), [
      { ...changed, id: "1" },
      { ...bar(), id: "2" },
    ]);
  }),
  get_by_ids: inNewStore("documents are got by id, in the order asked for", async (store) => {
    await store.addDocuments([foo(), bar()], { ids: ["1", "2"] });
    assert.deepEqual(plain(await byIds(store, ["2", "1"])), [
      { ...bar(), id: "2" },
      { ...foo(), id: "1" },
    ]);
  }),
  get_by_ids_missing: inNewStore("ids that aren't there give no documents", async (store) => {
    assert.deepEqual(await byIds(store, ["1", "2", "3"]), []);
  }),
  add_documents_documents: inNewStore("ids that the store gave are strings, and get the documents", async (store) => {
    const ids = idsOf(await store.addDocuments([foo(), bar()]), 2);
    assert.deepEqual(plain(await byIds(store, ids)), [
      { ...foo(), id: ids[0] },
      { ...bar(), id: ids[1] },
    ]);
  }),
  add_documents_with_existing_ids: inNewStore(
    "a document keeps the id that it has, and one without gets one",
    async (store) => {
      const ids = idsOf(await store.addDocuments([{ ...foo(), id: "foo" }, bar()]), 2);
      assert.equal(ids[0], "foo");
      assert.deepEqual(plain(await byIds(store, ids)), [
        { ...foo(), id: "foo" },
        { ...bar(), id: ids[1] },
      ]);
    },
  ),
  add_nothing: inNewStore("no documents are added without error", async (store) => {
    assert.deepEqual(await store.addDocuments([]), []);
    assert.deepEqual(await store.similaritySearch("foo", 1), []);
  }),
  scores_descend: inNewStore("scores are similarities: the nearest has the highest", async (store) => {
    await store.addDocuments([baz(), foo(), { pageContent: "foo bar", metadata: {} }]);
    const found = await store.similaritySearchWithScore("foo", 3);
    assert.deepEqual(
      found.map(([{ pageContent }]) => pageContent),
      ["foo", "foo bar", "baz"],
    );
    const scores = found.map(([, score]) => score) as [number, number, number];
    assert.ok(scores[0] > scores[1] && scores[1] > scores[2], `scores ${scores.join(", ")} don't descend`);
  }),
  alone_equals_in_batch: inNewStore(
    "a document has the score that it has when it is added with others",
    async (store) => {
      const scoreOfFoo = async (): Promise<number> => {
        const [[document, score]] = (await store.similaritySearchWithScore("foo", 1)) as [[DocumentLike, number]];
        assert.equal(document.pageContent, "foo");
        return score;
      };
      await store.addDocuments([foo()], { ids: ["1"] });
      const alone = await scoreOfFoo();
      const long = { pageContent: "bar baz ".repeat(20), metadata: {} };
      await store.addDocuments([long, foo(), bar()], { ids: ["3", "1", "2"] });
      const together = await scoreOfFoo();
      assert.ok(Math.abs(together - alone) < 1e-5, `${alone} alone, ${together} with others`);
    },
  ),
  repeated_search: inNewStore(
    "the same query finds the same again, whatever the caller did to what it got",
    async (store) => {
      await store.addDocuments([foo(), bar(), baz()]);
      const first = await store.similaritySearchWithScore("foo", 3);
      const copy = first.map(([document, score]) => [...plain([structuredClone({ ...document })]), score]);
      for (const [{ metadata }] of first) Object.assign(metadata, { spoiled: true });
      const again = await store.similaritySearchWithScore("foo", 3);
      assert.deepEqual(
        again.map(([document, score]) => [...plain([document]), score]),
        copy,
      );
    },
  ),
  mmr_direction: {
    ...inNewStore("MMR with lambda 1 ranks by relevance, with 0 it avoids what is alike", async (store) => {
      if (!store.maxMarginalRelevanceSearch) throw new Error("this store has no maxMarginalRelevanceSearch");
      await store.addDocuments(
        ["foo", "foo foo", "baz"].map((pageContent) => ({ pageContent, metadata: {} })),
        { ids: ["1", "2", "3"] },
      );
      const ask = async (lambda: number): Promise<string[]> => {
        const found = await store.maxMarginalRelevanceSearch!("foo", { k: 2, fetchK: 3, lambda }, undefined);
        return found.map(({ pageContent }) => pageContent).sort();
      };
      assert.deepEqual(await ask(1), ["foo", "foo foo"]);
      const diverse = await ask(0);
      assert.ok(diverse.includes("baz"), `lambda 0 found ${diverse.join(", ")}, expected baz among them`);
    }),
  },
  refuses_other_context: {
    title: "a query of another context is refused",
    skip: ({ openWithOtherContext }) =>
      openWithOtherContext ? undefined : "this store knows no context (openWithOtherContext)",
    async run(subject) {
      await inNewStore("", async (store) => {
        await store.addDocuments([foo(), bar()]);
        await assert.rejects(subject.openWithOtherContext!(store), { code: "FINGERPRINT_MISMATCH" });
      }).run(subject);
    },
  },
  concurrent_queries: inNewStore("1,000 queries at once find what they find one by one", async (store) => {
    const words = ["foo", "bar", "baz", "cat", "roof", "rain"];
    await store.addDocuments(words.map((pageContent) => ({ pageContent, metadata: {} })));
    const found = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => store.similaritySearch(words[i % words.length] as string, 1)),
    );
    for (const [i, [document]] of found.entries()) assert.equal(document?.pageContent, words[i % words.length]);
  }),
};

/** Registers one test a case. `{ describe, test }` are vitest's. */
export function vectorStoreContract(framework: TestFramework, name: string, subject: VectorStoreSubject): void {
  runContract(framework, `${name} keeps the contract of vector stores`, cases, subject);
}

/** Plain objects, so that classes and absent keys don't count. */
function plain(documents: readonly DocumentLike[]): DocumentLike[] {
  return documents.map(({ pageContent, metadata, id }) => ({
    pageContent,
    metadata,
    ...(id === undefined ? {} : { id }),
  }));
}

function idsOf(ids: unknown, count: number): string[] {
  assert.ok(Array.isArray(ids), "addDocuments returned no ids");
  assert.equal(ids.length, count);
  for (const id of ids) assert.equal(typeof id, "string");
  assert.equal(new Set(ids).size, count);
  return ids;
}

async function byIds(store: VectorStoreLike, ids: string[]): Promise<DocumentLike[]> {
  assert.ok(store.getByIds, "this store has no getByIds");
  return store.getByIds(ids);
}
