import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CorruptFileError, InvalidInputError, RuntimeFailureError } from "@cde-js/core";
import { evaluateRun, readTrecQrels, readTrecRun, writeTrecQrels, writeTrecRun } from "@cde-js/core/evaluation";
import { afterAll, describe, expect, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "cde-trec-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, "file.txt");

function fileWith(content: string): string {
  writeFileSync(path, content);
  return path;
}

test("a run comes back with every score bit for bit, best first, ties by id descending", async () => {
  const run = new Map([
    ["q1", new Map(Object.entries({ a: 0.1 + 0.2, b: 1e-300, c: 0.1 + 0.2, d: -5, e: 1e21 }))],
    ["q2", new Map([["a", 1]])],
  ]);
  await writeTrecRun(path, run, { tag: "ours" });
  expect(readFileSync(path, "utf8").split("\n").slice(0, 3)).toEqual([
    "q1 Q0 e 1 1e+21 ours",
    "q1 Q0 c 2 0.30000000000000004 ours",
    "q1 Q0 a 3 0.30000000000000004 ours",
  ]);
  expect(await readTrecRun(path)).toEqual(run);
});

test("a ranked list is written so that its order survives", async () => {
  const qrels = new Map([["q", new Map([["a", 1]])]]);
  const run = new Map([["q", ["x", "a", "z"]]]);
  await writeTrecRun(path, run, { tag: "list" });
  const back = await readTrecRun(path);
  expect(back).toEqual(new Map([["q", new Map(Object.entries({ x: 3, a: 2, z: 1 }))]]));
  expect(evaluateRun(qrels, back, ["mrr"]).mean).toEqual(evaluateRun(qrels, run, ["mrr"]).mean);
});

test("qrels come back as they were", async () => {
  const qrels = new Map([
    ["q1", new Map(Object.entries({ a: 2, b: 0, c: -1 }))],
    ["q2", new Map([["ü", 1]])],
  ]);
  await writeTrecQrels(path, qrels);
  expect(readFileSync(path, "utf8")).toBe("q1 0 a 2\nq1 0 b 0\nq1 0 c -1\nq2 0 ü 1\n");
  expect(await readTrecQrels(path)).toEqual(qrels);
});

test("reads tabs, several spaces and the scores that C writes", async () => {
  const run = await readTrecRun(fileWith("q1\tQ0\ta\t0\t-1.50000E+02\ttag\n  q1  Q0 b 1 .5 tag  \r\nq1 Q0 c 2 7. tag"));
  expect(run).toEqual(new Map([["q1", new Map(Object.entries({ a: -150, b: 0.5, c: 7 }))]]));
});

describe("malformed lines are refused with file and line", () => {
  const fine = "q1 Q0 a 1 2.5 tag\n";
  test.each<[what: string, content: string, line: number, message: string]>([
    ["five fields", `${fine}q1 Q0 b 2 1.5\n`, 2, "6 fields"],
    ["a rank in words", `${fine}q1 Q0 b two 1.5 tag\n`, 2, 'rank should be an integer, found "two"'],
    ["a score in words", `${fine}q1 Q0 b 2 nan tag\n`, 2, 'score should be a number, found "nan"'],
    ["a hexadecimal score", `${fine}q1 Q0 b 2 0x10 tag\n`, 2, "score should be a number"],
    ["a score beyond float64", `${fine}q1 Q0 b 2 1e999 tag\n`, 2, "score should be a number"],
    ["a document given twice", `${fine}q2 Q0 a 1 1 tag\n${fine}`, 3, 'document "a" is given twice for query "q1"'],
  ])("run: %s", async (_, content, line, message) => {
    const error = await readTrecRun(fileWith(content)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CorruptFileError);
    expect(error).toMatchObject({ path, line });
    expect((error as Error).message).toContain(message);
  });

  test.each<[what: string, content: string, line: number, message: string]>([
    ["three fields", "q1 0 a 1\nq1 0 b\n", 2, "4 fields"],
    ["a judgement that isn't an integer", "q1 0 a 1\nq1 0 b 1.0\n", 2, "should be an integer"],
    ["a pair judged in two ways", "q1 0 a 1\nq1 0 a 0\n", 2, "and 1 on an earlier line"],
  ])("qrels: %s", async (_, content, line, message) => {
    const error = await readTrecQrels(fileWith(content)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CorruptFileError);
    expect(error).toMatchObject({ path, line });
    expect((error as Error).message).toContain(message);
  });
});

test("what the format can't hold is refused, and the file that was there stays", async () => {
  fileWith("before");
  const write = (run: Parameters<typeof writeTrecRun>[1], tag = "t") => writeTrecRun(path, run, { tag });
  await expect(write(new Map([["q 1", ["a"]]]))).rejects.toThrow(InvalidInputError);
  await expect(write(new Map([["q", ["a", "b\tc"]]]))).rejects.toThrow(/a document id is "b\\tc"/);
  await expect(write(new Map([["q", ["a"]]]), "")).rejects.toThrow(/the tag is ""/);
  await expect(write(new Map([["q", new Map([["a", Number.POSITIVE_INFINITY]])]]))).rejects.toThrow(/isn't finite/);
  await expect(writeTrecQrels(path, new Map([["q", new Map([["a", 0.5]])]]))).rejects.toThrow(/integers/);
  expect(readFileSync(path, "utf8")).toBe("before");
  expect(readdirSync(folder)).toEqual(["file.txt"]);
  await expect(writeTrecQrels(join(folder, "none", "x"), new Map())).rejects.toThrow(RuntimeFailureError);
});
