import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { PairRecord } from "./pair-record.js";
import { readPairsBeir } from "./read-beir.js";
import { type ReadCsvOptions, readPairsCsv } from "./read-csv.js";
import { readPairsJsonl } from "./read-jsonl.js";
import { temporaryPath } from "./temporary.test.support.js";

async function all(records: AsyncIterable<PairRecord>): Promise<PairRecord[]> {
  const found: PairRecord[] = [];
  for await (const record of records) found.push(record);
  return found;
}

function file(name: string, content: string | Buffer): string {
  const path = temporaryPath(name);
  writeFileSync(path, content);
  return path;
}

describe("JSONL", () => {
  const jsonl = (...lines: unknown[]) => file("pairs.jsonl", lines.map((line) => JSON.stringify(line)).join("\n"));

  test("reads every field, and a pair for each positive, with the line it came from", async () => {
    const path = jsonl(
      { query: "q", positive: "d", negatives: ["n"], id: "x", dataset: "law", group: "g" },
      { query: "r", positives: ["a", "b"] },
      { query: "s", positives: ["c"], id: "y" },
    );
    expect(await all(readPairsJsonl(path, { dataset: "other" }))).toEqual([
      { id: "x", dataset: "law", query: "q", positive: "d", negatives: ["n"], group: "g", source: { path, line: 1 } },
      { id: "2/1", dataset: "other", query: "r", positive: "a", source: { path, line: 2 } },
      { id: "2/2", dataset: "other", query: "r", positive: "b", source: { path, line: 2 } },
      { id: "y", dataset: "other", query: "s", positive: "c", source: { path, line: 3 } },
    ]);
  });

  test("reads gzip, blank lines and a byte order mark", async () => {
    const path = file(
      "pairs.jsonl.gz",
      gzipSync('\uFEFF{"query":"q","positive":"d"}\n\n{"query":"r","positive":"e"}\n'),
    );
    expect((await all(readPairsJsonl(path))).map(({ id, query }) => [id, query])).toEqual([
      ["1", "q"],
      ["3", "r"],
    ]);
  });

  const good = { query: "q", positive: "d" };
  const cases: [string, unknown, string][] = [
    ["no object", ["q", "d"], 'should be an object with "query" and "positive"'],
    ["an unknown field", { ...good, weight: 1 }, 'an unknown field "weight". There are query'],
    ["a field by another tool's name", { ...good, negative: "n" }, 'an unknown field "negative". Call it "negatives"'],
    ["reversed names", { document: "d", question: "q" }, 'an unknown field "document". Call it "positive"'],
    ["a pair of one side", { query: "q" }, '"positive" should be a string, found nothing'],
    ["the other side alone", { positive: "d" }, '"query" should be a string, found nothing'],
    ["both kinds of positives", { ...good, positives: ["e"] }, "give one of them"],
    ["no positives", { query: "q", positives: [] }, "at least one string"],
    ["a negative that is no list", { ...good, negatives: "n" }, '"negatives" should be a list of strings'],
    ["an id that is a number", { ...good, id: 5 }, '"id" should be a string'],
    ["an empty data set", { ...good, dataset: "" }, '"dataset" should be a string'],
  ];
  test.each(cases)("refuses %s, with the line", async (_, line, message) => {
    const attempt = all(readPairsJsonl(jsonl(good, line)));
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toMatchObject({ code: "CORRUPT_FILE", line: 2 });
  });

  test("refuses what isn't JSON, with the line, and a missing file", async () => {
    await expect(all(readPairsJsonl(file("bad.jsonl", '{"query":"q","positive":"d"}\n{"query":')))).rejects.toThrow(
      "line 2: isn't JSON",
    );
    await expect(all(readPairsJsonl(temporaryPath("none.jsonl")))).rejects.toMatchObject({ code: "MISSING_FILE" });
  });
});

describe("CSV", () => {
  const csv = (text: string, options?: ReadCsvOptions, name = "pairs.csv") =>
    all(readPairsCsv(file(name, text), options));

  test("reads quotes, line ends in cells, and the fields that the header names", async () => {
    const path = file(
      "pairs.csv",
      'id,query,positive,negative,dataset\r\na,"What, ""now""?","two\nlines",no,law\r\n,r,e,,\r\n',
    );
    expect(await all(readPairsCsv(path))).toEqual([
      {
        id: "a",
        dataset: "law",
        query: 'What, "now"?',
        positive: "two\nlines",
        negatives: ["no"],
        source: { path, line: 2 },
      },
      { id: "4", query: "r", positive: "e", source: { path, line: 4 } },
    ]);
  });

  test("takes columns by the caller's names and passes over others; tabs by the file's name", async () => {
    const columns = { query: "question", positive: "answer", negatives: ["wrong 1", "wrong 2"] };
    const text = "date\tquestion\tanswer\twrong 1\twrong 2\n1\tq\td\t\tn\n";
    const [record] = await csv(text, { columns, dataset: "faq" }, "pairs.tsv");
    expect(record).toMatchObject({ query: "q", positive: "d", negatives: ["n"], dataset: "faq" });
  });

  test("refuses missing, repeated and unknown columns, and says which there are", async () => {
    await expect(csv("question,positive\nq,d\n")).rejects.toThrow(
      'one column "query"; its header is question, positive',
    );
    await expect(csv("query,positive,positive\nq,d,e\n")).rejects.toThrow('one column "positive"');
    await expect(csv("query,positive,weight\nq,d,1\n")).rejects.toThrow('unknown column "weight"');
  });

  test("refuses a row of another length, a quote that never ends, and bytes that aren't UTF-8, with the line", async () => {
    await expect(csv("query,positive\nq,d\nr\n")).rejects.toMatchObject({ code: "CORRUPT_FILE", line: 3 });
    await expect(csv('query,positive\nq,"d\n')).rejects.toMatchObject({ code: "CORRUPT_FILE" });
    const path = file("latin1.csv", Buffer.from("query,positive\nq,caf\xe9\n", "latin1"));
    await expect(all(readPairsCsv(path))).rejects.toThrow("isn't UTF-8");
    await expect(csv("")).rejects.toThrow("the header belongs there");
    await expect(all(readPairsCsv(temporaryPath("none.csv")))).rejects.toMatchObject({ code: "MISSING_FILE" });
  });

  test("a row longer than allowed is refused instead of filling the memory", async () => {
    await expect(csv(`query,positive\nq,${"d".repeat(5000)}\n`, { maxRowBytes: 1000 })).rejects.toMatchObject({
      code: "CORRUPT_FILE",
    });
  });
});

describe("BEIR", () => {
  function beir(qrels: Record<string, string>): string {
    const folder = temporaryPath("beir");
    mkdirSync(join(folder, "qrels"), { recursive: true });
    const documents = [
      ["d1", "Title", "text"],
      ["d2", "", "alone"],
      ["d3", " ", "third"],
    ];
    const lines = (records: unknown[]) => records.map((record) => JSON.stringify(record)).join("\n");
    writeFileSync(join(folder, "corpus.jsonl"), lines(documents.map(([_id, title, text]) => ({ _id, title, text }))));
    writeFileSync(join(folder, "queries.jsonl"), lines(["q1", "q2"].map((_id) => ({ _id, text: `text of ${_id}` }))));
    for (const [split, text] of Object.entries(qrels)) {
      writeFileSync(join(folder, "qrels", `${split}.tsv`), `query-id\tcorpus-id\tscore\n${text}`);
    }
    return folder;
  }

  test("gives a pair for each relevant document, the best first; grades and judged negatives by option", async () => {
    const folder = beir({ train: "q1\td1\t1\nq1\td2\t2\nq1\td3\t0\n", dev: "q2\td3\t1\n" });
    const briefly = async (options?: Parameters<typeof readPairsBeir>[1]) =>
      (await all(readPairsBeir(folder, { dataset: "s", ...options }))).map(({ id, positive, negatives }) => [
        id,
        positive,
        negatives,
      ]);
    expect(await briefly()).toEqual([
      ["q1/d2", "alone", undefined],
      ["q1/d1", "Title text", undefined],
    ]);
    expect(await briefly({ leastGrade: 2, judgedNegatives: true })).toEqual([
      ["q1/d2", "alone", ["Title text", "third"]],
    ]);
    expect((await briefly({ splits: "all" })).map(([id]) => id)).toEqual(["q1/d2", "q1/d1", "q2/d3"]);
    expect(await briefly({ text: ({ text }) => text })).toContainEqual(["q1/d1", "text", undefined]);
  });

  test("refuses judgements of what isn't there, and a query in two splits", async () => {
    await expect(all(readPairsBeir(beir({ train: "q1\td9\t1\n" })))).rejects.toThrow(
      '1 document id that aren\'t there, such as "d9"',
    );
    await expect(all(readPairsBeir(beir({ train: "q9\td1\t1\n" })))).rejects.toThrow("q9");
    const twice = beir({ train: "q1\td1\t1\n", dev: "q1\td2\t1\n" });
    await expect(all(readPairsBeir(twice, { splits: "all" }))).rejects.toThrow('judge the query "q1"');
    await expect(all(readPairsBeir(twice, { splits: ["test"] }))).rejects.toThrow("It has: dev, train");
    await expect(all(readPairsBeir(twice, { leastGrade: 0 }))).rejects.toThrow("got 0");
  });
});
