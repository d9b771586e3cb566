import { expect, test } from "vitest";
import { instantiateKernels } from "./kernel.js";

test("the dot products of small whole numbers are exact, row by row", () => {
  const { memory, dotFloat32, dotInt8 } = instantiateKernels();
  // Two rows of 32: the numbers 1 to 32, and their negatives at every second place.
  const query = Array.from({ length: 32 }, (_, i) => (i % 5) - 2);
  const rows = [query.map((_, i) => i + 1), query.map((_, i) => (i % 2 ? -i - 1 : i + 1))];
  const expected = rows.map((row) => row.reduce((sum, x, i) => sum + x * (query[i] as number), 0));
  expect(expected[0]).not.toBe(expected[1]);

  new Float32Array(memory.buffer, 0, 32).set(query);
  new Float32Array(memory.buffer, 256, 64).set(rows.flat());
  dotFloat32(0, 256, 128, 2, 128);
  expect([...new Float32Array(memory.buffer, 128, 3)]).toEqual([...expected, 0]);

  new Int16Array(memory.buffer, 1024, 32).set(query);
  new Int8Array(memory.buffer, 2048, 64).set(rows.flat());
  dotInt8(1024, 2048, 32, 2, 1536);
  expect([...new Int32Array(memory.buffer, 1536, 3)]).toEqual([...expected, 0]);
});

test("no rows are no products", () => {
  const { memory, dotFloat32 } = instantiateKernels();
  new Float32Array(memory.buffer).fill(7);
  dotFloat32(0, 256, 128, 0, 128);
  expect(new Float32Array(memory.buffer, 128, 1)[0]).toBe(7);
});
