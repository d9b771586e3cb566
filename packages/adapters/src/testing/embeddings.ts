/** The contract of LangChain embeddings: the two cases of Python's langchain-tests, and ours. */
import assert from "node:assert/strict";
import { type Case, type ExpectedFailures, runContract, type TestFramework } from "./contract.js";

/** `EmbeddingsInterface` of @langchain/core. */
export interface EmbeddingsLike {
  embedQuery(text: string): Promise<number[]>;
  embedDocuments(texts: string[]): Promise<number[][]>;
}

export interface EmbeddingsSubject {
  readonly create: () => EmbeddingsLike | Promise<EmbeddingsLike>;
  /** The same model with another context; its vectors must differ. */
  readonly createWithOtherContext?: () => EmbeddingsLike | Promise<EmbeddingsLike>;
  /** Largest difference of a component between two runs of one text, alone and in a batch. @default 1e-6 */
  readonly tolerance?: number;
  readonly expectedFailures?: ExpectedFailures<EmbeddingsCase>;
}

export type EmbeddingsCase =
  | "embed_query"
  | "embed_documents"
  | "plain_numbers"
  | "alone_equals_in_batch"
  | "order"
  | "empty_input"
  | "determinism"
  | "other_context"
  | "concurrent_queries";

/** Of one word and of many, so that batches are padded. */
const TEXTS = [
  "flood",
  "The tenant pays for damage by water unless the landlord was warned in writing.",
  "A cat.",
  "Interest is due on the first of each month, at the rate that the bank publishes for that month, and is added to " +
    "the principal where it is not paid within ten days.",
  "Résumé – naïve, 東京, 🙂",
  "The tenant repairs the roof.",
  "cats and dogs",
];

const cases: Record<EmbeddingsCase, Case<EmbeddingsSubject>> = {
  embed_query: {
    title: "a query is an array of numbers, of one length for all texts",
    async run({ create }) {
      const embeddings = await create();
      const [one, two] = [await embeddings.embedQuery("foo"), await embeddings.embedQuery("bar foo")];
      requireVector(one);
      requireVector(two);
      assert.equal(two.length, one.length);
    },
  },
  embed_documents: {
    title: "documents give one vector a text, all of one length, that of a query",
    async run({ create }) {
      const embeddings = await create();
      const vectors = await embeddings.embedDocuments(["foo", "bar", "baz"]);
      assert.equal(vectors.length, 3);
      for (const vector of vectors) requireVector(vector);
      const { length } = await embeddings.embedQuery("foo");
      assert.deepEqual(new Set(vectors.map((vector) => vector.length)), new Set([length]));
    },
  },
  plain_numbers: {
    title: "vectors survive JSON, as stores behind HTTP need",
    async run({ create }) {
      const embeddings = await create();
      const vectors = [await embeddings.embedQuery("foo"), ...(await embeddings.embedDocuments(["bar"]))];
      assert.deepEqual(JSON.parse(JSON.stringify(vectors)), vectors);
    },
  },
  alone_equals_in_batch: {
    title: "a text alone has the vector that it has in a batch",
    async run({ create, tolerance }) {
      const embeddings = await create();
      const batch = await embeddings.embedDocuments(TEXTS);
      for (const [i, text] of TEXTS.entries()) {
        const [alone] = await embeddings.embedDocuments([text]);
        requireEqual(alone, batch[i], tolerance, text);
      }
      // The control: two texts differ.
      assert.ok(difference(batch[0], batch[1]) > 1e-3, "two different texts have the same vector");
    },
  },
  order: {
    title: "vectors come in the order of the texts, repeats included",
    async run({ create, tolerance }) {
      const embeddings = await create();
      const forward = await embeddings.embedDocuments(TEXTS);
      const backward = await embeddings.embedDocuments([...TEXTS.toReversed(), TEXTS[0] as string]);
      for (const [i, text] of TEXTS.entries()) {
        requireEqual(backward[TEXTS.length - 1 - i], forward[i], tolerance, text);
      }
      requireEqual(backward.at(-1), forward[0], tolerance, TEXTS[0] as string);
      assert.ok(difference(forward[0], forward.at(-1)) > 1e-3, "the first and the last text have the same vector");
    },
  },
  empty_input: {
    title: "no texts give no vectors",
    async run({ create }) {
      assert.deepEqual(await (await create()).embedDocuments([]), []);
    },
  },
  determinism: {
    title: "the same text gives the same vector again, also from embeddings made anew",
    async run({ create, tolerance }) {
      const [first, second] = [await create(), await create()];
      for (const embeddings of [first, second]) {
        requireEqual(await embeddings.embedQuery("foo"), await first.embedQuery("foo"), tolerance, "foo");
        const [one, two] = [await embeddings.embedDocuments(TEXTS), await first.embedDocuments(TEXTS)];
        for (const [i, text] of TEXTS.entries()) requireEqual(one[i], two[i], tolerance, text);
      }
    },
  },
  other_context: {
    title: "another context gives other vectors, of queries and of documents",
    skip: ({ createWithOtherContext }) =>
      createWithOtherContext ? undefined : "these embeddings know no context (createWithOtherContext)",
    async run({ create, createWithOtherContext }) {
      const [here, there] = [await create(), await createWithOtherContext!()];
      const text = TEXTS[1] as string;
      const [ours, theirs] = [await here.embedQuery(text), await there.embedQuery(text)];
      assert.ok(difference(ours, theirs) > 1e-3, "the query has the same vector in both contexts");
      const [[mine], [yours]] = [await here.embedDocuments([text]), await there.embedDocuments([text])];
      assert.ok(difference(mine, yours) > 1e-3, "the document has the same vector in both contexts");
    },
  },
  concurrent_queries: {
    title: "1,000 queries at once give what they give one by one",
    async run({ create, tolerance }) {
      const embeddings = await create();
      const queries = Array.from({ length: 25 }, (_, i) => `${TEXTS[i % TEXTS.length]} ${i}`);
      const expected: number[][] = [];
      for (const query of queries) expected.push(await embeddings.embedQuery(query));
      const asked = Array.from({ length: 1000 }, (_, i) => (7 * i) % queries.length);
      const found = await Promise.all(asked.map((i) => embeddings.embedQuery(queries[i] as string)));
      for (const [at, i] of asked.entries()) requireEqual(found[at], expected[i], tolerance, queries[i] as string);
      assert.ok(difference(expected[0], expected[1]) > 1e-3, "two queries have the same vector");
    },
  },
};

/** Registers one test a case. `{ describe, test }` are vitest's. */
export function embeddingsContract(framework: TestFramework, name: string, subject: EmbeddingsSubject): void {
  runContract(framework, `${name} keeps the contract of embeddings`, cases, subject);
}

function requireVector(vector: number[]): void {
  assert.ok(Array.isArray(vector), `a vector is ${Object.prototype.toString.call(vector)}, expected a plain array`);
  assert.ok(vector.length > 0 && vector.every(Number.isFinite), "a vector is empty or holds what is no finite number");
}

/** Largest difference of a component; infinite for vectors of two lengths, NaN and undefined. */
function difference(one: readonly number[] | undefined, two: readonly number[] | undefined): number {
  if (!one || !two || one.length !== two.length) return Number.POSITIVE_INFINITY;
  const largest = one.reduce((most, value, i) => Math.max(most, Math.abs(value - (two[i] as number))), 0);
  return Number.isNaN(largest) ? Number.POSITIVE_INFINITY : largest;
}

function requireEqual(
  found: readonly number[] | undefined,
  expected: readonly number[] | undefined,
  tolerance = 1e-6,
  text = "",
): void {
  const off = difference(found, expected);
  assert.ok(off <= tolerance, `the vectors of ${JSON.stringify(text.slice(0, 40))} differ by ${off}`);
}
