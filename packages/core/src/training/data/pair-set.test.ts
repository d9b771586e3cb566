import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CorruptFileError, InvalidInputError, MissingFileError, RuntimeFailureError } from "../../errors.js";
import { createPairSet } from "./create-pair-set.js";
import { BYTES_PER_PAIR, COLUMNS, GrowingColumns } from "./pair-columns.js";
import type { PairRecord } from "./pair-record.js";
import { PairSet } from "./pair-set.js";
import { temporaryPath } from "./temporary.test.support.js";
import { normalisedText, textKey } from "./text-key.js";

const records = (count: number): PairRecord[] =>
  Array.from({ length: count }, (_, i) => ({
    id: `pair ${i}`,
    dataset: i % 3 === 0 ? "law" : "medicine",
    query: `question ${i}?`,
    positive: `answer ${i} with some words`,
    ...(i % 4 === 0 && { negatives: [`wrong ${i}`, `also wrong ${i}`] }),
  }));

describe("a pair set", () => {
  test("gives back what was put in, in any order, here and opened again", async () => {
    const folder = temporaryPath("set");
    const given = records(2500);
    await using made = await createPairSet(folder, given);
    await using opened = await PairSet.open(folder);
    for (const pairs of [made, opened]) {
      expect(pairs.size).toBe(2500);
      const positions = [2499, 0, 7, 8, 7, 1200];
      const expected = positions.map((at) => {
        const { id, query, positive, negatives = [] } = given[at]!;
        return { id, query, positive, negatives };
      });
      expect(await pairs.read(positions)).toEqual(expected);
      expect(pairs.datasetOf(3)).toBe("law");
      expect(pairs.positionsOf("law").length).toBe(834);
    }
    let position = 0;
    for await (const { id } of opened.pairs()) expect(id).toBe(`pair ${position++}`);
    expect(position).toBe(2500);
    expect(opened.digest).toBe(made.digest);
  });

  test("any texts come back as they were, whatever characters they have", async () => {
    const text = fc.string({ unit: "binary", minLength: 1, maxLength: 30 }).filter((value) => value.isWellFormed());
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(text, text), { minLength: 50, maxLength: 300 }), async (texts) => {
        const given = texts.map(([query, positive], i) => ({
          id: `${i}`,
          query: `q${i} ${query}`,
          positive: `d ${positive}`,
        }));
        await using pairs = await createPairSet(temporaryPath("fuzz"), given);
        expect(await pairs.read([...given.keys()])).toEqual(given.map((pair) => ({ ...pair, negatives: [] })));
      }),
      { numRuns: process.env.CDE_FULL ? 50 : 3, seed: 1 },
    );
  });

  test("leaves out a pair that differs only in case, punctuation and spaces, and keeps one of another number", async () => {
    await using pairs = await createPairSet(temporaryPath("duplicates"), [
      { query: "What is a lease?", positive: "A contract." },
      { query: "what  IS a lease", positive: "a contract" },
      { query: "What is a lease?", positive: "A contract of 2 years." },
      { query: "What is a lease?", positive: "A contract of 3 years." },
    ]);
    expect(pairs.size).toBe(3);
    const { datasets, leftOut } = pairs.statistics();
    expect(leftOut).toEqual({ duplicates: 1, faults: {}, repeatedNegatives: 0 });
    const { queries, documents, mostPairsOfOneQuery } = datasets[0]!;
    expect({ queries, documents, mostPairsOfOneQuery }).toEqual({ queries: 1, documents: 3, mostPairsOfOneQuery: 3 });
  });

  test("counts negatives, groups and repetitions of each data set", async () => {
    await using pairs = await createPairSet(temporaryPath("statistics"), [
      { dataset: "a", query: "1", positive: "x", negatives: ["n", "N.", "m"], group: "g" },
      { dataset: "a", query: "2", positive: "x", group: "g" },
      { dataset: "a", query: "3", positive: "y", group: "h" },
      { dataset: "b", query: "3", positive: "z" },
    ]);
    expect(pairs.statistics()).toEqual({
      pairs: 4,
      datasets: [
        {
          name: "a",
          pairs: 3,
          queries: 3,
          documents: 2,
          mostPairsOfOneQuery: 1,
          mostPairsOfOneDocument: 2,
          groups: 2,
          negatives: 2,
        },
        {
          name: "b",
          pairs: 1,
          queries: 1,
          documents: 1,
          mostPairsOfOneQuery: 1,
          mostPairsOfOneDocument: 1,
          groups: 0,
          negatives: 0,
        },
      ],
      leftOut: { duplicates: 0, faults: {}, repeatedNegatives: 1 },
    });
  });

  test("a part reads the same files, counts itself and has a digest of its own", async () => {
    await using pairs = await createPairSet(temporaryPath("part"), records(30));
    const part = pairs.select([20, 3, 9]);
    expect((await part.read([0, 2])).map(({ id }) => id)).toEqual(["pair 20", "pair 9"]);
    expect([...part.positionsOf("law")]).toEqual([1, 2]);
    expect((await part.select([2]).read([0]))[0]!.id).toBe("pair 9");
    expect(part.statistics().datasets.map(({ name, pairs }) => [name, pairs])).toEqual([
      ["law", 2],
      ["medicine", 1],
    ]);
    expect(new Set([pairs.digest, part.digest, pairs.select([20, 3]).digest]).size).toBe(3);
    expect(pairs.select([20, 3, 9]).digest).toBe(part.digest);
    await part.close();
    await expect(pairs.read([0])).rejects.toThrow(RuntimeFailureError);
  });
});

describe("bad pairs", () => {
  const good = { query: "What is rent?", positive: "Money." };
  const cases: [string, PairRecord, string][] = [
    ["an empty query", { query: " \n", positive: "x" }, "empty query"],
    ["an empty positive", { query: "x", positive: "" }, "empty positive"],
    ["a query that equals its positive", { query: "Rent?", positive: "rent" }, "query equals positive"],
    ["an empty negative", { ...good, negatives: ["y", " "] }, "empty negative"],
    ["a negative that equals the positive", { ...good, negatives: ["MONEY"] }, "negative equals positive"],
  ];
  test.each(cases)("%s is an error with its position, or is left out and counted", async (_, record, fault) => {
    const folder = temporaryPath("faulty");
    const attempt = createPairSet(folder, [good, record]);
    await expect(attempt).rejects.toThrow(`createPairSet: record 1: is a faulty pair: ${fault}`);
    await expect(attempt).rejects.toMatchObject({ code: "INVALID_INPUT", position: 1 });
    await using pairs = await createPairSet(folder, [good, record], { faulty: "skip" }); // nothing was left there
    expect(pairs.size).toBe(1);
    expect(pairs.statistics().leftOut.faults).toEqual({ [fault]: 1 });
  });

  test("the line is named where a reader said it", async () => {
    const record = { ...good, query: "", source: { path: "train.jsonl", line: 7 } };
    const attempt = createPairSet(temporaryPath("line"), [record]);
    await expect(attempt).rejects.toThrow("train.jsonl, line 7: is a faulty pair: empty query");
    await expect(attempt).rejects.toMatchObject({ code: "CORRUPT_FILE", line: 7 });
  });

  test("what is no record, a folder that is there, and nothing at all are refused", async () => {
    const folder = temporaryPath("refused");
    for (const record of [null, { query: 1, positive: "x" }, { ...good, negatives: "x" }, { ...good, id: "" }]) {
      await expect(createPairSet(folder, [record as unknown as PairRecord])).rejects.toThrow(InvalidInputError);
    }
    await expect(createPairSet(folder, [{ ...good, positive: "" }], { faulty: "skip" })).rejects.toThrow(
      'no pair is left of 1 records ({"empty positive":1})',
    );
    expect(readdirSync(dirname(folder)).filter((name) => name.includes("refused"))).toEqual([]);
    await (await createPairSet(folder, [good])).close();
    await expect(createPairSet(folder, [good])).rejects.toThrow("is there already");
  });

  test("an error of the source and an abort leave nothing behind", async () => {
    const folder = temporaryPath("abandoned");
    const fails = async function* () {
      yield good;
      throw new Error("the source broke");
    };
    await expect(createPairSet(folder, fails())).rejects.toThrow("the source broke");
    const stop = new AbortController();
    const endless = function* (): Generator<PairRecord> {
      for (let i = 0; ; i++) {
        if (i === 5000) stop.abort(new Error("enough"));
        yield { query: `q ${i}`, positive: `d ${i}` };
      }
    };
    await expect(createPairSet(folder, endless(), { signal: stop.signal })).rejects.toThrow("enough");
    expect(readdirSync(dirname(folder)).filter((name) => name.includes("abandoned"))).toEqual([]);
  });

  test("a folder that can't be written is a typed error", async () => {
    const file = temporaryPath("file");
    writeFileSync(file, "");
    await expect(createPairSet(join(file, "below"), [good])).rejects.toThrow("createPairSet: can't write");
  });
});

describe("files from outside", () => {
  async function damaged(name: string, change: (bytes: Buffer) => Buffer): Promise<string> {
    const folder = temporaryPath("damaged");
    await (await createPairSet(folder, records(50))).close();
    const path = join(folder, name);
    writeFileSync(path, change(readFileSync(path)));
    return folder;
  }
  const flip = (at: number) => (bytes: Buffer) => {
    bytes[at < 0 ? bytes.length + at : at]! ^= 1;
    return bytes;
  };

  test("a changed or cut index is refused when it is opened", async () => {
    for (const at of [3, 500, -1])
      await expect(PairSet.open(await damaged("index.bin", flip(at)))).rejects.toThrow(CorruptFileError);
    const cut = await damaged("index.bin", (bytes) => bytes.subarray(0, -5));
    await expect(PairSet.open(cut)).rejects.toThrow(/has \d+ bytes, expected/);
  });

  test("a changed record is refused when it is read, and others are still read", async () => {
    await using pairs = await PairSet.open(await damaged("records.jsonl", flip(4)));
    await expect(pairs.read([0])).rejects.toThrow("record 0 of");
    expect((await pairs.read([1]))[0]!.id).toBe("pair 1");
  });

  test("records and checksums of somebody else that fit each other are still checked for what they hold", async () => {
    const folder = temporaryPath("forged");
    await (await createPairSet(folder, [{ id: "1", query: "a", positive: "b" }])).close();
    for (const forged of ['["1","a",{}]'.padEnd(14), '["1","a","b"'.padEnd(14)]) {
      const record = Buffer.from(`${forged}\n`);
      writeFileSync(join(folder, "records.jsonl"), record);
      const index = readFileSync(join(folder, "index.bin"));
      index.writeDoubleLE(record.length, 8); // two offsets, three keys, one checksum
      index.writeUInt32LE(crc32(record), 40);
      writeFileSync(join(folder, "index.bin"), index);
      const manifest = JSON.parse(readFileSync(join(folder, "pairs.json"), "utf8")) as object;
      const digest = createHash("sha256").update(index).digest("hex");
      writeFileSync(join(folder, "pairs.json"), JSON.stringify({ ...manifest, digest }));
      await using pairs = await PairSet.open(folder);
      await expect(pairs.read([0])).rejects.toThrow("is no pair");
    }
  });

  test("cut records, another format, a wrong count and a missing file are told apart", async () => {
    await expect(PairSet.open(await damaged("records.jsonl", (bytes) => bytes.subarray(0, -9)))).rejects.toThrow(
      "the index counts",
    );
    const manifest = (from: string, to: string) =>
      damaged("pairs.json", (bytes) => Buffer.from(bytes.toString().replace(from, to)));
    await expect(PairSet.open(await manifest("cde-pairs-1", "other"))).rejects.toThrow('not "cde-pairs-1"');
    await expect(PairSet.open(await manifest('"pairs": 50', '"pairs": 9007199254740991'))).rejects.toThrow(
      "bytes, expected",
    );
    await expect(PairSet.open(await manifest('"pairs": 50', '"pairs": -1'))).rejects.toThrow("doesn't describe");
    await expect(PairSet.open(temporaryPath("none"))).rejects.toThrow(MissingFileError);
  });

  test("a position that isn't there is refused", async () => {
    await using pairs = await createPairSet(temporaryPath("positions"), records(3));
    for (const position of [3, -1, 0.5, Number.NaN])
      await expect(pairs.read([position])).rejects.toThrow("positions go from 0 to 2");
    expect(() => pairs.positionsOf("none")).toThrow("only law, medicine");
  });
});

describe("memory", () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  /** Collects until less than `bytes` of buffers are left: they are freed by another thread some time afterwards. */
  const collect = async (bytes: number): Promise<number> => {
    for (let i = 0; i < 20 && process.memoryUsage().arrayBuffers > bytes; i++) {
      gc();
      await new Promise((resolve) => setImmediate(resolve));
    }
    return process.memoryUsage().arrayBuffers;
  };

  test("a pair takes 38 bytes: ten million take 380 MB, and less than 80 bytes a pair while a set grows", async () => {
    expect(COLUMNS.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(BYTES_PER_PAIR);
    gc();
    const before = process.memoryUsage().arrayBuffers;
    const columns = new GrowingColumns();
    const count = process.env.CDE_FULL ? 3_000_000 : 300_000;
    for (let i = 0; i < count; i++) {
      const keys = { queryKey: i * 7919, documentKey: i, groupKey: Number.NaN };
      columns.push({ byteLength: 100, ...keys, checksum: i, dataset: 0 });
    }
    // Room to grow makes 38 bytes up to 57, and the table's slots take 4 to 12.
    const allowed = 80 * count;
    expect(await collect(before + allowed)).toBeLessThan(before + allowed);
    expect(await collect(before + allowed)).toBeGreaterThan(before + 38 * count);
    expect(columns.has(7919 * 12_345, 12_345)).toBe(true);
    expect(columns.has(7919 * 12_345, 12_346)).toBe(false);
    expect(columns.finish().offsets[count]).toBe(100 * count);
  }, 300_000);
});

test("keys are whole numbers that a float keeps, equal for equal texts alone", () => {
  const key = textKey("Straße, Nr. 5");
  expect(Number.isSafeInteger(key)).toBe(true);
  expect(textKey("STRASSE Nr 5")).not.toBe(key); // ß is no ss: another spelling
  expect(textKey("straße   nr 5!")).toBe(key);
  expect(textKey("straße nr 6")).not.toBe(key);
  expect(textKey("?!")).not.toBe(textKey("!?"));
});

test("texts of ASCII alone go a shorter way to the same key", () => {
  const ascii = fc.string({
    unit: fc.integer({ min: 0, max: 127 }).map((code) => String.fromCharCode(code)),
    maxLength: 40,
  });
  const long = (text: string) => {
    const words = text
      .normalize("NFKC")
      .toLowerCase()
      .replace(/[^\p{L}\p{M}\p{N}]+/gu, " ")
      .trim();
    return words === "" ? text.trim() : words;
  };
  fc.assert(
    fc.property(ascii, (text) => {
      expect(normalisedText(text)).toBe(long(text));
    }),
    { numRuns: 500, seed: 5 },
  );
});
