/** The contract of LangChain retrievers: the three cases of Python's langchain-tests, and ours. */
import assert from "node:assert/strict";
import { type Case, type ExpectedFailures, runContract, type TestFramework } from "./contract.js";
import type { DocumentLike } from "./vector-store.js";

/** What the cases call of `BaseRetriever` of @langchain/core. */
export interface RetrieverLike {
  invoke(query: string): Promise<DocumentLike[]>;
}

export interface RetrieverSubject<Retriever extends RetrieverLike = RetrieverLike> {
  /** A retriever over at least three documents that gives `k` of them, its default where `k` is undefined. */
  readonly create: (k?: number) => Retriever | Promise<Retriever>;
  /** A call with a `k` of its own; without it those cases are skipped. */
  readonly invokeWithK?: (retriever: Retriever, query: string, k: number) => Promise<DocumentLike[]>;
  /** @default "foo" */
  readonly query?: string;
  readonly expectedFailures?: ExpectedFailures<RetrieverCase>;
}

export type RetrieverCase =
  | "k_constructor_param"
  | "invoke_with_k_kwarg"
  | "invoke_returns_documents"
  | "repeated_invocation"
  | "concurrent_queries";

function casesFor<Retriever extends RetrieverLike>(): Record<RetrieverCase, Case<RetrieverSubject<Retriever>>> {
  const noK = ({ invokeWithK }: RetrieverSubject<Retriever>): string | undefined =>
    invokeWithK ? undefined : "this retriever takes no k for one call (invokeWithK)";
  return {
    k_constructor_param: {
      title: "the k of the constructor is the number of documents",
      async run({ create, query = "foo" }) {
        for (const k of [3, 1]) assert.equal((await (await create(k)).invoke(query)).length, k);
      },
    },
    invoke_with_k_kwarg: {
      title: "the k of a call is the number of documents of that call, and of no other",
      skip: noK,
      async run({ create, invokeWithK, query = "foo" }) {
        const retriever = await create(2);
        for (const k of [1, 3]) assert.equal((await invokeWithK!(retriever, query, k)).length, k);
        assert.equal((await retriever.invoke(query)).length, 2);
      },
    },
    invoke_returns_documents: {
      title: "what comes back are documents",
      async run({ create, query = "foo" }) {
        const found = await (await create()).invoke(query);
        assert.ok(found.length > 0, "nothing was found");
        for (const { pageContent, metadata } of found) {
          assert.equal(typeof pageContent, "string");
          assert.equal(typeof metadata, "object");
        }
      },
    },
    repeated_invocation: {
      title: "the same query finds the same again, whatever the caller did to what it got",
      async run({ create, query = "foo" }) {
        const retriever = await create(3);
        const first = await retriever.invoke(query);
        const copy = structuredClone(first.map(({ pageContent, metadata, id }) => ({ pageContent, metadata, id })));
        for (const document of first) Object.assign(document.metadata, { spoiled: true });
        const again = await retriever.invoke(query);
        assert.deepEqual(
          again.map(({ pageContent, metadata, id }) => ({ pageContent, metadata, id })),
          copy,
        );
      },
    },
    concurrent_queries: {
      title: "1,000 calls at once keep their own k",
      skip: noK,
      async run({ create, invokeWithK, query = "foo" }) {
        const retriever = await create(2);
        const found = await Promise.all(
          Array.from({ length: 1000 }, (_, i) => invokeWithK!(retriever, query, 1 + (i % 3))),
        );
        for (const [i, documents] of found.entries()) assert.equal(documents.length, 1 + (i % 3));
      },
    },
  };
}

/** Registers one test a case. `{ describe, test }` are vitest's. */
export function retrieverContract<Retriever extends RetrieverLike>(
  framework: TestFramework,
  name: string,
  subject: RetrieverSubject<Retriever>,
): void {
  runContract(framework, `${name} keeps the contract of retrievers`, casesFor<Retriever>(), subject);
}
