import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { CorruptFileError, InvalidInputError, MissingFileError } from "@cde-js/core";
import { listSplits, readCorpus, readJsonLines, readQrels, readQueries } from "@cde-js/core/evaluation";
import { afterAll, describe, expect, test } from "vitest";
import { sharedPath } from "../support/shared.js";

const root = mkdtempSync(join(tmpdir(), "cde-beir-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
/** A data set folder with these files. */
function folderWith(files: Record<string, string | Uint8Array>): string {
  const folder = join(root, String(folders++));
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

const header = "query-id\tcorpus-id\tscore\n";

test("reads documents, queries, judgements and splits, plain and gzip alike", async () => {
  const corpus =
    '\uFEFF{"_id": "d1", "title": "Ä", "text": "ü 😀", "metadata": {"year": 1999}}\r\n\n{"_id": "d2", "text": "no title"}';
  const queries = '{"_id": "q1", "text": "first"}\n';
  const test1 = `${header}q1\td1\t2\nq1\td2\t0\n`;
  const plain = folderWith({ "corpus.jsonl": corpus, "queries.jsonl": queries, "qrels/test.tsv": test1 });
  const gzip = folderWith({
    "corpus.jsonl.gz": gzipSync(corpus),
    "queries.jsonl.gz": gzipSync(queries),
    "qrels/test.tsv.gz": gzipSync(test1),
    "qrels/dev.tsv": header,
    "qrels/notes.txt": "",
  });
  for (const folder of [plain, gzip]) {
    expect(await collect(readCorpus(folder))).toEqual([
      { id: "d1", title: "Ä", text: "ü 😀", metadata: { year: 1999 } },
      { id: "d2", title: "", text: "no title" },
    ]);
    expect(await collect(readQueries(folder))).toEqual([{ id: "q1", text: "first" }]);
    const judgements = new Map(Object.entries({ d1: 2, d2: 0 }));
    expect(await readQrels(folder, "test")).toEqual(new Map([["q1", judgements]]));
  }
  expect(await listSplits(plain)).toEqual(["test"]);
  expect(await listSplits(gzip)).toEqual(["dev", "test"]);
  expect(await readQrels(gzip, "dev")).toEqual(new Map());
});

const good = '{"_id": "d1", "text": "a"}\n';
describe("a corpus that isn't one is refused with file and line", () => {
  test.each<[what: string, content: string | Uint8Array, line: number, message: string]>([
    ["a line that isn't JSON", `${good}{"_id": "d2"`, 2, "isn't JSON"],
    ["a line that isn't an object", `${good}["d2"]\n`, 2, "should be an object"],
    ["a document without id", `${good}{"text": "b"}\n`, 2, '"_id" should be a string, found nothing'],
    ["an id that is a number", `${good}{"_id": 2, "text": "b"}\n`, 2, '"_id" should be a string, found 2'],
    ["an empty id", `${good}{"_id": "", "text": "b"}\n`, 2, '"_id" is empty'],
    ["a document without text", `${good}{"_id": "d2"}\n`, 2, '"text" should be a string, found nothing'],
    [
      "a title that is null",
      `${good}{"_id": "d2", "title": null, "text": ""}`,
      2,
      '"title" should be a string, found null',
    ],
    [
      "metadata that are a list",
      `${good}{"_id": "d2", "text": "", "metadata": []}`,
      2,
      '"metadata" should be an object',
    ],
    ["an id that was there, past a blank line", `${good}\n${good}`, 3, 'the id "d1" was already on line 1'],
    ["bytes that aren't UTF-8", Buffer.concat([Buffer.from(good), Buffer.from([0x22, 0xff, 0x22])]), 2, "isn't UTF-8"],
    ["half a character at the end of a line", Buffer.from([0x22, 0xc3, 0x0a, 0xa9, 0x22]), 1, "isn't UTF-8"],
    ["a byte order mark inside", `${good}\uFEFF${good}`, 2, "isn't JSON"],
  ])("%s", async (_, content, line, message) => {
    const folder = folderWith({ "corpus.jsonl": content });
    const error = await failure(collect(readCorpus(folder)));
    expect(error).toBeInstanceOf(CorruptFileError);
    expect(error).toMatchObject({ path: join(folder, "corpus.jsonl"), line });
    expect((error as Error).message).toContain(`corpus.jsonl, line ${line}: ${message.startsWith('"') ? message : ""}`);
    expect((error as Error).message).toContain(message);
  });
});

describe("judgements that aren't are refused with file and line", () => {
  test.each<[what: string, content: string, line: number, message: string]>([
    ["an empty file", "", 1, "header"],
    ["a missing header, whose judgement would be lost", "q1\td1\t1\n", 1, "header"],
    ["two fields", `${header}q1\td1\n`, 2, "between tabs"],
    ["four fields", `${header}q1\td1\t1\t1\n`, 2, "between tabs"],
    ["spaces for tabs", `${header}q1 d1 1\n`, 2, "between tabs"],
    ["an empty id", `${header}q1\t\t1\n`, 2, "between tabs"],
    ["a judgement in words", `${header}q1\td1\t1\nq1\td2\thigh\n`, 3, 'should be an integer, found "high"'],
    ["a fractional judgement", `${header}q1\td1\t0.5\n`, 2, 'should be an integer, found "0.5"'],
    ["no judgement", `${header}q1\td1\t\n`, 2, 'should be an integer, found ""'],
    [
      "a pair judged in two ways",
      `${header}q1\td1\t1\nq2\td1\t1\nq1\td1\t2\n`,
      4,
      'is judged 2 for query "q1", and 1 on',
    ],
  ])("%s", async (_, content, line, message) => {
    const folder = folderWith({ "qrels/test.tsv": content });
    const error = await failure(readQrels(folder, "test"));
    expect(error).toBeInstanceOf(CorruptFileError);
    expect(error).toMatchObject({ path: join(folder, "qrels", "test.tsv"), line });
    expect((error as Error).message).toContain(message);
  });
});

test("the same judgement again is let pass: tldr_pages and checkthat2020 hold such lines", async () => {
  const folder = folderWith({ "qrels/test.tsv": `${header}q1\td1\t1\nq1\td1\t1\n` });
  expect(await readQrels(folder, "test")).toEqual(new Map([["q1", new Map([["d1", 1]])]]));
});

test("missing files are named, a missing split with those there are", async () => {
  const folder = folderWith({ "qrels/dev.tsv": header });
  const missing = await failure(collect(readCorpus(folder)));
  expect(missing).toBeInstanceOf(MissingFileError);
  expect(missing).toMatchObject({ path: join(folder, "corpus.jsonl") });
  const split = await failure(readQrels(folder, "test"));
  expect(split).toBeInstanceOf(MissingFileError);
  expect((split as Error).message).toContain('no split "test". It has: dev.');
  expect(await failure(listSplits(join(root, "nowhere")))).toBeInstanceOf(MissingFileError);
  expect(await failure(readQrels(folder, "../dev"))).toBeInstanceOf(InvalidInputError);
});

describe("readJsonLines", () => {
  const rows = Array.from({ length: 5000 }, (_, i) => ({ i, text: "é".repeat(i % 300) }));
  const bytes = Buffer.from(`${rows.map((row) => JSON.stringify(row)).join("\n")}\n`);

  test("gives every line with its number, whatever chunks cut", async () => {
    const folder = folderWith({ "rows.jsonl": bytes, "rows.jsonl.gz": gzipSync(bytes) });
    for (const name of ["rows.jsonl", "rows.jsonl.gz"]) {
      const lines = await collect(readJsonLines(join(folder, name)));
      expect(lines.map(({ value }) => value)).toEqual(rows);
      expect(lines.every(({ line }, i) => line === i + 1)).toBe(true);
    }
  });

  test("a gzip file cut anywhere is a corrupt file, never a shorter one", async () => {
    const gzip = gzipSync(bytes);
    for (const length of [1, 5, 100, gzip.length >> 1, gzip.length - 9, gzip.length - 1]) {
      const folder = folderWith({ "rows.jsonl.gz": gzip.subarray(0, length) });
      const error = await failure(collect(readJsonLines(join(folder, "rows.jsonl.gz"))));
      expect(error, `cut to ${length} bytes`).toBeInstanceOf(CorruptFileError);
    }
  });

  test("a gzip file with a flipped bit is a corrupt file", async () => {
    const gzip = gzipSync(bytes);
    for (const position of [0, gzip.length >> 1, gzip.length - 6]) {
      const damaged = Buffer.from(gzip);
      damaged[position]! ^= 0x10;
      const folder = folderWith({ "rows.jsonl.gz": damaged });
      const error = await failure(collect(readJsonLines(join(folder, "rows.jsonl.gz"))));
      expect(error, `bit at ${position}`).toBeInstanceOf(CorruptFileError);
    }
  });

  test("refuses a line longer than the limit and names both, and takes one of just that length", async () => {
    const folder = folderWith({ "x.jsonl": `1\n"${"x".repeat(998)}"\n2\n` });
    const path = join(folder, "x.jsonl");
    expect(await collect(readJsonLines(path, { maxLineBytes: 1000 }))).toHaveLength(3);
    const error = await failure(collect(readJsonLines(path, { maxLineBytes: 999 })));
    expect(error).toMatchObject({ code: "CORRUPT_FILE", line: 2 });
    expect((error as Error).message).toContain("longer than 999 bytes");
    expect(await failure(collect(readJsonLines(path, { maxLineBytes: 0 })))).toBeInstanceOf(InvalidInputError);
  });

  test("a gzip bomb of one line ends at the limit, in little memory", async () => {
    const folder = folderWith({ "bomb.jsonl.gz": gzipSync(Buffer.alloc(128 * 2 ** 20, 0x20), { level: 1 }) });
    const before = process.memoryUsage.rss();
    const error = await failure(collect(readJsonLines(join(folder, "bomb.jsonl.gz"), { maxLineBytes: 2 ** 20 })));
    expect(error).toMatchObject({ code: "CORRUPT_FILE", line: 1 });
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 2 ** 20);
  });

  test("stops with the signal's reason, before and amid reading", async () => {
    const folder = folderWith({ "rows.jsonl.gz": gzipSync(Buffer.concat(Array(20).fill(bytes))) });
    const path = join(folder, "rows.jsonl.gz");
    const reason = new Error("enough");
    expect(await failure(collect(readJsonLines(path, { signal: AbortSignal.abort(reason) })))).toBe(reason);
    const controller = new AbortController();
    let seen = 0;
    const reading = (async () => {
      for await (const _ of readJsonLines(path, { signal: controller.signal }))
        if (++seen === 10) controller.abort(reason);
    })();
    expect(await failure(reading)).toBe(reason);
    expect(seen).toBeLessThan(20 * rows.length);
  });
});

interface Meta {
  readonly docs: number;
  readonly queries: number;
  readonly splits: Record<string, { queries: number; qrels: number }>;
}

// meta.json counts lines; these stand there again, judgement and all.
const repeatedLines: Record<string, number> = { "checkthat2020 test": 1, "tldr_pages train": 15, "tldr_pages test": 2 };

const data = sharedPath("data");
const sets =
  data === undefined ? [] : readdirSync(data, { withFileTypes: true }).filter((entry) => entry.isDirectory());

describe("the real data sets", () => {
  test.skipIf(data === undefined)("there are 21 (needs ../shared/data)", () => {
    expect(sets).toHaveLength(21);
  });

  test.each(sets.map(({ name }) => name))(
    "%s has the counts of its meta.json, and every judged id exists",
    async (name) => {
      const folder = join(data!, name);
      const meta = JSON.parse(readFileSync(join(folder, "meta.json"), "utf8")) as Meta;
      const documents = new Set<string>();
      let empty = 0;
      for await (const { id, text } of readCorpus(folder)) {
        documents.add(id);
        if (text === "") empty++;
      }
      const queries = new Set((await collect(readQueries(folder))).map(({ id }) => id));
      expect({ docs: documents.size, queries: queries.size, empty }).toEqual({
        docs: meta.docs,
        queries: meta.queries,
        empty: 0,
      });
      expect(await listSplits(folder)).toEqual(Object.keys(meta.splits).sort());
      for (const [split, expected] of Object.entries(meta.splits)) {
        const qrels = await readQrels(folder, split);
        const pairs = [...qrels].flatMap(([query, judgements]) =>
          [...judgements.keys()].map((id) => [query, id] as const),
        );
        const lines = pairs.length + (repeatedLines[`${name} ${split}`] ?? 0);
        expect({ queries: qrels.size, qrels: lines }).toEqual(expected);
        expect(pairs.filter(([query, id]) => !queries.has(query) || !documents.has(id))).toEqual([]);
      }
    },
  );
});
