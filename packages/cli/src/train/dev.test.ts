import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  createPairSet,
  type PairRecord,
  type PairSet,
  type TrainingEmbedder,
  type TrainingPair,
} from "@cde-js/core/training";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Invocation } from "../command.js";
import { Progress } from "../progress.js";
import type { EvaluationConfig } from "./config.js";
import { devEvaluator, prepareDev } from "./dev.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-dev-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const invocation = {
  signal: new AbortController().signal,
  progress: new Progress({ write: () => true }),
} as Invocation;
let count = 0;

/** Two letters for a number: numbers alone would make near-duplicates. */
const name = (i: number): string => String.fromCharCode(97 + Math.floor(i / 26), 97 + (i % 26));

/** Words that no two pairs share, so that nothing is nearly the same. */
const record = (i: number, more: Partial<PairRecord> = {}): PairRecord => ({
  id: `${i}`,
  query: `question alpha${name(i)} beta${name(i)}`,
  positive: `answer gamma${name(i)} delta${name(i)} epsilon${name(i)} zeta${name(i)}`,
  ...more,
});

async function listed(pairs: PairSet): Promise<TrainingPair[]> {
  const found: TrainingPair[] = [];
  for await (const pair of pairs.pairs()) found.push(pair);
  return found;
}

async function prepare(records: readonly PairRecord[], config: false | EvaluationConfig, seed = 0) {
  await using pairs = await createPairSet(join(folder, `pairs-${count++}`), records);
  const dev = await prepareDev(pairs, config, seed, invocation);
  return { dev, train: await listed(dev.train), all: await listed(pairs) };
}

test("dev queries are judged by all their positives, and searched among training positives too", async () => {
  // Every query has two positives.
  const records = Array.from({ length: 40 }, (_, i) => record(i, { query: `question alpha${name(i % 20)} beta` }));
  const { dev, train, all } = await prepare(records, { dev: { share: 8 }, documents: 30 });
  const [set] = dev.sets;
  expect(dev.sets).toHaveLength(1);
  expect(train).toHaveLength(32);
  const trained = new Set(train.map(({ query }) => query));
  expect(set!.queries.size).toBe(4);
  for (const [id, query] of set!.queries) {
    expect(trained).not.toContain(query);
    const own = all.filter((pair) => pair.query === query).map(({ positive }) => positive);
    const judged = [...set!.qrels.get(id)!.keys()].map((document) => set!.documents.get(document));
    expect(judged.sort()).toEqual(own.sort());
  }
  // 8 of the dev pairs, and 22 others.
  expect(set!.documents.size).toBe(30);
  expect(new Set(set!.documents.values()).size).toBe(30);
});

test("a training positive that answers a dev query counts as right, where pairs are split by document", async () => {
  // Each of ten queries has four positives.
  const records = Array.from({ length: 40 }, (_, i) => record(i, { query: `question alpha${name(i % 10)} beta` }));
  const { dev, all } = await prepare(records, { dev: { share: 4, by: "document", nearDuplicate: false } });
  const [set] = dev.sets;
  for (const [id, query] of set!.queries) {
    const own = all.filter((pair) => pair.query === query).map(({ positive }) => positive);
    expect(own).toHaveLength(4);
    expect([...set!.qrels.get(id)!.keys()].map((document) => set!.documents.get(document)).sort()).toEqual(own.sort());
  }
});

test("each data set is a set of its own with its own prompts, and the figure is their mean", async () => {
  const records = Array.from({ length: 60 }, (_, i) => record(i, { dataset: i % 3 === 0 ? "law" : "medicine" }));
  const { dev } = await prepare(records, { dev: { share: 20 }, metrics: ["success@1"] });
  expect(dev.sets.map(({ dataset }) => dataset).sort()).toEqual(["law", "medicine"]);
  const asked: (string | undefined)[] = [];
  // Knows the number of every text of law, and mistakes every one of medicine for the next.
  const number = (text: string) => {
    const [, first = "", second = ""] = /(?:alpha|gamma)(.)(.)/.exec(text)!;
    return 26 * (first.charCodeAt(0) - 97) + second.charCodeAt(0) - 97;
  };
  const angle = (text: string) => {
    const i = (2 * Math.PI * number(text)) / 60;
    return Float32Array.of(Math.cos(i), Math.sin(i));
  };
  const embedder = (wrong: boolean): TrainingEmbedder => ({
    dimensions: 2,
    embedDocuments: async (texts) => texts.map(angle),
    embedQueries: async (texts) =>
      texts.map((text) => {
        const [x, y] = angle(text) as unknown as [number, number];
        return wrong ? Float32Array.of(-x, -y) : Float32Array.of(x, y);
      }),
  });
  const evaluator = devEvaluator(dev, { seed: 0, context: () => undefined });
  const figures = await evaluator.evaluate(async ({ dataset } = {}) => {
    asked.push(dataset);
    return embedder(dataset === "medicine");
  });
  expect(asked.sort()).toEqual(["law", "medicine"]);
  expect(figures).toEqual({ "law: success@1": 1, "medicine: success@1": 0, "success@1": 0.5 });
});

test("a model with a context gets as many context documents as it reads, some again where there are fewer and it reads so many", async () => {
  const { dev } = await prepare(
    Array.from({ length: 20 }, (_, i) => record(i)),
    { dev: { share: 4 } },
  );
  const given: (readonly string[] | undefined)[] = [];
  const embed = async (texts: readonly string[]) => texts.map(() => Float32Array.of(1, 0));
  for (const wanted of [
    undefined,
    { documents: 5, repeat: true },
    { documents: 64, repeat: true },
    { documents: 64, repeat: false },
  ]) {
    await devEvaluator(dev, { seed: 1, context: () => wanted }).evaluate(async ({ context } = {}) => {
      given.push(context);
      return { dimensions: 2, embedDocuments: embed, embedQueries: embed };
    });
  }
  expect(given.map((context) => context?.length)).toEqual([undefined, 5, 64, 20]);
  expect(new Set(given[1]).size).toBe(5);
  expect(new Set(given[2]).size).toBe(20);
});

test("judged documents are never left out of a BEIR folder's corpus, however few are searched", async () => {
  const set = join(folder, "beir");
  const lines = (records: readonly object[]) => records.map((entry) => `${JSON.stringify(entry)}\n`).join("");
  await mkdir(join(set, "qrels"), { recursive: true });
  const documents = Array.from({ length: 30 }, (_, i) => ({
    _id: `d${i}`,
    title: i === 0 ? "Title" : "",
    text: `text ${i}`,
  }));
  await writeFile(join(set, "corpus.jsonl"), lines(documents));
  await writeFile(
    join(set, "queries.jsonl"),
    lines(documents.slice(0, 6).map((_, i) => ({ _id: `q${i}`, text: `query ${i}` }))),
  );
  const judged = documents.slice(0, 6).map((_, i) => `q${i}\td${i}\t1\n`);
  await writeFile(join(set, "qrels/dev.tsv"), `query-id\tcorpus-id\tscore\n${judged.join("")}`);
  const records = Array.from({ length: 12 }, (_, i) => record(i));
  const { dev, train } = await prepare(records, { dev: { beir: set }, queries: 4, documents: 10 });
  expect(train).toHaveLength(12);
  const [found] = dev.sets;
  expect(found!.queries.size).toBe(4);
  expect(found!.documents.size).toBe(10);
  for (const [query, judgements] of found!.qrels) {
    expect([...judgements.keys()]).toEqual([query.replace("q", "d")]);
    for (const id of judgements.keys()) expect(found!.documents.has(id)).toBe(true);
  }
  const all = await prepare(records, { dev: { beir: set } });
  expect(all.dev.sets[0]!.documents.get("d0")).toBe("Title text 0");
});

test("nothing is split off where nothing is measured, and equal seeds split alike", async () => {
  const records = Array.from({ length: 30 }, (_, i) => record(i));
  const { dev, train } = await prepare(records, false);
  expect(dev.sets).toEqual([]);
  expect(train).toHaveLength(30);
  const queries = async (seed: number) => [...(await prepare(records, {}, seed)).dev.sets[0]!.queries.values()];
  expect(await queries(1)).toEqual(await queries(1));
  expect(await queries(1)).not.toEqual(await queries(2));
});
