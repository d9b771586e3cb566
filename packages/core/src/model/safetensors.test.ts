import { createHash } from "node:crypto";
import { mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CorruptFileError, InvalidInputError, MissingFileError, ModelError } from "../errors.js";
import { bfloat16ToFloat32, float16ToFloat32, float32ToFloat16 } from "./half.js";
import { openSafetensors, openWeights, parseSafetensors, type TensorToWrite, writeSafetensors } from "./safetensors.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));
const at = (name: string) => join(folder, name);

/** A file of this header text (padded as given) and data. */
function file(header: string | object, data: Uint8Array = new Uint8Array(0), announced?: number | bigint): Uint8Array {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(announced ?? json.length));
  return new Uint8Array(Buffer.concat([length, json, data]));
}

const entry = (dtype: string, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });
const float32Bytes = (...values: number[]) => new Uint8Array(new Float32Array(values).buffer);

describe("the header", () => {
  test("is read: metadata, tensors in data order, values", () => {
    const data = float32Bytes(1, 2, 3, 4, 5, 6);
    const parsed = parseSafetensors(
      file({ b: entry("F32", [2], [16, 24]), __metadata__: { format: "pt" }, a: entry("F32", [2, 2], [0, 16]) }, data),
    );
    expect([...parsed.metadata]).toEqual([["format", "pt"]]);
    expect([...parsed.tensors.keys()]).toEqual(["a", "b"]);
    expect(parsed.tensors.get("a")).toMatchObject({ dtype: "F32", shape: [2, 2], byteLength: 16 });
    expect(parsed.read("b")).toEqual(new Float32Array([5, 6]));
  });

  test("may name empty tensors anywhere, and may be empty itself", () => {
    const parsed = parseSafetensors(
      file(
        { x: entry("F32", [1], [0, 4]), e: entry("I64", [3, 0], [4, 4]), f: entry("U8", [0], [0, 0]) },
        float32Bytes(7),
      ),
    );
    expect(parsed.read("e")).toEqual(new BigInt64Array(0));
    expect(parsed.readFloat32("x", [1])).toEqual(new Float32Array([7]));
    expect(parseSafetensors(file("{}")).tensors.size).toBe(0);
  });

  const one = (dtype: string, shape: unknown, offsets: unknown) =>
    file({ x: entry(dtype, shape, offsets) }, float32Bytes(1, 2));
  test.each<[string, Uint8Array, RegExp]>([
    ["an empty file", new Uint8Array(0), /has 0 bytes/],
    ["a file of 7 bytes", new Uint8Array(7), /has 7 bytes/],
    ["a header longer than the file", file("{}", undefined, 3000), /announces a header of 3000 bytes and has 10/],
    ["a header of 100 MB", file("{}", undefined, 100e6), /at most 26214400/],
    ["a header of 2^64 - 1 bytes", file("{}", undefined, 2n ** 64n - 1n), /18446744073709551615/],
    [
      "a Git-LFS pointer",
      Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"),
      /git lfs pull/,
    ],
    ["another format", Buffer.from("PK\x03\x04 an archive of something else"), /isn't a safetensors file/],
    ["JSON cut short", file('{"x":'), /isn't JSON/],
    ["bytes that aren't UTF-8", file(Buffer.from('{"\xff":1}', "latin1").toString("latin1")), /should be an object/],
    [
      "a tensor named twice",
      file(
        '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0078":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
      ),
      /"x" twice/,
    ],
    [
      "a dtype given twice",
      file('{"x":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'),
      /"dtype" twice/,
    ],
    ["metadata that isn't text", file({ __metadata__: { epoch: 3 } }), /should be text, found 3/],
    ["an unknown dtype", one("F33", [2], [0, 8]), /"F33"/],
    ["a dtype of Object's prototype", one("constructor", [2], [0, 8]), /"constructor"/],
    ["a negative size", one("F32", [-2], [0, 8]), /shape \[-2\]/],
    ["a fractional size", one("F32", [0.5], [0, 8]), /shape/],
    [
      "a deeply nested shape",
      file(
        `{"x":{"dtype":"F32","shape":${"[".repeat(100_000)}${"]".repeat(100_000)},"data_offsets":[0,8]}}`,
        new Uint8Array(8),
      ),
      /shape/,
    ],
    ["a shape whose product overflows", one("F32", [2 ** 40, 2 ** 40], [0, 8]), /no whole number/],
    ["a length that isn't shape times dtype", one("F32", [3], [0, 8]), /12 bytes, but its offsets \[0, 8\] hold 8/],
    ["sub-byte elements that fill no whole bytes", one("F4", [3], [0, 8]), /no whole number/],
    ["offsets in reverse", one("F32", [2], [8, 0]), /hold -8/],
    ["offsets beyond the file", one("F32", [4], [0, 16]), /wasn't finished/],
    ["bytes that no tensor owns", one("F32", [1], [0, 4]), /tensors end at/],
    ["a hole before the first tensor", one("F32", [1], [4, 8]), /neither overlap nor leave holes/],
    [
      "overlapping tensors",
      file({ x: entry("F32", [2], [0, 8]), y: entry("F32", [1], [4, 8]) }, float32Bytes(1, 2)),
      /overlap/,
    ],
    [
      "a hole between tensors",
      file({ x: entry("U8", [2], [0, 2]), y: entry("U8", [2], [4, 6]) }, new Uint8Array(6)),
      /holes/,
    ],
  ])("refuses %s", async (name, bytes, message) => {
    expect(() => parseSafetensors(bytes)).toThrow(message);
    expect(() => parseSafetensors(bytes)).toThrow(CorruptFileError);
    const path = at(`${name.replace(/\W/g, "-")}.safetensors`);
    await writeFile(path, bytes);
    const opening = openSafetensors(path);
    await expect(opening).rejects.toBeInstanceOf(CorruptFileError);
    await expect(opening).rejects.toMatchObject({ path, message: expect.stringMatching(message) });
  });
});

describe("openSafetensors", () => {
  test("names a missing file, a folder, and a download that wasn't finished", async () => {
    await expect(openSafetensors(at("none"))).rejects.toBeInstanceOf(MissingFileError);
    await expect(openSafetensors(folder)).rejects.toBeInstanceOf(CorruptFileError);
    await writeSafetensors(at("half"), [{ name: "x", dtype: "F32", shape: [100], data: new Float32Array(100) }]);
    const whole = await readFile(at("half"));
    await writeFile(at("half"), whole.subarray(0, whole.length - 1));
    await expect(openSafetensors(at("half"))).rejects.toThrow(/wasn't finished/);
  });

  test("names a missing and a misshapen tensor, with both shapes, and a dtype that isn't a float", async () => {
    const path = at("shapes");
    await writeSafetensors(path, [
      { name: "a.weight", dtype: "F32", shape: [2, 3], data: new Float32Array(6) },
      { name: "ids", dtype: "I64", shape: [1], data: new BigInt64Array([7n]) },
    ]);
    await using weights = await openSafetensors(path);
    await expect(weights.readFloat32("b.weight")).rejects.toThrow(/no tensor "b.weight"/);
    await expect(weights.readFloat32("a.weight", [3, 2])).rejects.toThrow(/shape \[2, 3\], config.json wants \[3, 2\]/);
    await expect(weights.readFloat32("a.weight", [2, 3, 1])).rejects.toBeInstanceOf(ModelError);
    await expect(weights.readFloat32("ids")).rejects.toThrow(/dtype I64/);
    expect(await weights.read("ids")).toEqual(new BigInt64Array([7n]));
  });

  test("says when the file was cut after it was opened", async () => {
    const path = at("cut-later");
    await writeSafetensors(path, [{ name: "x", dtype: "F32", shape: [100], data: new Float32Array(100) }]);
    await using weights = await openSafetensors(path);
    await truncate(path, 200);
    await expect(weights.readFloat32("x")).rejects.toBeInstanceOf(CorruptFileError);
  });

  test("has the file's sha256 as its digest", async () => {
    const path = at("digest");
    await writeSafetensors(path, [{ name: "x", dtype: "U8", shape: [3], data: new Uint8Array([1, 2, 3]) }]);
    await using weights = await openSafetensors(path);
    expect(await weights.digest()).toBe(
      createHash("sha256")
        .update(await readFile(path))
        .digest("hex"),
    );
  });

  test("converts a tensor longer than one piece: float64, float16 and bfloat16", async () => {
    const count = (1 << 21) + 12_345; // 4 MiB pieces hold 2^21 halves or 2^19 doubles
    const values = Float32Array.from({ length: count }, (_, i) => (i % 2048) - 1024);
    const path = at("pieces");
    await writeSafetensors(path, [
      { name: "f16", dtype: "F16", shape: [count], data: values },
      { name: "f64", dtype: "F64", shape: [count], data: () => Float64Array.from(values) },
    ]);
    await using weights = await openSafetensors(path);
    expect(Buffer.compare(Buffer.from((await weights.readFloat32("f16")).buffer), Buffer.from(values.buffer))).toBe(0);
    expect(Buffer.compare(Buffer.from((await weights.readFloat32("f64")).buffer), Buffer.from(values.buffer))).toBe(0);
    // Of the values, those below 256 fit bfloat16's 8 bits.
    const small = values.map((value) => value % 256);
    const bits = Uint16Array.from(new Uint32Array(small.buffer), (word) => word >>> 16);
    await writeFile(at("bf16"), file({ x: entry("BF16", [count], [0, 2 * count]) }, new Uint8Array(bits.buffer)));
    await using other = await openSafetensors(at("bf16"));
    expect(Buffer.compare(Buffer.from((await other.readFloat32("x")).buffer), Buffer.from(small.buffer))).toBe(0);
  });
});

describe("half precision", () => {
  test("reads and writes every float16 as itself", () => {
    const bits = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const values = new Float32Array(65_536);
    float16ToFloat32(bits, values);
    const back = float32ToFloat16(values);
    for (let i = 0; i < 65_536; i++)
      if (Number.isNaN(values[i])) expect(back[i]! & 0x7fff, `bits ${i}`).toBeGreaterThan(0x7c00);
      else expect(back[i], `bits ${i}`).toBe(i);
  });

  test("rounds to the nearest, ties to even, and keeps the sign of zero", () => {
    // Between 1 and 1 + 2^-10 lies the tie 1 + 2^-11: down to the even 0x3c00. The next tie goes up to 0x3c02.
    const values = [
      1 + 2 ** -11,
      1 + 3 * 2 ** -11,
      1 + 2 ** -11 + 2 ** -20,
      -0,
      2 ** -25,
      3 * 2 ** -25,
      65_519,
      2 ** -26,
    ];
    expect([...float32ToFloat16(new Float32Array(values))]).toEqual([0x3c00, 0x3c02, 0x3c01, 0x8000, 0, 2, 0x7bff, 0]);
    // The largest subnormal's neighbourhood: half a unit below 2^-14 rounds up into the normal range.
    expect([...float32ToFloat16(new Float32Array([2 ** -14 - 2 ** -26, 2 ** -14 - 2 ** -24]))]).toEqual([0x400, 0x3ff]);
    expect(() => float32ToFloat16(new Float32Array([0, 65_520]))).toThrow(InvalidInputError);
    expect([...float32ToFloat16(new Float32Array([Number.NEGATIVE_INFINITY]))]).toEqual([0xfc00]);
  });

  test("picks the closest of all float16 values, for any float32", () => {
    const values = new Float32Array(65_536);
    float16ToFloat32(
      Uint16Array.from({ length: 65_536 }, (_, i) => i),
      values,
    );
    const inRange = fc.float({ noNaN: true, min: -65_504, max: 65_504 });
    fc.assert(
      fc.property(inRange, (x) => {
        const [bits] = float32ToFloat16(new Float32Array([x]));
        const error = Math.abs(values[bits!]! - x);
        for (const neighbour of [bits! - 1, bits! + 1])
          if (Number.isFinite(values[neighbour])) expect(error).toBeLessThanOrEqual(Math.abs(values[neighbour]! - x));
      }),
      { seed: 3, numRuns: 2000 },
    );
  });

  test("takes bfloat16 for the upper half of a float32", () => {
    const target = new Float32Array(3);
    bfloat16ToFloat32(new Uint16Array([0x3f80, 0xc049]), target, 1);
    expect([...target]).toEqual([0, 1, -3.140625]); // 0x4049 = 2^1 · (1 + 73/128)
  });
});

describe("writeSafetensors", () => {
  const tensors: TensorToWrite[] = [
    { name: "0", dtype: "U8", shape: [3], data: new Uint8Array([1, 2, 3]) },
    { name: "b", dtype: "F32", shape: [1, 2], data: new Float32Array([1.5, -2]) },
    { name: "a", dtype: "F32", shape: [], data: new Float32Array([7]) },
    { name: "__proto__", dtype: "F16", shape: [2], data: new Float32Array([0.5, 2]) },
    { name: 'q"ü', dtype: "I8", shape: [2], data: new Int8Array([-1, 1]) },
    { name: "i", dtype: "I32", shape: [1], data: new Int32Array([-5]) },
    { name: "d", dtype: "F64", shape: [1], data: new Float64Array([0.1]) },
    { name: "e", dtype: "I64", shape: [0, 4], data: new BigInt64Array(0) },
  ];

  test("writes what the reader reads, widest first, and the same bytes whatever the order given", async () => {
    await writeSafetensors(at("one"), tensors, { b: "2", a: "1" });
    await writeSafetensors(at("two"), [...tensors].reverse(), { a: "1", b: "2" });
    const bytes = await readFile(at("one"));
    expect(bytes.equals(await readFile(at("two")))).toBe(true);
    expect(bytes.readUInt32LE(0) % 8).toBe(0);
    const parsed = parseSafetensors(bytes);
    expect([...parsed.metadata]).toEqual([
      ["a", "1"],
      ["b", "2"],
    ]);
    expect([...parsed.tensors.keys()]).toEqual(["d", "e", "a", "b", "i", "__proto__", "0", 'q"ü']);
    for (const { name, dtype, shape, data } of tensors) {
      expect(parsed.tensors.get(name)).toMatchObject({ dtype, shape });
      expect(dtype === "F16" ? parsed.readFloat32(name) : parsed.read(name)).toEqual(data);
    }
  });

  test("puts a new file in the place of the old one, which whoever reads it goes on reading", async () => {
    await writeSafetensors(at("replaced"), tensors);
    const old = await readFile(at("replaced"));
    const reader = await open(at("replaced"));
    try {
      await writeSafetensors(at("replaced"), [{ name: "x", dtype: "F32", shape: [1], data: Float32Array.of(7) }]);
      expect((await readFile(at("replaced"))).equals(old)).toBe(false);
      expect((await reader.readFile()).equals(old)).toBe(true);
    } finally {
      await reader.close();
    }
  });

  test("leaves the old file whole and no other behind when it fails", async () => {
    await writeSafetensors(at("kept"), tensors);
    const before = await readFile(at("kept"));
    const failing: TensorToWrite = {
      name: "x",
      dtype: "F32",
      shape: [1],
      data: () => Promise.reject(new Error("gone")),
    };
    await expect(writeSafetensors(at("kept"), [...tensors, failing])).rejects.toThrow("gone");
    expect((await readFile(at("kept"))).equals(before)).toBe(true);
    expect((await readdir(folder)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test.each<[string, TensorToWrite[]]>([
    ["a name given twice", [tensors[0]!, tensors[0]!]],
    ["the reserved name", [{ name: "__metadata__", dtype: "U8", shape: [0], data: new Uint8Array(0) }]],
    ["data of another length", [{ name: "x", dtype: "F32", shape: [2, 2], data: new Float32Array(3) }]],
    [
      "data of another type",
      [{ name: "x", dtype: "F32", shape: [1], data: new Float64Array(1) as unknown as Float32Array }],
    ],
    ["a negative size", [{ name: "x", dtype: "F32", shape: [-1], data: new Float32Array(1) }]],
    ["a dtype it can't write", [{ name: "x", dtype: "F8" as "F32", shape: [1], data: new Float32Array(1) }]],
    ["a value that float16 can't hold", [{ name: "x", dtype: "F16", shape: [2], data: new Float32Array([1, 1e6]) }]],
  ])("refuses %s", async (_, bad) => {
    await expect(writeSafetensors(at("refused"), bad)).rejects.toBeInstanceOf(InvalidInputError);
    expect(await readdir(folder)).not.toContain("refused");
  });
});

describe("a sharded model", () => {
  const index = () => at("model.safetensors.index.json");
  const write = (weightMap: unknown) =>
    writeFile(index(), JSON.stringify({ metadata: { total_size: 8 }, weight_map: weightMap }));
  beforeAll(async () => {
    await writeSafetensors(at("s-1.safetensors"), [
      { name: "a", dtype: "F32", shape: [1], data: new Float32Array([1]) },
    ]);
    await writeSafetensors(at("s-2.safetensors"), [
      { name: "b", dtype: "F32", shape: [1], data: new Float32Array([2]) },
    ]);
  });

  test("reads as one, and its digest changes with any shard", async () => {
    await write({ a: "s-1.safetensors", b: "s-2.safetensors" });
    await using weights = await openWeights(index());
    expect([...weights.tensors.keys()]).toEqual(["a", "b"]);
    expect([...(await weights.readFloat32("b", [1]))]).toEqual([2]);
    await expect(weights.readFloat32("c")).rejects.toBeInstanceOf(ModelError);
    const before = await weights.digest();
    await writeSafetensors(at("s-2.safetensors"), [
      { name: "b", dtype: "F32", shape: [1], data: new Float32Array([3]) },
    ]);
    await using again = await openWeights(index());
    expect(await again.digest()).not.toBe(before);
  });

  test.each<[string, unknown, RegExp]>([
    ["a shard outside the folder", { a: "../s-1.safetensors" }, /plain name/],
    ["an absolute shard", { a: "/etc/s.safetensors" }, /plain name/],
    ["a tensor that the shard lacks", { a: "s-1.safetensors", x: "s-1.safetensors" }, /"x" should lie/],
    ["a shard's tensor that isn't listed", { b: "s-2.safetensors", c: "s-1.safetensors" }, /holds tensor "a"/],
    ["an empty map", {}, /weight_map/],
    ["no map", [], /weight_map/],
    ["a missing shard", { a: "s-1.safetensors", z: "s-9.safetensors" }, /no file/],
  ])("refuses %s", async (_, weightMap, message) => {
    await write(weightMap);
    await expect(openWeights(index())).rejects.toThrow(message);
  });
});
