/** The connection: addresses, versions, retries, cancellation, answers that are none, and secrets. */
import { inspect } from "node:util";
import { type QdrantError, QdrantIndex, type QdrantOpenOptions } from "@cde-js/adapters/qdrant";
import { type Fault, QdrantDouble } from "@cde-js/adapters/testing";
import { QdrantClient } from "@qdrant/js-client-rest";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { corpus, newDouble } from "./support.js";

const embedder = stubEmbedder();
const documents = corpus(3);
const KEY = "qd-secret-3f9a27b01c4e";

async function built(double: QdrantDouble, options: Partial<QdrantOpenOptions> = {}): Promise<QdrantIndex> {
  return await QdrantIndex.build(embedder, documents, {
    url: double.url,
    collection: "c",
    retryDelayMs: 1,
    ...options,
  });
}

async function failure(promise: Promise<unknown>): Promise<QdrantError> {
  return await promise.then(
    () => expect.fail("nothing failed"),
    (error: QdrantError) => error,
  );
}

/** The error with all its causes, as a log shows it. */
const shown = (error: unknown): string =>
  `${inspect(error, { depth: 10, showHidden: true })}\n${JSON.stringify(error)}`;

describe("addresses", () => {
  test("a path in the URL is the prefix of every request", async () => {
    await using double = await QdrantDouble.start({ prefix: "/vectors/eu" });
    await using index = await built(double);
    expect(await index.countDocuments()).toBe(3);
    expect(double.requests.every(({ status }) => status === 200 || status === 404)).toBe(true);
  });

  test.each([
    ["ftp://host", /scheme ftp:/],
    ["http://user:pass-word@host", /holds a user or password/],
    ["http://host/?key=pass-word", /query or fragment/],
    ["pass-word host", /the url is none/],
    ["http://pass-word:6333x", /the url is none/],
  ])("refuses %s without showing what may be secret", async (url, message) => {
    const error = await failure(QdrantIndex.open(embedder, { url, collection: "c" }));
    expect(error.message).toMatch(message);
    expect(shown(error)).not.toContain("pass-word@");
    expect(shown(error)).not.toContain("key=pass-word");
  });

  test.each(["https://127.0.0.1", "https://127.0.0.1:443", "https://127.0.0.1/base"])(
    "%s means the port of https, not Qdrant's",
    async (url) => {
      const error = await failure(QdrantIndex.open(embedder, { url, collection: "c", retries: 0 }));
      expect(error.code).toBe("QDRANT_UNREACHABLE");
      expect(error.message).toContain(`${new URL(url).origin}${url.endsWith("base") ? "/base" : ""} can't be reached`);
      const cause = (error.cause as Error).cause as { port?: number };
      expect(cause.port ?? 443).toBe(443);
    },
  );

  test.each(["", "a/b", "a\\b", "x".repeat(256), "a\u0000", 'a"b', "..", "a?b", 7 as never])(
    "the collection %j is refused before anything is sent",
    async (collection) => {
      await using double = await newDouble();
      await expect(QdrantIndex.open(embedder, { url: double.url, collection })).rejects.toThrow(/name of a collection/);
      expect(double.requests.filter(({ path }) => path !== "/")).toEqual([]);
    },
  );

  test("a client of one's own is used as it is, and cancelled all the same", async () => {
    await using double = await newDouble();
    const client = new QdrantClient({ url: double.url, checkCompatibility: false });
    await using index = await QdrantIndex.build(embedder, documents, { client, collection: "c" });
    expect(await index.search("flood")).not.toEqual([]);
    double.misbehave({ path: /query/, fault: { kind: "slow", milliseconds: 30_000 } });
    const controller = new AbortController();
    const search = index.search("flood", { mode: "dense", signal: controller.signal });
    setImmediate(() => controller.abort(new Error("enough")));
    await expect(search).rejects.toThrow("enough");
    await expect(QdrantIndex.open(embedder, { client, url: double.url, collection: "c" })).rejects.toThrow(
      /excludes url/,
    );
  });
});

describe("versions", () => {
  test("a server that is too old is refused with both versions, unless one insists", async () => {
    await using double = await QdrantDouble.start({ version: "1.18.2" });
    const error = await failure(built(double));
    expect(error.code).toBe("QDRANT_VERSION");
    expect(error.message).toMatch(/is Qdrant 1\.18\.2, and this adapter needs 1\.19 or newer/);
    await using index = await built(double, { allowOlderServer: true });
    expect(index.serverVersion).toBe("1.18.2");
  });

  test.each(["1.19.0", "1.20.3", "2.0.0"])("%s is new enough", async (version) => {
    await using double = await QdrantDouble.start({ version });
    await using index = await built(double);
    expect(index.serverVersion).toBe(version);
  });

  test("what isn't Qdrant is no server", async () => {
    await using double = await QdrantDouble.start();
    double.misbehave({ path: /^\/$/, times: 9, fault: { kind: "answer", change: () => ({ hello: "world" }) } });
    expect((await failure(built(double, { retries: 1 }))).message).toMatch(
      /doesn't say which version .*after 2 attempts/,
    );
  });
});

describe("retries", () => {
  const faults: [string, Fault][] = [
    ["429", { kind: "status", status: 429 }],
    ["429 that says when", { kind: "status", status: 429, retryAfter: 0 }],
    ["502", { kind: "status", status: 502 }],
    ["503", { kind: "status", status: 503 }],
    ["504", { kind: "status", status: 504 }],
    ["a cut socket", { kind: "cut", when: "before" }],
    ["an answer cut in the middle", { kind: "cut", when: "middle" }],
    ["a lost acknowledgement", { kind: "cut", when: "after" }],
    ["half of the JSON", { kind: "truncated" }],
    ["an answer without result", { kind: "answer", change: () => ({ status: "ok" }) }],
    [
      "a write that isn't completed",
      { kind: "answer", change: (body) => ({ ...(body as object), result: { status: "wait_timeout" } }) },
    ],
  ];
  test.each(faults)("%s, three times, harms nobody", async (_, fault) => {
    await using double = await newDouble();
    await using index = await built(double);
    double.misbehave({ method: "PUT", path: /points$/, times: 3, fault });
    await index.upsert([{ id: "new", text: "A lease of the flooded roof." }]);
    double.behave();
    expect(await index.countDocuments()).toBe(4);
    expect((await index.get("new"))?.text).toBe("A lease of the flooded roof.");
  });

  test("waits as long as the server asks", async () => {
    await using double = await newDouble();
    await using index = await built(double);
    double.misbehave({ path: /count/, fault: { kind: "status", status: 429, retryAfter: 1 } });
    const start = performance.now();
    await index.countDocuments();
    expect(performance.now() - start).toBeGreaterThan(950);
  });

  test.each([400, 401, 403, 404, 422, 500])("%i is no reason to try again", async (status) => {
    await using double = await newDouble();
    await using index = await built(double);
    const before = double.requests.length;
    double.misbehave({ path: /count/, times: 9, fault: { kind: "status", status, message: "no such luck" } });
    const error = await failure(index.countDocuments());
    expect(error).toMatchObject({ code: "QDRANT_REQUEST", status });
    expect(error.message).toContain(`answers ${status}: no such luck`);
    expect(double.requests.length - before).toBe(1);
  });

  test("gives up after the retries it was given, with the last reason as cause", async () => {
    await using double = await newDouble();
    await using index = await built(double, { retries: 2 });
    double.misbehave({ path: /count/, times: 9, fault: { kind: "cut", when: "before" } });
    const error = await failure(index.countDocuments());
    expect(error).toMatchObject({ code: "QDRANT_UNREACHABLE" });
    expect(error.message).toMatch(/after 3 attempts/);
    expect(error.cause).toBeInstanceOf(TypeError);
  });

  test("a slow server is given up after requestTimeoutMs", async () => {
    await using double = await newDouble();
    await using index = await built(double, { requestTimeoutMs: 2000 });
    double.misbehave({ path: /count/, fault: { kind: "slow", milliseconds: 60_000 } });
    expect((await failure(index.countDocuments())).code).toBe("QDRANT_TIMEOUT");
  });

  test("never more requests at once than allowed", async () => {
    await using double = await newDouble();
    await using index = await built(double, { concurrency: 3 });
    let [now, most] = [0, 0];
    const { fetch } = globalThis;
    globalThis.fetch = async (...args) => {
      most = Math.max(most, ++now);
      return await fetch(...args).finally(() => now--);
    };
    try {
      await Promise.all(Array.from({ length: 40 }, () => index.countDocuments()));
    } finally {
      globalThis.fetch = fetch;
    }
    expect(most).toBe(3);
  });
});

describe("cancellation", () => {
  test("an aborted call rejects with the reason at once, also while it waits for its turn or a retry", async () => {
    await using double = await newDouble();
    await using index = await built(double, { concurrency: 1, retryDelayMs: 8000 });
    double.misbehave({ path: /count/, times: 1, fault: { kind: "slow", milliseconds: 60_000 } });
    double.misbehave({ path: /count/, skip: 0, times: 9, fault: { kind: "status", status: 503 } });
    const controller = new AbortController();
    const reason = new Error("enough");
    const calls = [1, 2, 3].map(() => index.countDocuments({ signal: controller.signal }));
    setTimeout(() => controller.abort(reason), 50);
    for (const result of await Promise.allSettled(calls)) expect(result).toEqual({ status: "rejected", reason });
    double.behave();
    expect(await index.countDocuments()).toBe(3);
  });

  test("closing ends what is under way and refuses the rest", async () => {
    await using double = await newDouble();
    const index = await built(double);
    double.misbehave({ path: /count/, fault: { kind: "slow", milliseconds: 60_000 } });
    const count = index.countDocuments();
    const seen = expect(count).rejects.toMatchObject({ code: "INDEX_CLOSED" });
    setImmediate(() => void index.close());
    await seen;
    await expect(index.search("flood")).rejects.toMatchObject({ code: "INDEX_CLOSED" });
    await expect(index.close()).resolves.toBeUndefined();
  });
});

describe("answers are checked before use", () => {
  const scored = (point: object): Fault => ({
    kind: "answer",
    change: () => ({ result: { points: [{ id: 1, version: 1, score: 0.5, payload: {}, ...point }] } }),
  });
  test.each([
    ["a score that is none", scored({ score: "high" }), /has the score "high"/],
    ["an id that is none", scored({ id: "doc-1" }), /has the id "doc-1"/],
    ["a payload that isn't ours", scored({}), /no passage under the payload key "cde"/],
    ["a payload of another kind", scored({ payload: [] }), /has an array as payload/],
    ["a passage without text", scored({ payload: { cde: { id: "a", n: 0, of: 1, start: 0, end: 1 } } }), /no passage/],
    [
      "more points than asked for",
      { kind: "answer", change: (body) => ({ result: { points: Array(99).fill(body as never) } }) } as Fault,
      /99 points, asked for 10/,
    ],
  ])("%s", async (_, fault, message) => {
    await using double = await newDouble();
    await using index = await built(double, { retries: 1 });
    double.misbehave({ path: /query$/, times: 9, fault });
    const error = await failure(index.search("flood", { mode: "dense" }));
    expect(error.code).toBe("QDRANT_ANSWER");
    expect(error.message).toMatch(message);
  });
});

describe("secrets", () => {
  test("the API key is sent and appears nowhere else", async () => {
    await using double = await QdrantDouble.start({ apiKey: KEY });
    await using index = await built(double, { apiKey: KEY });
    expect(double.requests.every(({ headers }) => headers["api-key"] === KEY)).toBe(true);
    expect(double.requests.some(({ path }) => path.includes(KEY))).toBe(false);
    expect(shown(index)).not.toContain(KEY);
    const faults: Fault[] = [
      { kind: "status", status: 403, message: `the key ${KEY} may not do this` },
      { kind: "status", status: 500, message: `api-key: ${KEY}` },
      { kind: "cut", when: "before" },
      { kind: "truncated" },
    ];
    for (const fault of faults) {
      double.misbehave({ path: /count/, times: 9, fault });
      const error = await failure(index.countDocuments());
      expect(shown(error)).not.toContain(KEY);
      double.behave();
    }
    // What travels in a header of one's own is no better known.
    const headers = { authorization: `Bearer ${KEY}`, "api-key": KEY };
    await using other = await QdrantIndex.open(embedder, { url: double.url, collection: "c", headers, retries: 0 });
    double.misbehave({ path: /count/, fault: { kind: "status", status: 500, message: `Bearer ${KEY} failed` } });
    expect(shown(await failure(other.countDocuments()))).not.toContain(KEY);
    const wrong = await failure(QdrantIndex.open(embedder, { url: double.url, collection: "c", apiKey: `${KEY}x` }));
    expect(wrong).toMatchObject({ status: 401 });
    expect(shown(wrong)).not.toContain(KEY);
  });

  test("a key is not sent over plain HTTP to another machine, nor with a line break in it", async () => {
    const open = (url: string, apiKey: string) =>
      QdrantIndex.open(embedder, { url, collection: "c", apiKey, retries: 0 });
    const error = await failure(open("http://qdrant.invalid:6333", KEY));
    expect(error.message).toMatch(/would travel in plain text/);
    expect(shown(error)).not.toContain(KEY);
    const broken = await failure(open("http://localhost:1", `${KEY}\r\nx: y`));
    expect(broken.message).toMatch(/apiKey is empty or holds/);
    expect(shown(broken)).not.toContain(KEY);
    // The control: where one insists, it is a connection that fails.
    const insisted = QdrantIndex.open(embedder, {
      url: "http://qdrant.invalid:6333",
      collection: "c",
      apiKey: KEY,
      allowKeyOverHttp: true,
      retries: 0,
    });
    expect((await failure(insisted)).code).toBe("QDRANT_UNREACHABLE");
  });

  test("text of users travels as JSON values only", async () => {
    await using double = await newDouble();
    await using index = await built(double);
    const nasty = '"}, {"delete": true} ../../collections/c?wait=false#\n\u2028';
    await index.upsert([{ id: nasty, text: `flood ${nasty}`, title: nasty, metadata: { [nasty]: nasty } }]);
    const [hit] = await index.search(`flood ${nasty}`, { k: 1, filter: { must: [{ has_id: [nasty] }] } });
    expect(hit).toMatchObject({ id: nasty, title: nasty, metadata: { [nasty]: nasty } });
    expect(await index.updateMetadata(nasty, { clean: true, [nasty]: undefined })).toBe(1);
    expect((await index.get(nasty))?.metadata).toEqual({ clean: true });
    expect(await index.delete([nasty])).toBe(1);
    expect(double.requests.every(({ path }) => /^\/(collections\/c[\w/-]*)?$/.test(path))).toBe(true);
    expect(await index.countDocuments()).toBe(3);
  });
});
