/** From embedded to server by one argument: the same program, the same answers, and clear errors for the rest. */
import { CorpusRetriever } from "@cde-js/adapters/langchain";
import { QdrantIndex, qdrant } from "@cde-js/adapters/qdrant";
import { contextualize, type FunctionEmbedder } from "@cde-js/core";
import { type DataSet, evaluate } from "@cde-js/core/evaluation";
import { CorpusIndex, type Hit, type SearchIndex, type SearchMode } from "@cde-js/retriever";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { bySentence, corpus, newName, queries, testServer, unequalCorpus } from "./support.js";

const plain = stubEmbedder({ maxTokens: 512 });
const documents = unequalCorpus(60);

function inContext(seed: number): Promise<FunctionEmbedder> {
  return contextualize(
    async (texts) => (await plain.embedDocuments(texts)).vectors,
    corpus(40, seed).map(({ text }) => text),
    {
      modelId: "stub/function",
      countTokens: (text) => plain.countTokens!(text),
      maxTokens: 512,
      strength: { a: 0.35, s: 0.3, b: 0.5 },
    },
  );
}

async function backend() {
  const server = await testServer();
  const payloadIndexes = { court: "keyword", year: "integer", tags: "keyword", open: "bool" };
  return qdrant({ ...server.options, collection: newName(server), search: { exact: true }, payloadIndexes });
}

/** What one program sees of an index, whatever the index is. */
async function program(index: SearchIndex, first: FunctionEmbedder, second: FunctionEmbedder): Promise<unknown[]> {
  const seen: unknown[] = [];
  const ids = async (filter?: Parameters<SearchIndex["documents"]>[0]): Promise<string[]> => {
    const all: string[] = [];
    for await (const { id } of index.documents(filter)) all.push(id);
    return all.sort();
  };
  const ask = async (modes: readonly SearchMode[]): Promise<void> => {
    for (const [i, query] of queries(9).entries()) {
      const mode = modes[i % modes.length]!;
      const filter = { must: [{ key: "year", range: { gte: 2005 } }] };
      seen.push(await index.search(query, { mode, k: 5 }), await index.search(query, { mode, filter, k: 5 }));
      seen.push(await index.searchVector(await index.embedder.embedQuery(query), { k: 5 }));
    }
  };
  const { report, hasLexicalPart, canRollBack, dimensions, modelId } = index;
  seen.push({ report, hasLexicalPart, canRollBack, dimensions, modelId, context: index.context?.fingerprint });
  seen.push(await index.counts());
  await ask(["dense", "lexical", "hybrid"]);
  const changed = { ...documents[3]!, text: "Pigeons took the roof over." };
  seen.push(await index.upsert([changed, documents[4]!, { id: "new", text: "A new flood.", metadata: { year: 1 } }]));
  seen.push(await index.upsert([{ ...documents[5]!, metadata: { court: "moot" } }]));
  seen.push(await index.get("new"), await index.getMany(["new", "nobody", documents[3]!.id]));
  seen.push(await index.updateMetadata("new", { year: 2020, court: "moot", "odd.key": [1] }));
  seen.push(await index.updateMetadata({ filter: { must: [{ key: "court", match: { value: "moot" } }] } }, { year: undefined, court: "full", seen: true })); // biome-ignore format: one idea
  seen.push(await index.updateMetadata({ ids: ["new", "nobody"] }, {}));
  seen.push(await index.getMany(["new", documents[5]!.id]));
  seen.push(await ids({ filter: { must: [{ key: "seen", match: { value: true } }] } }));
  seen.push(await index.delete(documents[0]!.id), await index.delete([documents[1]!.id, "nobody"]));
  seen.push(await index.delete({ ids: [documents[2]!.id] }));
  seen.push(await index.delete({ filter: { must: [{ key: "court", match: { value: "supreme" } }] } }));
  seen.push(await ids(), await index.counts());
  await ask(["hybrid", "dense", "lexical"]);
  const { seconds: _, ...moved } = await index.recontext({ embedder: second });
  seen.push(moved, index.fingerprint === second.fingerprint, index.canRollBack);
  // By meaning alone from here on: a new generation measures the average length anew, a server keeps its own.
  await ask(["dense"]);
  const { seconds: __, ...back } = await index.rollback({ embedder: first });
  seen.push(back, index.fingerprint === first.fingerprint);
  await ask(["dense"]);
  return seen;
}

const isHits = (value: unknown): value is Hit[] =>
  Array.isArray(value) && value.every((hit) => typeof hit === "object" && hit !== null && "scoring" in hit);

/** Hits without the scores of their parts, which a server that fuses doesn't tell. */
function withoutParts(value: unknown): unknown {
  return isHits(value) ? value.map(({ scores: _, ...hit }) => hit) : value;
}

/** The same with scores that may differ by 1e-4. */
function nearly(value: unknown): unknown {
  if (!isHits(value)) return value;
  return value.map(({ scores: _, score, ...hit }) => ({ ...hit, score: expect.closeTo(score, 4) }));
}

describe("the same program", () => {
  test("sees the same of an embedded index and of a server, scores within 1e-4", async () => {
    const [first, second] = [await inContext(7), await inContext(8)];
    const found: unknown[][] = [];
    for (const place of [{}, { backend: await backend() }]) {
      await using index = await CorpusIndex.build(first, documents, { split: bySentence, ...place });
      expect(index instanceof QdrantIndex).toBe("backend" in place);
      found.push(await program(index, first, second));
    }
    const [here, there] = found as [unknown[], unknown[]];
    expect(there).toHaveLength(here.length);
    for (const [i, value] of here.entries()) {
      // A report of writing on the server says more.
      const own = there[i];
      if (value && typeof value === "object" && "metadataChanged" in value) expect(own).toMatchObject(value);
      else expect(withoutParts(own)).toEqual(nearly(value));
    }
    // The control: the two contexts rank differently.
    const searches = here.filter((value) => Array.isArray(value) && value.length > 0);
    expect(new Set(searches.map((value) => JSON.stringify(value))).size).toBeGreaterThan(40);
  });

  test("opens what it built, chooses its own context, and is searched by a retriever and an evaluation", async () => {
    const place = { backend: await backend() };
    const encoder = {
      modelId: "stub/function",
      maxTokens: 512,
      contextSize: undefined,
      countTokens: (text: string) => plain.countTokens!(text),
      buildContext: async (texts: readonly string[]) => {
        const made = await contextualize(async (some) => (await plain.embedDocuments(some)).vectors, texts, {
          modelId: "stub/function",
        });
        return made.context;
      },
      withContext: (context: FunctionEmbedder["context"]) => bound.withContext(context),
      withoutContext: () => bound.withStrength("off"),
    };
    const bound = await inContext(7);
    await using index = await CorpusIndex.fromCorpus(encoder, () => documents, { contextSize: 50, ...place });
    expect(index.context?.fingerprint).toBe(index.fingerprint);
    await using opened = await CorpusIndex.open(bound.withContext(index.context!), place);
    expect(await opened.counts()).toEqual(await index.counts());
    // Opened, it writes base vectors too, and another context costs no encoding.
    expect(await opened.upsert([{ id: "more", text: "More of it." }])).toMatchObject({ added: 1 });
    expect(await opened.recontext({ embedder: bound })).toMatchObject({ embedded: false });
    const retriever = new CorpusRetriever({ index: opened, k: 2, parentDocuments: true });
    expect((await retriever.invoke("flood insurance")).map(({ id }) => id)).toEqual(
      (await opened.search("flood insurance", { k: 2, mergeByDocument: true })).map(({ id }) => id),
    );
    const target = documents[9]!;
    const judged: DataSet = {
      name: "own",
      split: "test",
      documents: documents.map(({ id, text }) => ({ id, title: "", text })),
      queries: [{ id: "q", text: target.text }],
      qrels: new Map([["q", new Map([[target.id, 1]])]]),
    };
    expect((await evaluate(opened, judged, { metrics: ["ndcg@10"] })).mean["ndcg@10"]).toBe(1);
  });
});

describe("what a backend can't follow", () => {
  test.each([
    ["directory", "x"],
    ["resume", true],
    ["notes", {}],
    ["rows", "int8"],
    ["vectorIndex", () => {}],
    ["autoCompact", false],
  ])("%s is refused at building, before anything is made", async (name, value) => {
    const place = await backend();
    const options = { backend: place, [name]: value } as { backend: typeof place };
    await expect(CorpusIndex.build(plain, documents, options)).rejects.toThrow(
      `build: ${name} is of the embedded index, and the Qdrant collection`,
    );
    await expect(CorpusIndex.fromCorpus({} as never, () => [], options)).rejects.toThrow(`fromCorpus: ${name} is of`);
    await expect(CorpusIndex.open(plain, options)).rejects.toThrow(`open: ${name} is of the embedded index`);
    await expect(CorpusIndex.open(plain, place as never)).rejects.toThrow(/backend must be what qdrant/);
  });

  test("what is no backend, a directory beside one, and an encoder without context are refused", async () => {
    const place = await backend();
    for (const wrong of [null, "qdrant", {}, { name: "x" }]) {
      await expect(CorpusIndex.build(plain, [], { backend: wrong as never })).rejects.toThrow(/backend must be/);
    }
    await expect(CorpusIndex.open("folder", plain, { backend: place } as never)).rejects.toThrow(/a directory is of/);
    const encoder = { withContext: () => plain, withoutContext: () => plain };
    await expect(CorpusIndex.open(encoder as never, { backend: place })).rejects.toThrow(/keeps no context/);
    for (const name of ["split", "lexical", "signal"]) {
      expect(() => qdrant({ collection: "c", [name]: false } as never)).toThrow(`Put it beside backend: { ${name},`);
    }
    await expect(
      CorpusIndex.build(plain, [], { lexical: false, backend: qdrant({ collection: "c", averageLength: 3 }) }),
    ).rejects.toThrow(/averageLength is of words/);
  });

  test("options of an embedded change of context, and another embedder to go back to, are refused", async () => {
    const [first, second, third] = [await inContext(7), await inContext(8), await inContext(9)];
    await using index = await CorpusIndex.build(first, documents.slice(0, 9), { backend: await backend() });
    for (const name of ["judged", "strategy", "contextSize", "context"]) {
      await expect(index.recontext({ embedder: second, [name]: 1 } as never)).rejects.toThrow(
        `recontext: ${name} can't be followed on a server`,
      );
    }
    await expect(index.recontext({} as never)).rejects.toThrow(/needs \{ embedder \}/);
    await expect(index.rollback({ embedder: first })).rejects.toThrow(/has no context before/);
    await index.recontext({ embedder: second });
    await expect(index.rollback({ embedder: third })).rejects.toMatchObject({
      code: "FINGERPRINT_MISMATCH",
      expected: first.fingerprint,
      actual: third.fingerprint,
    });
    await expect(index.updateMetadata("nobody", { a: 1 })).rejects.toThrow(/no document with the id "nobody"/);
    await expect(index.updateMetadata({ ids: [] }, { cde: undefined })).rejects.toThrow(/"cde" is reserved/);
    await expect(index.updateMetadata({ ids: [] }, [] as never)).rejects.toThrow(/must be an object of fields/);
    await expect(index.delete({} as never)).rejects.toThrow(/by \{ ids \} or by \{ filter \}/);
    await expect(index.delete({ ids: [7] as never })).rejects.toThrow(/array of strings/);
  });

  test("vectors of another context are refused, in searches and writes", async () => {
    const [first, second] = [await inContext(7), await inContext(8)];
    const server = await testServer();
    const options = { ...server.options, collection: newName(server), base: false } as const;
    await using index = await CorpusIndex.build(first, documents.slice(0, 5), { backend: qdrant(options) });
    const [vector] = (await second.embedDocuments(["flood"])).vectors as [Float32Array];
    const other = { code: "FINGERPRINT_MISMATCH", expected: first.fingerprint, actual: second.fingerprint };
    await expect(index.searchVector(vector)).rejects.toMatchObject(other);
    await expect(index.upsertVectors([{ id: "x", text: "flood" }], [vector])).rejects.toMatchObject(other);
    const { fingerprint } = second;
    await expect(index.searchVector(vector.slice(), { fingerprint })).rejects.toMatchObject(other);
    const [own] = (await first.embedDocuments(["flood"])).vectors as [Float32Array];
    expect(await index.upsertVectors([{ id: "x", text: "flood" }], [own])).toMatchObject({ added: 1, embedded: 0 });
    expect((await index.searchVector(own, { k: 1 }))[0]).toMatchObject({ id: "x" });
  });
});
