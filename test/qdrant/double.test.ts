/** The double of Qdrant against the answers of a real server and of Qdrant's own local mode. */
import { QdrantDouble } from "@cde-js/adapters/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { goldenJson } from "../support/golden.js";
import { openApiSkip, openApiValidator } from "../support/qdrant-openapi.js";

type Id = number | string;
interface Golden {
  readonly points: readonly { readonly id: Id }[];
  readonly filters: readonly { readonly name: string; readonly filter: object; readonly ids: readonly Id[] }[];
  readonly queries: readonly {
    readonly name: string;
    readonly request: Record<string, unknown>;
    readonly points: readonly { readonly id: Id; readonly score: number }[];
  }[];
  readonly dense_query: unknown;
  readonly sparse_query: unknown;
}
interface Recorded {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  readonly status: number;
  readonly response: { result?: unknown; status?: unknown };
}

/** As much of an answer as these tests look at. */
interface Answer {
  readonly result: {
    readonly points: { id: Id; score: number }[];
    readonly exists?: boolean;
  };
  readonly status: unknown;
  readonly time?: number;
  readonly version?: string;
}

const golden = goldenJson<Golden>("qdrant/qdrant.json");
const recorded = goldenJson<Recorded[]>("qdrant/server.json");
const validate = openApiValidator();

async function send(
  url: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; answer: Answer }> {
  const text = typeof body === "string" ? body : body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(`${url}${path}`, {
    method,
    ...(text === undefined ? {} : { body: text, headers: { "content-type": "application/json" } }),
  });
  return { status: response.status, answer: (await response.json()) as Answer };
}

describe("the double answers like Qdrant's local mode", () => {
  let double: QdrantDouble;
  beforeAll(async () => {
    double = await QdrantDouble.start(validate ? { validate } : {});
    const created = await send(double.url, "PUT", "/collections/g", {
      vectors: { dense: { size: 8, distance: "Cosine" } },
      sparse_vectors: { bm25: {} },
    });
    expect(created.status).toBe(200);
    const { status } = await send(double.url, "PUT", "/collections/g/points?wait=true", { points: golden.points });
    expect(status).toBe(200);
  });
  afterAll(() => double.close());

  test.each(golden.filters.map((entry) => [entry.name, entry] as const))("filter: %s", async (_, { filter, ids }) => {
    const { answer } = await send(double.url, "POST", "/collections/g/points/scroll", { filter, limit: 100 });
    const found: Id[] = answer.result.points.map(({ id }) => id);
    expect(new Set(found)).toEqual(new Set(ids));
    expect(found).toHaveLength(ids.length);
  });

  /** The names of the golden vectors in place of the vectors. */
  const filled = (value: unknown): unknown => {
    if (value === "dense_query") return golden.dense_query;
    if (value === "sparse_query") return golden.sparse_query;
    if (Array.isArray(value)) return value.map(filled);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, filled(entry)]));
  };

  test.each(golden.queries.map((entry) => [entry.name, entry] as const))(
    "query: %s",
    async (_, { request, points }) => {
      const { status, answer } = await send(double.url, "POST", "/collections/g/points/query", filled(request));
      expect(status).toBe(200);
      sameRanking(answer.result.points, points);
    },
  );

  test("none of it broke the description of the API", ({ skip }) => {
    if (!validate) skip(openApiSkip);
    expect(double.violations).toEqual([]);
    expect(double.requests.length).toBeGreaterThan(40);
  });
});

/** Equal scores within 1e-5, and equal ids but for the order of equal scores. */
function sameRanking(found: { id: Id; score: number }[], expected: readonly { id: Id; score: number }[]): void {
  expect(found).toHaveLength(expected.length);
  found.forEach(({ score }, i) => {
    expect(Math.abs(score - expected[i]!.score)).toBeLessThan(1e-5);
  });
  const last = expected.at(-1)?.score ?? 0;
  for (const { id, score } of found) {
    const own = expected.find((point) => point.id === id)?.score ?? last;
    expect(Math.abs(own - score)).toBeLessThan(1e-5);
  }
}

test("the double answers like a Qdrant 1.19.0 server, exchange by exchange", async () => {
  await using double = await QdrantDouble.start();
  for (const { name, method, path, body, status, response } of recorded) {
    let sent = body ?? undefined;
    if (body === "body holds the bare word NaN") sent = '{"points":[{"id":3,"vector":{"a":[NaN,0,0,0]}}]}';
    if (body === "truncated JSON") sent = '{"points":[';
    if (typeof body === "string" && body.startsWith("one point, payload text")) {
      sent = { points: [{ id: 1, vector: { a: [1, 0, 0, 0] }, payload: { text: "x".repeat(34_000_000) } }] };
    }
    const found = await send(double.url, method, path, sent);
    expect(found.status, name).toBe(status);
    const { time: _, ...answer } = found.answer;
    if (method === "GET" && path === "/") {
      expect(answer.version).toBe("1.19.0");
    } else if (status === 200) expect(rounded(answer), name).toEqual(rounded(response));
    else {
      // The parser's own words (where it stood, what it had read) are not the double's to repeat.
      const error = String((response.status as { error: string }).error);
      const own = String((answer.status as { error: string }).error);
      if (name === "body above 32 MiB") expect(own).toContain("is larger than allowed (limit: 33554432 bytes)");
      else if (name === "NaN in JSON" || name === "not JSON") expect(own).toMatch(/^Format error in JSON body: /);
      else expect(own, name).toBe(error.replace(/ at line \d+ column \d+$/, ""));
    }
  }
  expect(recorded.length).toBe(59);
});

/** Scores to five digits; lists of points by score and id, since the order of equal scores is open. */
function rounded(value: unknown): unknown {
  if (typeof value === "number") return Number(value.toPrecision(5));
  if (Array.isArray(value)) {
    const list = value.map(rounded) as { score?: number; id?: Id }[];
    if (!list.every((entry) => typeof entry?.score === "number")) return list;
    return list.sort((a, b) => b.score! - a.score! || (String(a.id) < String(b.id) ? -1 : 1));
  }
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, rounded(entry)]));
}

describe.skipIf(!validate)(`validates by the description of the API${validate ? "" : ` (${openApiSkip})`}`, () => {
  test.each([
    ["a distance of another name", "PUT", "/collections/x", { vectors: { size: 4, distance: "cosine" } }],
    ["an id that is no UUID", "PUT", "/collections/x/points", { points: [{ id: "doc-1", vector: [1] }] }],
    ["an unknown key of a query", "POST", "/collections/x/points/query", { query: [1], limits: 3 }],
    ["an unknown query parameter", "POST", "/collections/x/points/scroll?waits=true", {}],
    ["a path that isn't there", "POST", "/collections/x/points/search", { vector: [1], limit: 1 }],
  ])("%s is refused", async (_, method, path, body) => {
    await using double = await QdrantDouble.start({ validate: validate! });
    const { status } = await send(double.url, method, path, body);
    expect(status).toBe(400);
    expect(double.violations).toHaveLength(1);
    // The control: without the description the double itself lets most of it pass or finds no collection.
    await using lax = await QdrantDouble.start();
    await send(lax.url, method, path, body);
    expect(lax.violations).toEqual([]);
  });
});

describe("misbehaves on command", () => {
  const get = (url: string) => fetch(`${url}/collections`);
  test("statuses, with the seconds to wait, for as long as asked", async () => {
    await using double = await QdrantDouble.start();
    double.misbehave({ skip: 1, times: 2, fault: { kind: "status", status: 429, retryAfter: 7 } });
    const answers = [];
    for (let i = 0; i < 4; i++) answers.push(await get(double.url));
    expect(answers.map(({ status }) => status)).toEqual([200, 429, 429, 200]);
    expect(answers[1]?.headers.get("retry-after")).toBe("7");
  });

  test.each(["before", "middle", "after"] as const)("cuts the socket %s the answer", async (when) => {
    await using double = await QdrantDouble.start();
    double.misbehave({ method: "PUT", fault: { kind: "cut", when } });
    const body = { vectors: { size: 4, distance: "Cosine" } };
    await expect(send(double.url, "PUT", "/collections/x", body)).rejects.toThrow();
    // Lost before it was read, or done and not acknowledged.
    const { answer } = await send(double.url, "GET", "/collections/x/exists");
    expect(answer.result.exists).toBe(when !== "before");
  });

  test("answers that are half or changed", async () => {
    await using double = await QdrantDouble.start();
    double.misbehave({ fault: { kind: "truncated" } });
    double.misbehave({ fault: { kind: "answer", change: () => ({ result: null }) } });
    await expect(send(double.url, "GET", "/collections")).rejects.toThrow(SyntaxError);
    expect((await send(double.url, "GET", "/collections")).answer).toEqual({ result: null });
  });

  test("another version, a key that is asked for, a prefix", async () => {
    await using double = await QdrantDouble.start({ version: "1.12.4", apiKey: "right", prefix: "/q" });
    expect(double.url.endsWith("/q")).toBe(true);
    expect((await get(double.url)).status).toBe(401);
    const response = await fetch(`${double.url}/`, { headers: { "api-key": "right" } });
    expect(await response.json()).toMatchObject({ version: "1.12.4" });
  });
});
