/** The contract suites themselves: each must fail on a program that is broken in just that way. */
import { randomUUID } from "node:crypto";
import { ContextualEmbeddings } from "@cde-js/adapters/langchain";
import {
  type DocumentLike,
  type EmbeddingsLike,
  embeddingsContract,
  retrieverContract,
  type TestFramework,
  type VectorStoreLike,
  vectorStoreContract,
} from "@cde-js/adapters/testing";
import { maximalMarginalRelevance } from "@langchain/core/utils/math";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";

/** Runs a contract and says what became of each case. */
async function verdicts(
  register: (framework: TestFramework) => void,
): Promise<Map<string, "passed" | "failed" | "skipped">> {
  const bodies: [string, () => Promise<void>][] = [];
  const result = new Map<string, "passed" | "failed" | "skipped">();
  const nameOf = (title: string): string => title.slice(0, title.indexOf(":"));
  register({
    describe: (_, body) => body(),
    test: Object.assign((title: string, body: () => Promise<void>) => bodies.push([nameOf(title), body]), {
      skip: (title: string) => result.set(nameOf(title), "skipped"),
    }),
  });
  for (const [name, body] of bodies) {
    result.set(
      name,
      await body().then(
        () => "passed" as const,
        () => "failed" as const,
      ),
    );
  }
  return result;
}

const failed = (found: Map<string, string>): string[] =>
  [...found].flatMap(([name, verdict]) => (verdict === "failed" ? [name] : []));

describe("the embeddings' contract fails where", () => {
  const sound = new ContextualEmbeddings(stubEmbedder());
  const broken: [string, Partial<EmbeddingsLike>, string[]][] = [
    ["nothing is wrong", {}, []],
    [
      "queries are Float32Arrays",
      { embedQuery: async (text) => Float32Array.from(await sound.embedQuery(text)) as unknown as number[] },
      ["embed_query", "plain_numbers"],
    ],
    [
      "documents come sorted by length",
      { embedDocuments: async (texts) => sound.embedDocuments(texts.toSorted((a, b) => a.length - b.length)) },
      ["alone_equals_in_batch", "order"],
    ],
    [
      "a text depends on its batch mates",
      {
        embedDocuments: async (texts) =>
          (await sound.embedDocuments(texts)).map((vector) => vector.map((x) => x + texts.length / 1e4)),
      },
      ["alone_equals_in_batch", "order"],
    ],
    [
      "the last text is forgotten",
      { embedDocuments: async (texts) => sound.embedDocuments(texts.slice(0, -1)) },
      ["embed_documents", "alone_equals_in_batch", "order", "determinism"],
    ],
    [
      "no texts are an error",
      {
        embedDocuments: async (texts) => {
          if (texts.length === 0) throw new Error("empty");
          return sound.embedDocuments(texts);
        },
      },
      ["empty_input"],
    ],
    [
      "a query gets the vector of the one that came before it, under load",
      (() => {
        let busy = 0;
        return {
          embedQuery: async (text: string) => {
            busy++;
            await new Promise((resolve) => setImmediate(resolve));
            const vector = await sound.embedQuery(busy > 1 ? "another" : text);
            busy--;
            return vector;
          },
        };
      })(),
      ["concurrent_queries"],
    ],
  ];
  test.each(broken)("%s", async (_, parts, expected) => {
    const create = (): EmbeddingsLike => ({
      embedQuery: (text) => sound.embedQuery(text),
      embedDocuments: (texts) => sound.embedDocuments(texts),
      ...parts,
    });
    const found = await verdicts((framework) => embeddingsContract(framework, "x", { create }));
    expect(failed(found)).toEqual(expected);
    expect(found.get("other_context")).toBe("skipped");
  });

  test("another context changes nothing, or only the queries", async () => {
    for (const embedDocuments of [sound, new ContextualEmbeddings(stubEmbedder({ context: "x" }))]) {
      const found = await verdicts((framework) =>
        embeddingsContract(framework, "x", {
          create: () => sound,
          createWithOtherContext: () => ({
            embedQuery: (text) => new ContextualEmbeddings(stubEmbedder({ context: "x" })).embedQuery(text),
            embedDocuments: (texts) => embedDocuments.embedDocuments(texts),
          }),
        }),
      );
      expect(found.get("other_context")).toBe(embedDocuments === sound ? "failed" : "passed");
    }
  });
});

/** A store that is right and simple: all in a map, every row compared. */
class NaiveStore implements VectorStoreLike {
  readonly #rows = new Map<string, { document: DocumentLike; vector: Float32Array }>();
  readonly #embedder = stubEmbedder();

  async addDocuments(documents: DocumentLike[], { ids }: { ids?: string[] } = {}): Promise<string[]> {
    const { vectors } = await this.#embedder.embedDocuments(documents.map(({ pageContent }) => pageContent));
    return documents.map((document, i) => {
      const id = ids?.[i] ?? document.id ?? randomUUID();
      this.#rows.set(id, { document: structuredClone({ ...document, id }), vector: vectors[i] as Float32Array });
      return id;
    });
  }

  async delete({ ids }: { ids: string[] } = { ids: [] }): Promise<void> {
    for (const id of ids) this.#rows.delete(id);
  }

  async similaritySearchWithScore(query: string, k = 4): Promise<[DocumentLike, number][]> {
    const q = await this.#embedder.embedQuery(query);
    const scored = [...this.#rows.values()].map(({ document, vector }): [DocumentLike, number] => {
      return [structuredClone(document), vector.reduce((sum, x, i) => sum + x * (q[i] as number), 0)];
    });
    return scored.sort(([, a], [, b]) => b - a).slice(0, k);
  }

  async similaritySearch(query: string, k?: number): Promise<DocumentLike[]> {
    return (await this.similaritySearchWithScore(query, k)).map(([document]) => document);
  }

  async maxMarginalRelevanceSearch(query: string, options: { k: number; lambda?: number }): Promise<DocumentLike[]> {
    const rows = [...this.#rows.values()];
    const q = Array.from(await this.#embedder.embedQuery(query));
    const vectors = rows.map(({ vector }) => Array.from(vector));
    const picked = maximalMarginalRelevance(q, vectors, options.lambda, options.k);
    return picked.map((i) => structuredClone(rows[i]?.document as DocumentLike));
  }

  async getByIds(ids: string[]): Promise<DocumentLike[]> {
    return ids.flatMap((id) => structuredClone(this.#rows.get(id)?.document) ?? []);
  }
}

describe("the vector stores' contract fails where", () => {
  type Break = (store: NaiveStore) => Partial<VectorStoreLike>;
  const broken: [string, Break, string[]][] = [
    ["nothing is wrong", () => ({}), []],
    [
      "no ids are returned",
      (store) => ({ addDocuments: async (...args) => void (await store.addDocuments(...args)) }),
      [
        "add_documents",
        "deleting_documents",
        "add_documents_documents",
        "add_documents_with_existing_ids",
        "add_nothing",
      ],
    ],
    ["deleting does nothing", () => ({ delete: async () => {} }), ["deleting_documents", "deleting_bulk_documents"]],
    [
      "MMR takes lambda the other way round",
      (store) => ({
        maxMarginalRelevanceSearch: (query, { lambda = 0.5, ...rest }) =>
          store.maxMarginalRelevanceSearch(query, { ...rest, lambda: 1 - lambda }),
      }),
      ["mmr_direction"],
    ],
    [
      "scores are distances",
      (store) => ({
        similaritySearchWithScore: async (query, k) =>
          (await store.similaritySearchWithScore(query, k)).map(([document, score]) => [document, 1 - score]),
      }),
      ["scores_descend"],
    ],
    [
      "documents given are changed",
      (store) => ({
        addDocuments: async (documents, options) => {
          const ids = await store.addDocuments(documents, options);
          for (const [i, document] of documents.entries()) document.id = ids[i] as string;
          return ids;
        },
      }),
      ["add_documents"],
    ],
    [
      "what is found is the store's own",
      (store) => {
        const given = new Map<string, DocumentLike>();
        return {
          similaritySearchWithScore: async (query, k) =>
            (await store.similaritySearchWithScore(query, k)).map(([document, score]) => {
              const own = given.get(document.pageContent) ?? document;
              given.set(document.pageContent, own);
              return [own, score];
            }),
        };
      },
      ["repeated_search"],
    ],
    [
      "a document depends on what it is added with",
      (store) => {
        let largest = 0;
        return {
          addDocuments: async (documents, options) => {
            largest = Math.max(largest, documents.length);
            return store.addDocuments(documents, options);
          },
          similaritySearchWithScore: async (query, k) =>
            (await store.similaritySearchWithScore(query, k)).map(([document, score]) => [document, score / largest]),
        };
      },
      ["alone_equals_in_batch"],
    ],
    [
      "ids are renamed",
      (store) => ({ addDocuments: (documents) => store.addDocuments(documents.map(({ id: _, ...rest }) => rest)) }),
      [
        "deleting_documents",
        "deleting_bulk_documents",
        "add_documents_with_ids_is_idempotent",
        "add_documents_by_id_with_mutation",
        "get_by_ids",
        "add_documents_with_existing_ids",
      ],
    ],
  ];
  test.each(broken)("%s", async (_, damage, expected) => {
    const found = await verdicts((framework) =>
      vectorStoreContract(framework, "x", {
        create: () => {
          const store = new NaiveStore();
          const parts = damage(store) as Record<string, unknown>;
          return new Proxy(store, {
            get(target, key) {
              const own = parts[key as string];
              if (own !== undefined) return own;
              const value: unknown = Reflect.get(target, key, target);
              return typeof value === "function" ? value.bind(target) : value;
            },
          });
        },
      }),
    );
    expect(failed(found)).toEqual(expected);
    expect(found.get("refuses_other_context")).toBe("skipped");
  });
});

describe("the retrievers' contract fails where", () => {
  const all = ["a", "b", "c", "d"].map((pageContent) => ({ pageContent, metadata: {} }));

  test("k is ignored, of the constructor or of the call", async () => {
    const found = await verdicts((framework) =>
      retrieverContract(framework, "x", {
        create: () => ({ invoke: async (_query: string) => structuredClone(all) }),
        invokeWithK: (retriever) => retriever.invoke("x"),
      }),
    );
    expect(failed(found)).toEqual(["k_constructor_param", "invoke_with_k_kwarg", "concurrent_queries"]);
  });

  test("a call's k stays for the calls that follow", async () => {
    const found = await verdicts((framework) =>
      retrieverContract(framework, "x", {
        create: (k = 4) => {
          const retriever = { k, invoke: async (_query: string) => structuredClone(all.slice(0, retriever.k)) };
          return retriever;
        },
        invokeWithK: (retriever, query, k) => {
          retriever.k = k;
          return retriever.invoke(query);
        },
      }),
    );
    expect(failed(found)).toEqual(["invoke_with_k_kwarg"]);
  });

  test("what was found is the retriever's own", async () => {
    const found = await verdicts((framework) =>
      retrieverContract(framework, "x", { create: (k = 4) => ({ invoke: async (_query: string) => all.slice(0, k) }) }),
    );
    expect(failed(found)).toEqual(["repeated_invocation"]);
    expect(found.get("invoke_with_k_kwarg")).toBe("skipped");
  });
});

test("an expected failure that holds now fails", async () => {
  const found = await verdicts((framework) =>
    embeddingsContract(framework, "x", {
      create: () => new ContextualEmbeddings(stubEmbedder()),
      expectedFailures: { empty_input: "it was broken once" },
    }),
  );
  expect(failed(found)).toEqual(["empty_input"]);
});
