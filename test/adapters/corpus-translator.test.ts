import { ContextualEmbeddings, CorpusTranslator, CorpusVectorStore } from "@cde-js/adapters/langchain";
import { createRandom } from "@cde-js/core";
import { compileFilter, type Filter } from "@cde-js/retriever";
import { SelfQueryRetriever } from "@langchain/classic/retrievers/self_query";
import { Document } from "@langchain/core/documents";
import { RunnableLambda } from "@langchain/core/runnables";
import {
  type Comparator,
  Comparison,
  type FilterDirective,
  FunctionalTranslator,
  Operation,
  type Operator,
  StructuredQuery,
} from "@langchain/core/structured_query";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus } from "./support.js";

const translator = new CorpusTranslator();
const compare = (comparator: Comparator, attribute: string, value: unknown): Comparison =>
  new Comparison(comparator, attribute, value as string);
const combine = (operator: Operator, ...args: FilterDirective[]): Operation => new Operation(operator, args);
const translate = (filter?: FilterDirective): Filter | undefined =>
  translator.visitStructuredQuery(new StructuredQuery("", filter)).filter;
const holds = (filter: Filter | undefined, metadata: Record<string, unknown>): boolean =>
  compileFilter(filter ?? {})({ id: "x", payload: metadata });

describe("a structured query becomes", () => {
  test.each<[string, FilterDirective, Filter]>([
    ["a match", compare("eq", "genre", "crime"), { must: [{ key: "genre", match: { value: "crime" } }] }],
    ["a match that must not hold", compare("ne", "page", 3), { must_not: [{ key: "page", match: { value: 3 } }] }],
    ["a range", compare("gte", "rating", 8.5), { must: [{ key: "rating", range: { gte: 8.5 } }] }],
    ["a range of dates", compare("lt", "at", "2024-05-01"), { must: [{ key: "at", range: { lt: "2024-05-01" } }] }],
    ["a closed range, where a fraction is equal", compare("eq", "x", 0.5), { must: [{ key: "x", range: { gte: 0.5, lte: 0.5 } }] }], // biome-ignore format: a row a case
    [
      "clauses within clauses",
      combine(
        "and",
        compare("eq", "genre", "crime"),
        combine("or", compare("gt", "year", 2000), compare("eq", "classic", true)),
        combine("not", compare("eq", "part.name", "b")),
      ),
      {
        must: [
          { key: "genre", match: { value: "crime" } },
          {
            should: [
              { key: "year", range: { gt: 2000 } },
              { key: "classic", match: { value: true } },
            ],
          },
          { must_not: [{ key: "part.name", match: { value: "b" } }] },
        ],
      },
    ],
  ])("%s", (_, directive, filter) => {
    expect(translate(directive)).toEqual(filter);
  });

  test("no filter, where the model asks for none", () => {
    expect(translator.visitStructuredQuery(new StructuredQuery("flood"))).toEqual({});
  });

  test("a match of number and text, where the model wrote a number as a text", () => {
    const filter = translate(compare("eq", "year", "2024"));
    for (const year of [2024, "2024"]) expect(holds(filter, { year })).toBe(true);
    expect(holds(filter, { year: 2023 })).toBe(false);
    expect(holds(translate(compare("gt", "year", "2023.5")), { year: 2024 })).toBe(true);
    // Not every text that has digits is a number.
    expect(translate(compare("eq", "code", "007"))).toEqual({ must: [{ key: "code", match: { value: "007" } }] });
  });

  test("what LangChain's own translator makes of it, for random conjunctions over random documents", () => {
    const random = createRandom(11);
    const pick = <T>(from: readonly T[]): T => from[random.integer(from.length)] as T;
    const functional = new FunctionalTranslator();
    const scalar = (): string | number | boolean => pick([0, 1, 2, 2.5, "a", "b", true]);
    let held = 0;
    for (let round = 0; round < 400; round++) {
      const directive = combine(
        "and",
        ...Array.from({ length: 1 + random.integer(3) }, () => {
          const value = scalar();
          const comparators: Comparator[] =
            typeof value === "number" ? ["eq", "ne", "gt", "gte", "lt", "lte"] : ["eq", "ne"];
          return compare(pick(comparators), pick(["x", "y", "z"]), value);
        }),
      );
      // LangChain compares by JavaScript's < and >, for which "a" and true are numbers too: only numbers are ordered here.
      const metadata = Object.fromEntries(
        (["x", "y", "z"] as const).flatMap((key) => (random.integer(4) === 0 ? [] : [[key, pick([0, 1, 2, 2.5])]])),
      );
      const expected = functional.visitStructuredQuery(new StructuredQuery("", directive)).filter;
      const theirs = (expected as (document: Document) => boolean)(new Document({ pageContent: "", metadata }));
      expect(holds(translate(directive), metadata), JSON.stringify([directive, metadata])).toBe(theirs);
      held += theirs ? 1 : 0;
    }
    // Neither all nor nothing.
    expect(held).toBeGreaterThan(40);
    expect(held).toBeLessThan(360);
  });
});

describe("a structured query is refused", () => {
  test.each<[string, FilterDirective, RegExp]>([
    ["that orders texts", compare("gt", "name", "abc"), /gt compares "name" with "abc"/],
    ["that orders by what is no date", compare("lt", "at", "2024-13-77"), /range\.lt must be an ISO 8601 date/],
    ["that compares with a list", compare("eq", "name", ["a"]), /"name" is compared with an array/],
    ["that orders a boolean", compare("gt", "name", true), /"name" is compared with boolean/],
    ["of a path that is none", compare("eq", "a key", 1), /no payload path: "a key"/],
    ["of an unknown comparator", compare("like" as Comparator, "a", 1), /comparator "like" is not allowed/],
    ["of an unknown operator", combine("xor" as Operator, compare("eq", "a", 1)), /operator "xor" is not allowed/],
    ["that combines nothing", combine("or"), /or was given 0 conditions, expected at least 1/],
    ["that negates two at once", combine("not", compare("eq", "a", 1), compare("eq", "b", 1)), /not was given 2 conditions, expected 1/], // biome-ignore format: a row a case
  ])("%s", (_, directive, message) => {
    expect(() => translate(directive)).toThrow(message);
  });

  test("that asks about an attribute nobody declared, at any depth", () => {
    const strict = new CorpusTranslator({ attributes: ["page", "part.name"] });
    const ask = (directive: FilterDirective) => () => strict.visitStructuredQuery(new StructuredQuery("", directive));
    expect(ask(combine("and", compare("eq", "page", 1), compare("eq", "part.name", "a")))).not.toThrow();
    const hidden = combine("or", compare("eq", "page", 1), combine("not", compare("eq", "chapter", 1)));
    expect(ask(hidden)).toThrow(/asks about "chapter", which is none of the attributes "page", "part.name"/);
  });
});

describe("filters are merged", () => {
  const [tenant, generated]: Filter[] = [
    { must: [{ key: "tenant", match: { value: "a" } }] },
    { must: [{ key: "page", match: { value: 1 } }] },
  ];

  test("so that both hold, or one, or the model's alone", () => {
    const rows = [
      { tenant: "a", page: 1 },
      { tenant: "a", page: 2 },
      { tenant: "b", page: 1 },
      { tenant: "b", page: 2 },
    ];
    const found = (type?: "and" | "or" | "replace"): boolean[] =>
      rows.map((row) => holds(translator.mergeFilters(tenant, generated, type), row));
    expect(found()).toEqual([true, false, false, false]);
    expect(found("and")).toEqual([true, false, false, false]);
    expect(found("or")).toEqual([true, true, true, false]);
    expect(found("replace")).toEqual([true, false, true, false]);
    expect(() => translator.mergeFilters(tenant, generated, "xor" as "or")).toThrow(/got xor/);
  });

  test("so that the default one stays where the model asks for none, unless it may be replaced", () => {
    for (const nothing of [undefined, {}, { must: [] }, { should: null }]) {
      expect(translator.mergeFilters(tenant, nothing)).toEqual(tenant);
      expect(translator.mergeFilters(tenant, nothing, "or")).toEqual(tenant);
      expect(translator.mergeFilters(tenant, nothing, "replace")).toBeUndefined();
      expect(translator.mergeFilters(tenant, nothing, "replace", true)).toEqual(tenant);
      expect(translator.mergeFilters(nothing, generated)).toEqual(generated);
      expect(translator.mergeFilters(nothing, nothing)).toBeUndefined();
    }
  });
});

describe("a SelfQueryRetriever over CorpusVectorStore", () => {
  const documents = corpus.map(
    (pageContent, page) => new Document({ pageContent, metadata: { page, tenant: page < 3 ? "a" : "b" } }),
  );
  /** The chain in which a model writes the query; here it is written out. */
  const asks = (query: string, filter?: FilterDirective) =>
    new RunnableLambda({ func: async (_: { query: string }) => new StructuredQuery(query, filter) });

  test("finds what the model's filter lets through, within the filter of the application", async () => {
    await using store = await CorpusVectorStore.fromDocuments(documents, new ContextualEmbeddings(stubEmbedder()));
    const ask = async (filter: FilterDirective | undefined): Promise<number[]> => {
      const retriever = new SelfQueryRetriever({
        vectorStore: store,
        queryConstructor: asks("tenant", filter),
        structuredQueryTranslator: new CorpusTranslator({ attributes: ["page"] }),
        searchParams: { k: 9, filter: { must: [{ key: "tenant", match: { value: "b" } }] } },
      });
      return (await retriever.invoke("what may the tenant do?")).map(({ metadata }) => metadata.page).toSorted();
    };
    expect(await ask(compare("gte", "page", 4))).toEqual([4, 5]);
    expect(await ask(combine("or", compare("eq", "page", 0), compare("eq", "page", "3")))).toEqual([3]);
    expect(await ask(undefined)).toEqual([3, 4, 5]);
    await expect(ask(compare("eq", "tenant", "a"))).rejects.toThrow(/asks about "tenant"/);
  });
});
