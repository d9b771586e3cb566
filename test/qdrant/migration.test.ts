/** A change of context on the server: complete, resumable, revocable, and never a mixture. */
import { QdrantIndex, type SpectralBase } from "@cde-js/adapters/qdrant";
import { contextualize, type Embedder, type FunctionEmbedder } from "@cde-js/core";
import { type CorpusDocument, CorpusIndex, type Hit } from "@cde-js/retriever";
import { beforeEach, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, doubleOnly, newName, queries, type TestServer, testServer } from "./support.js";

const plain = stubEmbedder({ maxTokens: 128 });
/** Texts that the model had to encode as documents. */
let encoded = 0;

function inContext(seed: number): Promise<FunctionEmbedder> {
  return contextualize(
    async (texts, { kind }) => {
      if (kind === "document") encoded += texts.length;
      return (await plain.embedDocuments(texts)).vectors;
    },
    corpus(60, seed).map(({ text }) => text),
    { modelId: "stub/function", countTokens: (text) => plain.countTokens!(text), maxTokens: 128, size: 60 },
  );
}

const baseOf = (embedder: FunctionEmbedder): SpectralBase => ({
  embedder: embedder.withStrength("off"),
  context: embedder.context,
});

const documents: readonly CorpusDocument[] = [...corpus(120), { id: "blank", text: " " }];
const shown = (hits: readonly Hit[]): string => hits.map(({ id, score }) => `${id} ${score.toFixed(4)}`).join();

describe("from one spectral context to another", () => {
  let server: TestServer;
  let first: FunctionEmbedder;
  let second: FunctionEmbedder;
  let index: QdrantIndex;
  const options = () => ({ ...server.options, collection: index.collection });
  beforeEach(async () => {
    server = await testServer();
    first = await inContext(7);
    second = await inContext(8);
    index = await QdrantIndex.build(first, documents, {
      ...server.options,
      collection: newName(server),
      base: baseOf(first),
      search: { exact: true },
    });
    return () => index.close();
  });

  /** What an embedded index answers, with vectors that were encoded afresh. */
  async function embedded(embedder: FunctionEmbedder, asked: readonly string[]): Promise<string[]> {
    await using local = await CorpusIndex.build(embedder, documents);
    const answers: string[] = [];
    for (const query of asked) answers.push(shown(await local.search(query, { mode: "dense", k: 5 })));
    return answers;
  }

  test("queries are answered throughout, each by one context, and nothing is encoded again", async () => {
    const asked = queries(6);
    const [before, after] = [await embedded(first, asked), await embedded(second, asked)];
    for (const [i, answer] of before.entries()) expect(answer).not.toBe(after[i]);
    let moving = true;
    const seen = { before: 0, after: 0 };
    const ask = async (): Promise<void> => {
      for (let i = 0; moving || seen.after === 0; i = (i + 1) % asked.length) {
        const answer = shown(await index.search(asked[i]!, { mode: "dense", k: 5 }));
        if (answer === before[i]) seen.before++;
        else if (answer === after[i]) seen.after++;
        else expect.fail(`${answer} is neither ${before[i]} nor ${after[i]}`);
      }
    };
    const asking = [ask(), ask()];
    encoded = 0;
    const steps = new Set<string>();
    await index.recontext({ embedder: second, base: baseOf(second), onProgress: ({ step }) => steps.add(step) });
    moving = false;
    await Promise.all(asking);
    expect(encoded).toBe(0);
    expect([...steps]).toEqual(["filling", "checking", "done"]);
    expect(seen.before).toBeGreaterThan(0);
    expect(seen.after).toBeGreaterThan(0);
    expect(index.fingerprint).toBe(second.fingerprint);
    await expect(QdrantIndex.open(first, options())).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
    await using opened = await QdrantIndex.open(second, options());
    expect(shown(await opened.search(asked[0]!, { mode: "dense", k: 5 }))).toBe(after[0]);
  });

  test("goes back at once, and forward again, also after documents were added", async () => {
    const query = "flood insurance claim";
    const answer = shown(await index.search(query, { mode: "dense" }));
    await index.recontext({ embedder: second, base: baseOf(second) });
    await index.upsert([{ id: "new", text: "Wholly unrelated: pigeons." }]);
    encoded = 0;
    await index.rollback();
    expect(encoded).toBe(0);
    expect(index.fingerprint).toBe(first.fingerprint);
    expect(shown(await index.search(query, { mode: "dense" }))).toBe(answer);
    // What came meanwhile is there too.
    expect((await index.search("pigeons", { mode: "dense", k: 1 }))[0]?.id).toBe("new");
    await index.rollback();
    expect(index.fingerprint).toBe(second.fingerprint);
  });

  test("the generation before is dropped when one says so, and a reader that still wants it is told", async () => {
    await using reader = await QdrantIndex.open(first, options());
    await index.recontext({ embedder: second, base: baseOf(second) });
    // It goes on in its own context, unmixed, until its vectors go.
    expect((await reader.search("flood")).length).toBe(10);
    await index.dropPrevious();
    await expect(reader.search("flood")).rejects.toMatchObject({
      code: "FINGERPRINT_MISMATCH",
      expected: second.fingerprint,
    });
    await expect(reader.upsert([{ id: "x", text: "x" }])).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
    await expect(index.rollback()).rejects.toThrow(/knows no generation before/);
    expect((await index.search("flood")).length).toBe(10);
    if (server.double) {
      const names = new Set(server.double.dump(index.collection).flatMap(({ vectors }) => Object.keys(vectors)));
      expect(names.size).toBe(3); // base, bm25, the context
    }
  });

  test("interrupted anywhere, it goes on where it was; and can be given up", async ({ skip }) => {
    if (!server.double) return skip(doubleOnly);
    await using fragile = await QdrantIndex.open(first, { ...options(), base: baseOf(first), retries: 0 });
    let failures = 0;
    const { double } = server;
    for (let skip = 1; ; skip++) {
      double.behave();
      double.misbehave({ skip, times: 99, fault: { kind: "cut", when: skip % 2 ? "after" : "before" } });
      try {
        await fragile.recontext({ embedder: second, base: baseOf(second) });
        break;
      } catch (error) {
        if ((error as { code: string }).code === "FINGERPRINT_MISMATCH") break; // the switch was made, its answer lost
        expect(error).toMatchObject({ code: "QDRANT_UNREACHABLE" });
        failures++;
        if (failures !== 4) continue;
        // Half way, another context is refused until the first is done or given up.
        double.behave();
        const third = await inContext(9);
        await expect(fragile.recontext({ embedder: third, base: baseOf(third) })).rejects.toThrow(
          /is unfinished.*abandon: true/,
        );
        const writing = index.upsert([{ id: "x", text: "x" }]);
        await expect(writing).rejects.toThrow(/is moving to the context/);
      }
    }
    expect(failures).toBeGreaterThan(4);
    double.behave();
    await using opened = await QdrantIndex.open(second, options());
    const asked = queries(3);
    const expected = await embedded(second, asked);
    for (const [i, query] of asked.entries()) {
      expect(shown(await opened.search(query, { mode: "dense", k: 5 }))).toBe(expected[i]);
    }
  });

  test("an unfinished change is given up by name", async ({ skip }) => {
    if (!server.double) return skip(doubleOnly);
    await using fragile = await QdrantIndex.open(first, { ...options(), base: baseOf(first), retries: 0 });
    server.double.misbehave({
      method: "PUT",
      path: /points\/vectors/,
      times: 9,
      fault: { kind: "cut", when: "before" },
    });
    await expect(fragile.recontext({ embedder: second, base: baseOf(second) })).rejects.toMatchObject({
      code: "QDRANT_UNREACHABLE",
    });
    server.double.behave();
    const third = await inContext(9);
    await index.recontext({ embedder: third, base: baseOf(third), abandon: true });
    expect(index.fingerprint).toBe(third.fingerprint);
    const names = server.double.dump(index.collection).flatMap(({ vectors }) => Object.keys(vectors));
    expect(names.some((name) => second.fingerprint.startsWith(name.replace("context-", "")))).toBe(false);
  });

  test("vectors that aren't those of the context are found before the switch", async ({ skip }) => {
    if (!server.double) return skip(doubleOnly);
    server.double.misbehave({
      method: "POST",
      path: /scroll/,
      times: 1,
      fault: {
        kind: "answer",
        // Every base vector is that of the first point.
        change: (body) => {
          const { result } = body as { result: { points: { vector: unknown }[] } };
          for (const point of result.points) point.vector = result.points[0]!.vector;
          return body;
        },
      },
    });
    await expect(index.recontext({ embedder: second, base: baseOf(second) })).rejects.toThrow(
      /isn't what its context gives \(cosine/,
    );
    expect(index.fingerprint).toBe(first.fingerprint);
    expect((await index.search("flood")).length).toBe(10);
  });

  test("points that go while it runs, and documents that come, do no harm", async ({ skip }) => {
    if (!server.double) return skip(doubleOnly);
    let done = false;
    const changing = (async () => {
      for (let i = 0; !done; i++) {
        await index.delete([`case/${i}`]);
        await index.upsert([{ id: `new/${i}`, text: `Number ${i} of the floods.` }]);
      }
    })();
    await index.recontext({ embedder: second, base: baseOf(second) });
    done = true;
    await changing;
    const points = server.double.dump(index.collection);
    const name = `context-${second.fingerprint.slice(0, 16)}`;
    const lacking = points.filter(
      ({ payload, vectors }) => !(name in vectors) && (payload.cde as { of: number }).of > 0,
    );
    expect(lacking).toEqual([]);
    expect(points.some(({ payload }) => (payload.cde as { id: string }).id.startsWith("new/"))).toBe(true);
  });

  test("who can't make base vectors may search and not write", async () => {
    // As an embedder that doesn't say what gives its base vectors.
    const { modelId, fingerprint, dimensions, maxTokens, batchInvariant } = first;
    const silent: Embedder = {
      ...{ modelId, fingerprint, dimensions, maxTokens, batchInvariant },
      countTokens: (text) => plain.countTokens!(text),
      embedQuery: (text) => first.embedQuery(text),
      embedQueries: (texts) => first.embedQueries(texts),
      embedDocuments: (texts) => first.embedDocuments(texts),
      embedStream: (texts) => first.embedStream(texts),
    };
    await using reader = await QdrantIndex.open(silent, options());
    expect((await reader.search("flood")).length).toBe(10);
    await expect(reader.upsert([{ id: "x", text: "x" }])).rejects.toThrow(/keeps base vectors.*Open it with \{ base/);
    const vector = await first.embedQuery("x");
    await expect(reader.upsertVectors([{ id: "x", text: "x" }], [vector])).rejects.toThrow(/keeps base vectors/);
    // The control: the embedder itself says it.
    await using writer = await QdrantIndex.open(first, options());
    expect(await writer.upsert([{ id: "x", text: "x" }])).toMatchObject({ added: 1, replaced: 0, embedded: 1 });
  });

  test("base vectors and contexts that don't belong together are refused", async () => {
    const other = await contextualize(
      async (texts) => (await stubEmbedder({ context: "o" }).embedDocuments(texts)).vectors,
      ["a b", "c d", "e"],
      {
        modelId: "another",
      },
    );
    await expect(index.recontext({ embedder: second, base: baseOf(first) })).rejects.toMatchObject({
      code: "FINGERPRINT_MISMATCH",
    });
    const mixed = { embedder: other.withStrength("off"), context: second.context };
    await expect(index.recontext({ embedder: second, base: mixed })).rejects.toMatchObject({
      code: "FINGERPRINT_MISMATCH",
    });
    await expect(index.recontext({ embedder: other, base: baseOf(other) })).rejects.toThrow(/keeps base vectors of/);
    expect(index.fingerprint).toBe(first.fingerprint);
  });
});

test("contexts that are no map are filled from the stored texts, titles included", async () => {
  const server = await testServer();
  const [first, second] = [stubEmbedder(), stubEmbedder({ context: "second", dimensions: 96 })];
  await using index = await QdrantIndex.build(first, corpus(50), {
    ...server.options,
    collection: newName(server),
    search: { exact: true },
  });
  await index.recontext({ embedder: second });
  await using local = await CorpusIndex.build(second, corpus(50));
  for (const query of queries(5)) {
    expect(shown(await index.search(query, { mode: "dense" }))).toBe(
      shown(await local.search(query, { mode: "dense" })),
    );
  }
  expect(index.dimensions).toBe(96);
});
