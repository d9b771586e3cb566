import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { InvalidInputError, MissingFileError } from "../errors.js";
import { canonicalJson, fileDigest, sha256Hex } from "./digest.js";

describe("digests", () => {
  test("hash text as UTF-8, as bytes and from a file alike, to the published value of sha256", async () => {
    // FIPS 180-4's example: "abc".
    const expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    expect(sha256Hex("abc")).toBe(expected);
    expect(sha256Hex(new Uint8Array([97, 98, 99]))).toBe(expected);
    const folder = await mkdtemp(join(tmpdir(), "cde-digest-"));
    try {
      await writeFile(join(folder, "abc"), "abc");
      expect(await fileDigest(join(folder, "abc"))).toBe(expected);
      const long = new Uint8Array((1 << 20) + 7).fill(9);
      await writeFile(join(folder, "long"), long);
      expect(await fileDigest(join(folder, "long"))).toBe(sha256Hex(long));
      await expect(fileDigest(join(folder, "none"))).rejects.toBeInstanceOf(MissingFileError);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("canonicalJson", () => {
  test("sorts keys at every depth, keeps lists in order, and has no white space", () => {
    const value = { b: [2, { z: null, a: "é\n" }], a: true, "10": 1, "9": -0.5, gone: undefined };
    expect(canonicalJson(value)).toBe('{"10":1,"9":-0.5,"a":true,"b":[2,{"a":"é\\n","z":null}]}');
    expect(canonicalJson({ a: 1, b: 2 })).toBe(canonicalJson({ b: 2, a: 1 }));
    expect(canonicalJson([1, 2])).not.toBe(canonicalJson([2, 1]));
  });

  test.each<[string, unknown]>([
    ["NaN", { a: Number.NaN }],
    ["an infinity", [Number.NEGATIVE_INFINITY]],
    ["undefined in a list", [undefined]],
    ["a hole in a list", new Array(2)],
    ["a Map", { a: new Map() }],
    ["a typed array", new Float32Array(2)],
    ["a date", new Date(0)],
    ["a bigint", 7n],
    ["a function", { f: () => 1 }],
  ])("refuses %s", (_, value) => {
    expect(() => canonicalJson(value)).toThrow(InvalidInputError);
  });
});
