/** `cde embed`: many workers, some of which are killed, make the collection that one worker makes. */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { QdrantDouble } from "@cde-js/adapters/testing";
import { createRandom } from "@cde-js/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { type Finished, folderOf, start } from "./support.js";

const DOCUMENTS = 160;
const WORKERS = 8;
const COLLECTION = "licences";
const words = "flood damage rent tenant law court who pays for the of and".split(" ");
const random = createRandom(3);
const documents = Array.from({ length: DOCUMENTS }, (_, i) => {
  const text = Array.from({ length: 5 + random.integer(30) }, () => words[random.integer(words.length)]).join(" ");
  return { id: `doc ${i}`, text, ...(i % 4 === 0 ? { title: `law ${i}` } : {}), metadata: { i } };
});
let cwd: string;
let remove: () => Promise<void>;
let model: string;

beforeAll(async () => {
  const lines = documents.map((document) => `${JSON.stringify(document)}\n`).join("");
  ({ path: cwd, remove } = await folderOf({ "corpus.jsonl": lines }));
  model = writeTinyModel(join(cwd, "tiny"));
  const built = await run(
    "context",
    "build",
    "corpus.jsonl",
    "--out",
    "corpus.context",
    "--model",
    model,
    "--context-size",
    "40",
  );
  expect(built.code, built.stderr).toBe(0);
});
afterAll(() => remove());

const run = (...args: string[]): Promise<Finished> => start(args, cwd).finished;

function worker(url: string, shard: string, ...more: string[]) {
  const to = `${url.replace("http:", "qdrant:")}/${COLLECTION}`;
  return start(
    [
      "embed",
      "corpus.jsonl",
      "--context",
      "corpus.context",
      "--to",
      to,
      "--shard",
      shard,
      "--model",
      model,
      "--json",
      ...more,
    ],
    cwd,
  );
}

test("8 workers, two of them killed while they write, make what one makes", async () => {
  await using one = await QdrantDouble.start();
  const single = await worker(one.url, "0/1").finished;
  expect(single.code, single.stderr).toBe(0);
  expect(JSON.parse(single.stdout)).toMatchObject({ documents: DOCUMENTS, unchanged: 0, shard: { part: 0, parts: 1 } });

  await using many = await QdrantDouble.start();
  const doomed = new Set([random.integer(4), 4 + random.integer(4)]);
  const running = new Map<number, ReturnType<typeof worker>>();
  const struck = new Set<number>();
  many.misbehave({
    method: "PUT",
    path: /points$/,
    fault: ({ body }) => {
      const [first] = (body as { points: { payload: { cde: { id: string } } }[] }).points;
      const part = crc32(first!.payload.cde.id) % WORKERS;
      if (!doomed.has(part) || struck.has(part)) return undefined;
      struck.add(part);
      running.get(part)?.child.kill("SIGKILL");
      // One dies before its write counts, one after.
      return { kind: "cut", when: struck.size === 1 ? "before" : "after" };
    },
  });
  const finish = async (part: number): Promise<Finished> => {
    const begun = worker(many.url, `${part}/${WORKERS}`);
    running.set(part, begun);
    return await begun.finished;
  };
  // Two at a time, as many as there are cores.
  const results: Finished[] = [];
  const queue = Array.from({ length: WORKERS }, (_, part) => part);
  const work = async (): Promise<void> => {
    for (let part = queue.shift(); part !== undefined; part = queue.shift()) results[part] = await finish(part);
  };
  await Promise.all([work(), work()]);
  expect([...struck].sort()).toEqual([...doomed].sort());
  for (const [part, { code, stderr }] of results.entries()) expect(code, stderr).toBe(doomed.has(part) ? null : 0);
  expect(many.dump(COLLECTION).length).toBeLessThan(one.dump(COLLECTION).length);

  // An orchestrator starts them again; and one that had finished, by mistake.
  for (const part of doomed) expect((await finish(part)).code).toBe(0);
  const again = await finish([0, 1, 2].find((part) => !doomed.has(part))!);
  const { passages, unchanged, documents: own } = JSON.parse(again.stdout);
  expect({ passages, unchanged }).toEqual({ passages: 0, unchanged: own });

  const [expected, found] = [one.dump(COLLECTION), many.dump(COLLECTION)];
  expect(found.map(({ id, payload }) => ({ id, payload }))).toEqual(
    expected.map(({ id, payload }) => ({ id, payload })),
  );
  for (const [i, { vectors }] of expected.entries()) {
    expect(Object.keys(found[i]!.vectors).sort()).toEqual(Object.keys(vectors).sort());
    for (const [name, vector] of Object.entries(vectors)) {
      const twin = found[i]!.vectors[name]!;
      const [a, b] = [vector, twin].map((value) => (Array.isArray(value) ? value : value.values)) as [
        number[],
        number[],
      ];
      a.forEach((x, k) => {
        expect(Math.abs(x - b[k]!)).toBeLessThan(1e-5);
      });
    }
  }
  // The control: base vectors, contextual ones, words.
  expect(Object.keys(expected[0]!.vectors)).toHaveLength(3);
}, 300_000);

test("another context, or other words, are refused by the collection", async () => {
  await using double = await QdrantDouble.start();
  expect((await worker(double.url, "0/4").finished).code).toBe(0);
  const built = await run(
    "context",
    "build",
    "corpus.jsonl",
    "--out",
    "other.context",
    "--model",
    model,
    "--context-size",
    "20",
  );
  expect(built.code, built.stderr).toBe(0);
  const to = `${double.url.replace("http:", "qdrant:")}/${COLLECTION}`;
  const other = await run("embed", "corpus.jsonl", "--context", "other.context", "--to", to, "--model", model);
  expect(other.code).toBe(1);
  expect(other.stderr).toMatch(/fingerprint [0-9a-f]{64}; the embedder is .* fingerprint [0-9a-f]{64}/);
  const german = await worker(double.url, "1/4", "--language", "de").finished;
  expect(german.code).toBe(1);
  expect(german.stderr).toContain("has the analyzer words-1 en");
});

describe("a wrong command line ends with 2", () => {
  test.each([
    [["embed", "corpus.jsonl", "--no-context"], "--to is missing"],
    [["embed", "corpus.jsonl", "--no-context", "--to", "http://h/c"], "--to should be qdrant://"],
    [["embed", "corpus.jsonl", "--no-context", "--to", "qdrant://h"], "--to should be qdrant://"],
    [["embed", "corpus.jsonl", "--to", "qdrant://h/c"], "--context is missing"],
    [["embed", "corpus.jsonl", "--no-context", "--context", "x", "--to", "qdrant://h/c"], "exclude each other"],
    [["embed", "corpus.jsonl", "--no-context", "--to", "qdrant://h/c", "--shard", "8/8"], "I/N with I from 0 to N - 1"],
  ])("%j", async (args, message) => {
    const { code, stderr } = await run(...args);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});

test("a server that isn't there is the machine's fault, said in one line without the key", async () => {
  const closed = await QdrantDouble.start();
  await closed.close();
  const child = start(
    [
      "embed",
      "corpus.jsonl",
      "--no-context",
      "--to",
      `${closed.url.replace("http:", "qdrant:")}/c`,
      "--model",
      model,
      "--retries",
      "1",
    ],
    cwd,
    { QDRANT_API_KEY: "qd-secret-3f9a" },
  );
  const { code, stderr } = await child.finished;
  expect(code, stderr).toBe(3);
  expect(stderr).toMatch(/can't be reached \(ECONNREFUSED\)/);
  expect(stderr).not.toContain("qd-secret");
}, 300_000);
