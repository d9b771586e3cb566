import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mappedWeights } from "./mapped-weights.js";
import { openSafetensors, writeSafetensors } from "./safetensors.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-mapped-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("float32 tensors are found in their file, byte by byte", async () => {
  const path = join(folder, "whole.safetensors");
  await writeSafetensors(path, [
    { name: "a", dtype: "F32", shape: [2], data: Float32Array.of(1, 2) },
    { name: "b", dtype: "F32", shape: [3], data: Float32Array.of(3, 4, 5) },
  ]);
  await using file = await openSafetensors(path);
  const mapped = await mappedWeights(file, ["a", "b"]);
  expect(mapped!.place("b")).toEqual({
    file: "whole.safetensors",
    start: mapped!.place("a").start + 8,
    byteLength: 12,
  });
});

test("other types, and data that don't begin at a multiple of 4, have to be read", async () => {
  const half = join(folder, "half.safetensors");
  await writeSafetensors(half, [{ name: "a", dtype: "F16", shape: [2], data: Float32Array.of(1, 2) }]);
  await using halfFile = await openSafetensors(half);
  expect(await mappedWeights(halfFile, ["a"])).toBeUndefined();
  const header = JSON.stringify({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4] } });
  for (const [spaces, fits] of [
    [0, (8 + header.length) % 4 === 0],
    [1, (9 + header.length) % 4 === 0],
    [2, (10 + header.length) % 4 === 0],
    [3, (11 + header.length) % 4 === 0],
  ] as const) {
    const bytes = Buffer.alloc(8 + header.length + spaces + 4);
    bytes.writeBigUInt64LE(BigInt(header.length + spaces));
    bytes.write(header + " ".repeat(spaces), 8);
    const path = join(folder, `${spaces}.safetensors`);
    await writeFile(path, bytes);
    await using file = await openSafetensors(path);
    expect((await mappedWeights(file, ["a"])) !== undefined, `${spaces} spaces`).toBe(fits);
  }
});
