/** Collections and writes: what is made, what is refused, and uploads that are interrupted anywhere. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type QdrantCreateOptions, QdrantIndex } from "@cde-js/adapters/qdrant";
import { createRandom, FingerprintMismatchError, mulberry32 } from "@cde-js/core";
import type { CorpusDocument } from "@cde-js/retriever";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, doubleOnly, isReal, misbehave, newDouble, newName, type TestServer, testServer } from "./support.js";

/** As much of `GET /collections/…` as is looked at. */
interface CollectionAnswer {
  readonly config: {
    readonly params: {
      readonly shard_number: number;
      readonly vectors: Record<string, Record<string, unknown>>;
      readonly sparse_vectors: Record<string, unknown>;
    };
    readonly metadata: { readonly cde: { readonly lexical: { readonly averageLength: number } } };
  };
  readonly payload_schema: object;
}

const embedder = stubEmbedder();
const build = (server: TestServer, documents: readonly CorpusDocument[], options: Partial<QdrantCreateOptions> = {}) =>
  QdrantIndex.build(embedder, documents, { ...server.options, collection: newName(server), ...options });

describe("collections", () => {
  test("payload indexes come before the first write, parameters are passed on, and metadata say what it is", async () => {
    const server = await testServer();
    await using index = await build(server, corpus(4), {
      payloadIndexes: { court: "keyword", year: { type: "integer", lookup: true, range: true } },
      parameters: { shard_number: 2, replication_factor: 1, write_consistency_factor: 1, on_disk_payload: true },
      vectors: { on_disk: true, quantization_config: { scalar: { type: "int8", quantile: 0.99, always_ram: true } } },
    });
    const response = await fetch(`${server.options.url}/collections/${index.collection}`, {
      headers: server.options.apiKey === undefined ? {} : { "api-key": server.options.apiKey },
    });
    const { result } = (await response.json()) as { result: CollectionAnswer };
    expect(result.config.params.shard_number).toBe(2);
    const [[name, vector]] = Object.entries(result.config.params.vectors) as [[string, Record<string, unknown>]];
    expect(vector).toMatchObject({ size: 64, distance: "Cosine", on_disk: true });
    expect(vector.quantization_config).toMatchObject({ scalar: { type: "int8" } });
    expect(result.config.params.sparse_vectors.bm25).toMatchObject({ modifier: "idf" });
    expect(result.config.metadata.cde).toMatchObject({
      format: "cde-qdrant/2",
      modelId: embedder.modelId,
      contextFingerprint: embedder.fingerprint,
      dimensions: 64,
      vector: name,
      generation: 1,
    });
    expect(Object.keys(result.payload_schema).sort()).toEqual([
      "cde.draw",
      "cde.id",
      "cde.n",
      "cde.of",
      "court",
      "year",
    ]);
    if (!server.double) return;
    const kinds = server.double.requests.map(({ method, path }) => `${method} ${path.split("/").pop()}`);
    expect(kinds.lastIndexOf("PUT index")).toBeLessThan(kinds.indexOf("PUT points"));
    // No request needs rights over other collections.
    expect(server.double.requests.some(({ path }) => path === "/collections")).toBe(false);
  });

  test("another context, dimension or distance is refused with both values", async () => {
    const server = await testServer();
    await using index = await build(server, corpus(2));
    const options = { ...server.options, collection: index.collection };
    const other = stubEmbedder({ context: "other" });
    for (const open of [QdrantIndex.open(other, options), QdrantIndex.create(other, options)]) {
      const error: unknown = await open.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(FingerprintMismatchError);
      expect(error).toMatchObject({ expected: embedder.fingerprint, actual: other.fingerprint });
    }
    // The fingerprint of another embedder claimed.
    const wide = { ...stubEmbedder({ dimensions: 32 }), fingerprint: embedder.fingerprint };
    await expect(QdrantIndex.open(wide, options)).rejects.toThrow(/has 64 dimensions, .* has 32/);
    const plain = newName(server);
    await fetch(`${server.options.url}/collections/${plain}`, {
      method: "PUT",
      headers: {
        "content-type": "application/json",
        ...(server.options.apiKey ? { "api-key": server.options.apiKey } : {}),
      },
      body: JSON.stringify({ vectors: { size: 64, distance: "Dot" } }),
    });
    await expect(QdrantIndex.create(embedder, { ...options, collection: plain })).rejects.toMatchObject({
      code: "QDRANT_COLLECTION",
    });
    await expect(QdrantIndex.open(embedder, { ...options, collection: newName(server) })).rejects.toThrow(
      /has no collection/,
    );
  });

  test("an index of another distance behind the right metadata is refused", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    await using index = await build(server, corpus(2));
    misbehave(server, {
      method: "GET",
      path: /collections\/[^/]+$/,
      fault: { kind: "answer", change: (body) => JSON.parse(JSON.stringify(body).replaceAll('"Cosine"', '"Dot"')) },
    });
    const open = QdrantIndex.open(embedder, { ...server.options, collection: index.collection });
    await expect(open).rejects.toThrow(/distance Dot, expected Cosine/);
  });

  test("a collection that is there is opened where it was made alike, and refused where not", async () => {
    const server = await testServer();
    await using index = await build(server, corpus(3));
    const options = { ...server.options, collection: index.collection };
    expect(index.report).toMatchObject({ documents: 3, resumed: 0 });
    const { passages } = await index.counts();
    await using again = await QdrantIndex.build(embedder, corpus(3), options);
    expect(again.report).toMatchObject({ documents: 3, resumed: 3, passages });
    expect(await again.countDocuments()).toBe(3);
    await expect(QdrantIndex.create(embedder, { ...options, lexical: false })).rejects.toThrow(
      /the analyzer words-1 en.*none/,
    );
    await expect(QdrantIndex.create(embedder, { ...options, tenants: true, tenant: "a" })).rejects.toThrow(
      /tenants false.*true/,
    );
    await expect(QdrantIndex.open(embedder, { ...options, tenant: "a" })).rejects.toThrow(/has no tenants/);
    await expect(QdrantIndex.create(embedder, { ...options, parameters: { vectors: {} } })).rejects.toThrow(
      /parameters.vectors/,
    );
    await expect(QdrantIndex.create(embedder, { ...options, payloadIndexes: { "cde.x": "keyword" } })).rejects.toThrow(
      /reserved/,
    );
  });

  test("an alias reaches the same points: ids are made of the name that the collection was made with", async () => {
    const server = await testServer();
    await using index = await build(server, corpus(3));
    const alias = `${index.collection}-live`;
    await fetch(`${server.options.url}/collections/aliases`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(server.options.apiKey ? { "api-key": server.options.apiKey } : {}),
      },
      body: JSON.stringify({ actions: [{ create_alias: { collection_name: index.collection, alias_name: alias } }] }),
    });
    await using behind = await QdrantIndex.open(embedder, { ...server.options, collection: alias });
    expect((await behind.upsert(corpus(3))).unchanged).toBe(3);
    expect(await index.countDocuments()).toBe(3);
  });
});

describe("tenants", () => {
  test("see their own documents only, with ids and words of their own", async () => {
    const server = await testServer();
    const collection = newName(server);
    const options = { ...server.options, collection, tenants: true };
    await expect(QdrantIndex.create(embedder, options)).rejects.toThrow(/holds several tenants/);
    await using one = await QdrantIndex.build(embedder, corpus(20, 1), { ...options, tenant: "one" });
    await using two = await QdrantIndex.build(embedder, corpus(25, 5), { ...options, tenant: "two" });
    // The same ids, other texts.
    expect(await one.countDocuments()).toBe(20);
    expect(await two.countDocuments()).toBe(25);
    expect((await one.get("case/3"))?.text).toBe(corpus(20, 1)[3]?.text);
    expect((await two.get("case/3"))?.text).toBe(corpus(25, 5)[3]?.text);
    // Scores of words are those of an index of its own, whatever the other tenant wrote.
    const { averageLength } = await lengthOf(server, collection);
    await using alone = await build(server, corpus(20, 1), { lexical: { averageLength } });
    const search = { mode: "lexical", k: 50 } as const;
    const [found, expected] = [await one.search("flood court", search), await alone.search("flood court", search)];
    expect(found.length).toBeGreaterThan(5);
    expect(found.map(({ id, score }) => [id, score.toFixed(4)])).toEqual(
      expected.map(({ id, score }) => [id, score.toFixed(4)]),
    );
    expect(await one.delete({ filter: {} })).toBe(20);
    expect(await one.search("flood court")).toEqual([]);
    expect(await two.countDocuments()).toBe(25);
  });

  test("are an index of their own in the server, and part of each point's UUIDv5", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    const document = { id: "lease \u00e9t\u00e9", text: "The tenant pays." };
    for (const tenant of ["acme", "other"]) {
      await using _ = await build(server, [document], { collection: "leases", tenants: true, tenant });
    }
    // Python: uuid.uuid5(namespace, '["leases","acme","lease \u00e9t\u00e9",0]'), and of the other.
    const ids = ["70966fb6-6cc7-52b7-83a2-bc6dfe6ddce2", "63e7640c-e3fc-510c-ade9-6ac26a788bbc"];
    const points = server.double.dump("leases");
    expect(points.map(({ id }) => id).sort()).toEqual(ids.sort());
    expect(new Set(points.map(({ payload }) => (payload.cde as { id: string }).id))).toEqual(new Set([document.id]));
    const requests = server.double.requests.map(({ method, path, body }) => ({ kind: `${method} ${path}`, body }));
    const index = { field_name: "cde.tenant", field_schema: { type: "keyword", is_tenant: true } };
    const made = requests.findIndex(({ body }) => JSON.stringify(body) === JSON.stringify(index));
    expect(made).toBeGreaterThan(0);
    expect(made).toBeLessThan(requests.findIndex(({ kind }) => kind === "PUT /collections/leases/points"));
  });

  async function lengthOf({ options }: TestServer, collection: string): Promise<{ averageLength: number }> {
    const headers = options.apiKey === undefined ? {} : { "api-key": options.apiKey };
    const response = await fetch(`${options.url}/collections/${collection}`, { headers });
    const { result } = (await response.json()) as { result: CollectionAnswer };
    return result.config.metadata.cde.lexical;
  }
});

describe("writes", () => {
  test("unchanged texts are not embedded again, and metadata alone are written alone", async () => {
    let embedded = 0;
    const counting = {
      ...embedder,
      embedDocuments: (texts: readonly string[], options?: object) => {
        embedded += texts.length;
        return embedder.embedDocuments(texts, options);
      },
    };
    const server = await testServer();
    const documents = corpus(30);
    await using index = await QdrantIndex.build(counting, documents, {
      ...server.options,
      collection: newName(server),
    });
    const passages = await index.countPassages();
    expect(embedded).toBe(passages);
    const changed = documents.map((document, i) => {
      if (i === 4) return { ...document, text: "Quite another text." };
      return i === 9 ? { ...document, metadata: { year: 1800 } } : document;
    });
    const report = await index.upsert(changed);
    expect(report).toMatchObject({ documents: 30, passages: 1, embedded: 1 });
    expect(embedded).toBe(passages + 1);
    expect((await index.get("case/9"))?.metadata).toEqual({ year: 1800 });
    expect((await index.get("case/4"))?.text).toBe("Quite another text.");
  });

  test("a document that becomes shorter leaves no passage behind", async () => {
    const server = await testServer();
    const long = Array.from({ length: 12 }, (_, i) => `Sentence ${i} about a flooded cellar and its many pumps.`).join(
      " ",
    );
    await using index = await build(server, [{ id: "a", text: long }]);
    expect(await index.countPassages()).toBeGreaterThan(3);
    await index.upsert([{ id: "a", text: "Short." }]);
    expect(await index.countPassages()).toBe(1);
    expect((await index.search("flooded cellar", { mode: "lexical" })).length).toBe(0);
    await index.upsert([{ id: "a", text: " " }]);
    expect([await index.countDocuments(), await index.countPassages()]).toEqual([1, 0]);
    expect(await index.get("a")).toEqual({ id: "a", text: " " });
    expect(await index.search("Short.")).toEqual([]);
  });

  test("an id twice in one call is refused in an array, before anything is written; of a stream the later one stays", async () => {
    const server = await testServer();
    const twice = [
      { id: "a", text: "first" },
      { id: "b", text: "other" },
      { id: "a", text: "second" },
    ];
    await using index = await build(server, []);
    await expect(index.upsert(twice)).rejects.toThrow(/position 2 has the id "a" of the one at 0/);
    expect(await index.counts()).toEqual({ documents: 0, passages: 0 });
    await index.upsert(twice.values());
    expect(await index.countDocuments()).toBe(2);
    expect((await index.get("a"))?.text).toBe("second");
  });

  test("deletes by ids and by filter, and says how many were there", async () => {
    const server = await testServer();
    await using index = await build(server, corpus(20));
    expect(await index.delete(["case/1", "case/2", "nobody"])).toBe(2);
    const supreme = corpus(20).filter(
      ({ id, metadata }) => metadata?.court === "supreme" && !["case/1", "case/2"].includes(id),
    );
    expect(await index.delete({ filter: { must: [{ key: "court", match: { value: "supreme" } }] } })).toBe(
      supreme.length,
    );
    expect(await index.countDocuments()).toBe(18 - supreme.length);
    expect(await index.delete("case/3")).toBe(await index.delete({ ids: ["case/4"] }));
  });

  test("metadata are replaced whatever their keys, in every passage", async () => {
    const server = await testServer();
    const text = Array.from({ length: 8 }, (_, i) => `Sentence ${i} about a flooded cellar and its many pumps.`).join(
      " ",
    );
    const odd = { plain: 1, "a.b": 2, "with blank": 3, 'quo"ted': 4, "back\\slash": 5, "": 6, "line\nbreak": 7 };
    await using index = await build(server, [{ id: "a", text, metadata: odd }]);
    expect((await index.get("a"))?.metadata).toEqual(odd);
    for (const gone of ["a.b", "with blank", 'quo"ted', "", "line\nbreak"] as const) {
      const { [gone]: _, ...rest } = odd;
      await index.upsert([{ id: "a", text, metadata: odd }]);
      // By a patch and by another upsert.
      if (gone.length % 2 === 0) await index.upsert([{ id: "a", text, metadata: rest }]);
      else expect(await index.updateMetadata("a", { [gone]: undefined })).toBe(1);
      const hits = await index.search("flooded cellar", { mode: "dense", k: 50 });
      expect(hits.length).toBeGreaterThan(2);
      for (const { metadata } of hits) expect(metadata).toEqual(rest);
    }
    expect((await index.get("a"))?.text).toBe(text);
  });

  test.each([
    ["a document that is none", [7], /position 0 is a number/],
    ["no id", [{ id: "", text: "x" }], /position 0 has an empty id/],
    [
      "a lone surrogate",
      [
        { id: "a", text: "x" },
        { id: "b", text: "\ud800" },
      ],
      /position 1 .*lone surrogate/,
    ],
    ["the reserved key", [{ id: "a", text: "x", metadata: { cde: 1 } }], /has the key "cde", which is reserved/],
  ])("refuses %s", async (_, documents, message) => {
    const server = await testServer();
    await expect(build(server, documents as CorpusDocument[])).rejects.toThrow(message);
  });

  test("batches hold at most 8 MiB and 256 points, and a point that no request holds is refused by name", async ({
    skip,
  }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    const documents = Array.from({ length: 300 }, (_, i) => ({
      id: `d${i}`,
      text: "flood",
      metadata: i < 8 ? { note: "x".repeat(1_500_000) } : {},
    }));
    await using index = await build(server, documents);
    const writes = server.double.requests.filter(({ method, path }) => method === "PUT" && path.endsWith("/points"));
    const sizes = writes.map(({ body }) => (body as { points: unknown[] }).points.length);
    expect(sizes.reduce((a, b) => a + b)).toBe(300);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(256);
    expect(Math.max(...writes.map(({ bytes }) => bytes))).toBeLessThanOrEqual(8 * 2 ** 20 + 1000);
    expect(writes.length).toBeGreaterThan(2);
    // The shortest numbers that tell float32 apart.
    const { bm25: _, ...dense } = (writes[0]!.body as { points: { vector: Record<string, unknown> }[] }).points[0]!
      .vector;
    const numbers = JSON.stringify(Object.values(dense));
    expect(numbers).not.toMatch(/\d{10,}/);
    const [sent] = Object.values(dense) as [number[]];
    expect(Float32Array.from(sent)).toEqual((await embedder.embedDocuments(["flood"])).vectors[0]);
    const huge = { id: "huge", text: "flood", metadata: { note: "x".repeat(33_600_000) } };
    await expect(index.upsert([huge])).rejects.toMatchObject({ code: "QDRANT_LIMIT" });
    expect(await index.countDocuments()).toBe(300);
  });

  test("a connection that is cut at 100 random requests does no harm", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    // One point a request: many requests.
    const documents = corpus(240);
    const name = newName(server);
    const limits = { strict_mode_config: { enabled: true, upsert_max_batchsize: 1 } };
    const random = mulberry32(11);
    let left = 100;
    server.double.misbehave({
      path: /points/,
      fault: () => {
        if (left === 0 || random() > 0.35) return undefined;
        left--;
        return { kind: "cut", when: (["before", "middle", "after"] as const)[Math.floor(random() * 3)]! };
      },
    });
    await using index = await QdrantIndex.build(embedder, documents, {
      ...server.options,
      collection: name,
      parameters: limits,
      retries: 20,
    });
    expect(left).toBe(0);
    server.double.behave();
    const whole = await testServer();
    await QdrantIndex.build(embedder, documents, { ...whole.options, collection: name, parameters: limits });
    expect(server.double.dump(name)).toEqual(whole.double?.dump(name));
    expect(await index.countDocuments()).toBe(240);
  });

  test("a replacement that ends anywhere leaves nothing that passes for the old text", async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    const passages = (word: string, count: number): string =>
      Array.from({ length: count }, (_, i) => `Sentence ${i} about the ${word} cellar and its many pumps.`).join(" ");
    const [older, newer] = [
      [
        { id: "a", text: passages("flooded", 12) },
        { id: "b", text: passages("flooded", 3) },
      ],
      [
        { id: "a", text: passages("dry", 6) },
        { id: "b", text: passages("dry", 9) },
      ],
    ] as const;
    const name = newName(server);
    const options = { ...server.options, collection: name, retries: 0 };
    await using index = await QdrantIndex.build(embedder, older, options);
    const expected = server.double.dump(name);
    let failures = 0;
    for (let skip = 0; ; skip++) {
      server.double.behave();
      server.double.misbehave({ skip, times: 99, fault: { kind: "cut", when: skip % 2 ? "after" : "before" } });
      const failed = await index.upsert(newer).then(
        () => false,
        () => true,
      );
      server.double.behave();
      if (!failed) break;
      failures++;
      // Somebody thinks better of it: all of the old text is there again.
      await index.upsert(older);
      expect(server.double.dump(name)).toEqual(expected);
    }
    expect(failures).toBeGreaterThan(4);
    expect((await index.search("flooded", { mode: "lexical" })).length).toBe(0);
  });

  const cuts = process.env.CDE_FULL === "1" ? 100 : 15;
  test(`an upload that is cut at ${cuts} random requests is run again and ends complete`, async ({ skip }) => {
    const server = await testServer();
    if (!server.double) return skip(doubleOnly);
    const documents = corpus(60);
    const random = createRandom(8);
    let failures = 0;
    while (failures < cuts) {
      const name = newName(server);
      const options = { ...server.options, collection: name, retries: 0 };
      for (let done = false; !done; ) {
        server.double.behave();
        // From a random request on the line is dead, before the server has it or after; then the upload is run again.
        const when = random.integer(2) === 0 ? "after" : "before";
        server.double.misbehave({ skip: random.integer(25), times: 999, fault: { kind: "cut", when } });
        try {
          await (await QdrantIndex.build(embedder, documents, options)).close();
          done = true;
        } catch (error) {
          expect(error).toMatchObject({ code: "QDRANT_UNREACHABLE" });
          failures++;
        }
      }
      server.double.behave();
      const whole = await newDouble();
      await (await QdrantIndex.build(embedder, documents, { url: whole.url, collection: name })).close();
      expect(server.double.dump(name)).toEqual(whole.dump(name));
    }
  }, 300_000);
});

describe("strict mode", () => {
  test("limits are read and kept, and what they forbid is said before it is sent", async () => {
    const server = await testServer();
    await using index = await build(server, corpus(30), {
      payloadIndexes: { court: "keyword" },
      parameters: {
        strict_mode_config: {
          enabled: true,
          upsert_max_batchsize: 5,
          max_query_limit: 20,
          search_max_batchsize: 1,
          unindexed_filtering_retrieve: false,
          unindexed_filtering_update: false,
        },
      },
    });
    expect(await index.countDocuments()).toBe(30);
    const fusion = { kind: "mix", weight: 0.5, depth: 10 } as const;
    expect((await index.search("flood", { fusion, k: 5 })).length).toBe(5);
    await expect(index.search("flood")).rejects.toThrow(/looks at 100 passages, and the strict mode .* allows 20/);
    await expect(index.search("flood", { mode: "dense", k: 21 })).rejects.toMatchObject({ code: "QDRANT_LIMIT" });
    const filter = { must: [{ key: "year", range: { gte: 2000 } }] };
    const search = index.search("flood", { mode: "dense", filter });
    await expect(search).rejects.toMatchObject({ code: "QDRANT_INDEX_REQUIRED" });
    await expect(index.search("flood", { mode: "dense", filter })).rejects.toThrow(
      /"year".*Name the field in payloadIndexes/,
    );
    const court = { must: [{ key: "court", match: { value: "supreme" } }] };
    expect((await index.search("flood", { mode: "dense", filter: court })).length).toBeGreaterThan(0);
    expect(await index.delete({ filter: court })).toBeGreaterThan(0);
    expect(await index.updateMetadata({ ids: ["case/0"] }, { year: 1 })).toBeTypeOf("number");
    const all = [];
    for await (const document of index.documents()) all.push(document);
    expect(all.length).toBe(await index.countDocuments());
  });
});

test("one hit a document is grouped by the server, in one request", async ({ skip }) => {
  const server = await testServer();
  if (!server.double) return skip(doubleOnly);
  await using index = await build(server, corpus(10));
  for (const mode of ["dense", "lexical"] as const) {
    server.double.requests.splice(0);
    const hits = await index.search("flood court", { mode, mergeByDocument: true, k: 5 });
    expect(new Set(hits.map(({ id }) => id)).size).toBe(5);
    expect(server.double.requests.map(({ path }) => path.split("/").slice(-3).join("/"))).toEqual([
      "points/query/groups",
    ]);
    expect(server.double.requests[0]!.body).toMatchObject({ group_by: "cde.id", group_size: 1 });
  }
});

test("npm run test:qdrant without a server says how to start one, and fails", () => {
  const { QDRANT_URL: _, ...env } = process.env;
  const script = fileURLToPath(new URL("../../../scripts/test-qdrant.mjs", import.meta.url));
  const { status, stdout } = spawnSync(process.execPath, [script], { env, encoding: "utf8" });
  expect(status).toBe(2);
  expect(stdout).toMatch(/docker run .*qdrant\/qdrant:v1\.19/);
});

test.skipIf(!isReal)(
  `the tests run against a real server${isReal ? "" : " (skipped: QDRANT_URL is not set)"}`,
  async () => {
    const { options, double } = await testServer();
    expect(double).toBeUndefined();
    await using index = await build({ options, double }, corpus(1));
    expect(index.serverVersion).toMatch(/^\d+\.\d+/);
  },
);
