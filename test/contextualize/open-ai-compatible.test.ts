import { inspect } from "node:util";
import { EndpointError, InvalidInputError, type OpenAiCompatibleOptions, openAiCompatible } from "@cde-js/core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { FakeEndpoint, reply, vectorOf } from "./fake-endpoint.js";

const KEY = "sk-this-must-never-be-seen-1234567890";
let endpoint: FakeEndpoint;
beforeAll(async () => {
  endpoint = await FakeEndpoint.start();
});
beforeEach(() => endpoint.reset());
afterAll(() => endpoint.close());

const never = new AbortController().signal;
const embedWith = (options: Partial<OpenAiCompatibleOptions> = {}) =>
  openAiCompatible({ baseUrl: endpoint.url, apiKey: KEY, model: "m", retryDelayMs: 1, ...options });
const embed = (texts: string[], options: Partial<OpenAiCompatibleOptions> = {}, signal = never) =>
  embedWith(options)(texts, { kind: "document", signal });

/** The error, which never holds the key however deeply one looks. */
async function failure(promise: Promise<unknown>): Promise<EndpointError> {
  const error = await promise.then(
    () => expect.unreachable("resolved"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(EndpointError);
  expect(inspect(error, { depth: 20, showHidden: true, maxStringLength: null })).not.toContain(KEY);
  expect((error as Error).message).toMatch(/^openAiCompatible: .*[.]$/);
  return error as EndpointError;
}

describe("a request", () => {
  test("goes to /embeddings with model, key and texts, in batches, and is answered in order", async () => {
    const texts = ["a", "b", "c", "d", "e"];
    const vectors = await embed(texts, { batchSize: 2, baseUrl: `${endpoint.url}//?api-version=7` });
    expect(vectors.map((v) => Array.from(v))).toEqual(texts.map((text) => vectorOf(text)));
    expect(endpoint.requests.map(({ body }) => body.input)).toEqual([["a", "b"], ["c", "d"], ["e"]]);
    expect(endpoint.requests[0]).toEqual({
      path: "/v1/embeddings?api-version=7",
      authorization: `Bearer ${KEY}`,
      body: { model: "m", input: ["a", "b"] },
    });
  });

  test("asks for dimensions where they are given, and sends no key where there is none", async () => {
    const embedShort = openAiCompatible({ baseUrl: endpoint.url, model: "m", dimensions: 4 });
    expect((await embedShort(["a"], { kind: "query", signal: never }))[0]).toHaveLength(4);
    expect(endpoint.requests[0]).toMatchObject({ authorization: undefined, body: { dimensions: 4 } });
  });

  test("vectors that come in another order are put in place by their index", async () => {
    endpoint.fault = (_, response, { data }) => reply(response, 200, { data: data.reverse() });
    expect((await embed(["a", "b", "c"])).map((v) => Array.from(v))).toEqual(["a", "b", "c"].map((t) => vectorOf(t)));
  });

  test("float32 in base64 is read as well", async () => {
    endpoint.fault = (_, response, { data }) => {
      const coded = data.map(({ index, embedding }) => ({
        index,
        embedding: Buffer.from(Float32Array.from(embedding as number[]).buffer).toString("base64"),
      }));
      return reply(response, 200, { data: coded });
    };
    expect(Array.from((await embed(["a"]))[0]!)).toEqual(Array.from(Float32Array.from(vectorOf("a"))));
  });
});

describe("an answer that is none", () => {
  type Data = { index: number; embedding: unknown }[];
  const answers: [name: string, answer: (data: Data) => unknown, message: string][] = [
    ["too few vectors", (data) => ({ data: data.slice(1) }), "1 vectors for 2 texts"],
    ["too many", (data) => ({ data: [...data, data[0]] }), "3 vectors for 2 texts"],
    ["one index twice", (data) => ({ data: [data[0], data[0]] }), "two vectors of index 0"],
    ["an index beyond the texts", (data) => ({ data: [data[0], { ...data[1], index: 2 }] }), "the index 2"],
    ["no index", (data) => ({ data: data.map(({ embedding }) => ({ embedding })) }), "the index undefined"],
    ["two dimensions", (data) => ({ data: [data[0], { index: 1, embedding: [1, 2] }] }), "2 dimensions at index 1"],
    ["null for a number", (data) => ({ data: [data[0], { index: 1, embedding: [null, 1] }] }), "no vector at index 1"],
    ["base64 of half a number", (data) => ({ data: [data[0], { index: 1, embedding: "AAA=" }] }), "no vector at"],
    ["an empty vector", (data) => ({ data: [data[0], { index: 1, embedding: [] }] }), "no vector at index 1"],
    ["no list", () => ({ vectors: [] }), "no list `data`"],
    ["null", () => null, "no list `data`"],
    ["a page", () => "<html>", "is not JSON"],
  ];
  test.each(answers)("is refused and not asked for again: %s", async (_, answer, message) => {
    endpoint.fault = (_request, response, { data }) => reply(response, 200, answer(data));
    const error = await failure(embed(["a", "b"]));
    expect(error).toMatchObject({ code: "ENDPOINT_RESPONSE", message: expect.stringContaining(message) });
    expect(endpoint.requests).toHaveLength(1);
  });

  test("a dimension that wasn't asked for is refused", async () => {
    endpoint.fault = (_, response, { data }) =>
      reply(response, 200, { data: [{ ...data[0], embedding: vectorOf("a") }] });
    expect((await failure(embed(["a"], { dimensions: 4 }))).message).toContain("8 dimensions at index 0, expected 4");
  });

  test("a redirect isn't followed, so the key stays here", async () => {
    endpoint.fault = (request, response) =>
      request.path === "/v1/embeddings" && reply(response, 307, "", { location: `${endpoint.url}/other` });
    expect(await failure(embed(["a"]))).toMatchObject({ code: "ENDPOINT_RESPONSE" });
    expect(endpoint.requests.map(({ path }) => path)).toEqual(["/v1/embeddings"]);
  });

  test("an answer without end is cut off", async () => {
    endpoint.fault = (_, response) => {
      const more = () => {
        while (response.writable && response.write(" ".repeat(2 ** 18)));
      };
      response.on("drain", more);
      more();
      return true;
    };
    expect((await failure(embed(["a"]))).message).toContain("is over 2097152 bytes");
  });
});

describe("an error", () => {
  /** Fails the first `times` requests in this way. */
  const failing = (
    times: number,
    fail: (n: number) => Parameters<typeof reply> extends [unknown, ...infer R] ? R : never,
  ) => {
    endpoint.fault = (_, response) => {
      const n = endpoint.requests.length;
      return n <= times && reply(response, ...fail(n));
    };
  };

  test("429 is waited for as long as the endpoint asks, then repeated", async () => {
    failing(1, () => [429, { error: { message: "slow down" } }, { "retry-after": "0.2" }]);
    const begin = performance.now();
    expect(await embed(["a"])).toHaveLength(1);
    expect(performance.now() - begin).toBeGreaterThan(190);
    expect(endpoint.requests).toHaveLength(2);
  });

  test("429 that asks for hours is raised at once, with the seconds", async () => {
    failing(9, () => [429, {}, { "retry-after": new Date(Date.now() + 7_200_000).toUTCString() }]);
    const error = await failure(embed(["a"]));
    expect(error).toMatchObject({ code: "ENDPOINT_RATE_LIMITED", status: 429 });
    expect(error.retryAfter).toBeGreaterThan(7_000);
    expect(endpoint.requests).toHaveLength(1);
  });

  test.each([500, 502, 503, 408])("%i is repeated", async (status) => {
    failing(3, () => [status, "oops"]);
    expect(await embed(["a"])).toHaveLength(1);
    expect(endpoint.requests).toHaveLength(4);
  });

  test("a server that keeps failing is given up after maxRetries", async () => {
    failing(99, () => [500, { error: { message: "the model is\u0000 loading" } }]);
    const error = await failure(embed(["a"], { maxRetries: 2 }));
    expect(error).toMatchObject({ code: "ENDPOINT_UNREACHABLE", status: 500 });
    expect(error.message).toContain("failed with 500: the model is loading");
    expect(endpoint.requests).toHaveLength(3);
  });

  test.each([400, 404, 413, 422])("%i is raised at once", async (status) => {
    failing(1, () => [status, { error: { message: `texts are too long for ${KEY}` } }]);
    expect(await failure(embed(["a"]))).toMatchObject({ code: "ENDPOINT_REFUSED", status });
    expect(endpoint.requests).toHaveLength(1);
  });

  test.each([401, 403])("%i says nothing of what the server says, which quotes keys", async (status) => {
    failing(1, () => [status, { error: { message: "Incorrect API key provided: sk-th***890." } }]);
    const error = await failure(embed(["a"]));
    expect(error).toMatchObject({ code: "ENDPOINT_UNAUTHORIZED", status });
    expect(error.message).not.toContain("sk-th");
  });

  test("a connection that breaks is tried again", async () => {
    endpoint.fault = (_, response) => {
      if (endpoint.requests.length > 2) return false;
      response.writeHead(200).write('{"data":[');
      response.destroy();
      return true;
    };
    expect(await embed(["a"])).toHaveLength(1);
    expect(endpoint.requests).toHaveLength(3);
  });

  test("nobody listening is an error with the system's code", async () => {
    const gone = await FakeEndpoint.start();
    await gone.close();
    const error = await failure(embed(["a"], { baseUrl: gone.url, maxRetries: 0 }));
    expect(error).toMatchObject({ code: "ENDPOINT_UNREACHABLE" });
    expect(error.message).toContain("ECONNREFUSED");
  });

  test("an answer that doesn't come in time is asked for again, then raised", async () => {
    endpoint.fault = () => true;
    const error = await failure(embed(["a"], { requestTimeoutMs: 40, maxRetries: 1 }));
    expect(error).toMatchObject({ code: "ENDPOINT_TIMEOUT" });
    expect(endpoint.requests).toHaveLength(2);
  });

  test("a fetch of one's own that fails with the key in its error loses it", async () => {
    const fetch = async (_: unknown, init?: RequestInit) => {
      throw Object.assign(new Error("proxy says no"), { request: init });
    };
    await failure(embed(["a"], { fetch: fetch as typeof globalThis.fetch, maxRetries: 0 }));
  });

  test("an abort ends a request and a wait, with the caller's reason", async () => {
    for (const fault of [
      () => true,
      (_: unknown, response: Parameters<typeof reply>[0]) => reply(response, 429, {}, { "retry-after": "60" }),
    ]) {
      endpoint.fault = fault;
      const stop = new AbortController();
      setTimeout(() => stop.abort(new Error("enough")), 30);
      await expect(embed(["a"], {}, stop.signal)).rejects.toThrow("enough");
    }
  });
});

test.each([
  [{ baseUrl: "ftp://x" }, "baseUrl"],
  [{ baseUrl: "https://user:pass@host/v1" }, "baseUrl"],
  [{ apiKey: "two\nlines" }, "apiKey"],
  [{ apiKey: "" }, "apiKey"],
  [{ model: "" }, "model"],
  [{ batchSize: 0 }, "batchSize"],
  [{ maxRetries: 1.5 }, "maxRetries"],
  [{ requestTimeoutMs: 2 ** 31 }, "requestTimeoutMs"],
])("refuses %o before any request, and shows no secret", (options, named) => {
  const make = () => embedWith(options);
  expect(make).toThrow(InvalidInputError);
  expect(make).toThrow(named);
  expect(make).not.toThrow(/pass@|two/);
});
