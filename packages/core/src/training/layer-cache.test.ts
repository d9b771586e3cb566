/** The cache of frozen layers' states on its own: what it gives back, its limit, and files that aren't whole. */
import { appendFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CorruptFileError } from "../errors.js";
import type { Session } from "../runtime/runtime.js";
import { LayerCache, LayerCacheFullError } from "./layer-cache.js";
import { lowerSource, statesSource } from "./text-source.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "cde-states-"));
});
afterAll(() => rm(root, { recursive: true }));

const KEY = "ab".repeat(32);
const WIDTH = 3;
const ids = (...values: number[]) => Int32Array.from(values);
/** 0.1 isn't a float16; the others are. */
const states = (tokens: number, first = 0.5) => Float32Array.from({ length: tokens * WIDTH }, (_, i) => first + i / 4);

let count = 0;
const folder = () => join(root, String(count++));
const open = (directory: string, changes: { key?: string; maxBytes?: number } = {}) =>
  LayerCache.open(directory, { key: KEY, width: WIDTH, maxBytes: 1e6, ...changes });

async function read(cache: LayerCache, of: Int32Array): Promise<number[]> {
  const target = new Float32Array(of.length * WIDTH + 1);
  await cache.read(of, target, 1);
  expect(target[0]).toBe(0);
  return [...target.subarray(1)];
}

/** A file with two texts; returns its path. */
async function filled(directory: string): Promise<string> {
  await using cache = await open(directory);
  await cache.add(ids(1, 2), states(2));
  await cache.add(ids(3), states(1, 0.1));
  const [name] = await readdir(directory);
  return join(directory, name!);
}

describe("the cache of states", () => {
  test("gives back what another run put in, rounded to float16, and knows no other text", async () => {
    const directory = folder();
    await filled(directory);
    await using cache = await open(directory);
    expect(cache.size).toBe(2);
    expect(await read(cache, ids(1, 2))).toEqual([...states(2)]);
    const [rounded] = await read(cache, ids(3));
    expect(rounded).toBe(0.0999755859375); // 1638 / 2^14, the float16 below 0.1
    expect(cache.has(ids(1))).toBe(false);
    expect(cache.has(ids(2, 1))).toBe(false);
  });

  test("is another one for other layers", async () => {
    const directory = folder();
    await filled(directory);
    await using other = await open(directory, { key: "cd".repeat(32) });
    expect(other.size).toBe(0);
  });

  test("serves two runs at once, each with a file of its own", async () => {
    const directory = folder();
    await filled(directory);
    await using first = await open(directory);
    await using second = await open(directory);
    await Promise.all([first.add(ids(7), states(1, 7)), second.add(ids(8), states(1, 8))]);
    expect((await readdir(directory)).length).toBe(3);
    await using third = await open(directory);
    expect(await read(third, ids(7))).toEqual([...states(1, 7)]);
    expect(await read(third, ids(8))).toEqual([...states(1, 8)]);
  });

  test("passes over what a killed run didn't finish, at every length", async () => {
    const directory = folder();
    const path = await filled(directory);
    const whole = await readFile(path);
    for (let length = 0; length < whole.length; length++) {
      await writeFile(path, whole.subarray(0, length));
      await using cache = await open(directory);
      // The head takes 128 bytes, the first text 40 + 2·3·2.
      expect(cache.size).toBe(length < 128 + 52 ? 0 : 1);
      if (length >= 128 + 52) expect(await read(cache, ids(1, 2))).toEqual([...states(2)]);
    }
  });

  test("refuses bytes that were changed, and a file that is something else", async () => {
    const directory = folder();
    const path = await filled(directory);
    const bytes = await readFile(path);
    bytes[128 + 45]! ^= 1;
    await writeFile(path, bytes);
    const cache = await open(directory);
    await expect(read(cache, ids(1, 2))).rejects.toThrow(CorruptFileError);
    await cache[Symbol.asyncDispose]();
    bytes[3]! ^= 1;
    await writeFile(path, bytes);
    await expect(open(directory)).rejects.toThrow("isn't the cache of these layers");
    await truncate(path);
    await appendFile(path, "x".repeat(200));
    await expect(open(directory)).rejects.toThrow(CorruptFileError);
  });

  test("stops at its limit with a typed error that names it, and keeps what it has", async () => {
    const directory = folder();
    await using cache = await open(directory, { maxBytes: 128 + 52 + 10 });
    await cache.add(ids(1, 2), states(2));
    const failure = await cache.add(ids(3), states(1)).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(LayerCacheFullError);
    expect(failure).toMatchObject({ code: "LAYER_CACHE_FULL", limit: 190, texts: 1 });
    expect(await read(cache, ids(1, 2))).toEqual([...states(2)]);
    await expect(open(folder(), { maxBytes: 0 })).rejects.toThrow("layerCache.maxBytes");
  });
});

test("states of texts that the cache holds are not computed again", async () => {
  const directory = folder();
  const runs: number[] = [];
  const session = {
    run: async ({ ids: tokens }: { ids: { data: Int32Array; shape: number[] } }) => {
      runs.push(tokens.shape[0]!);
      const data = Float32Array.from(
        { length: tokens.data.length * WIDTH },
        (_, i) => tokens.data[Math.floor(i / WIDTH)]!,
      );
      return { states: { dtype: "float32", shape: [...tokens.shape, WIDTH], data } };
    },
  } as unknown as Session;
  await using cache = await open(directory);
  const frozen = { session, cache, padId: 0, tokens: 64 };
  const texts = [ids(5, 6, 7), ids(8)];
  const batch = { positions: [0, 1], length: 3 };
  const first = await (await statesSource(texts, frozen)).feeds(batch);
  expect(runs).toEqual([2]);
  const again = await (await statesSource([...texts, ids(9)], frozen)).feeds(batch);
  expect(runs).toEqual([2, 1]);
  expect(again).toEqual(first);
  // Rows of padding are zeros; without the cache they are what the layers make of padding.
  const row = (value: number) => Array<number>(WIDTH).fill(value);
  expect([...(first.states!.data as Float32Array)]).toEqual([5, 6, 7, 8, 0, 0].flatMap(row));
  expect([...(first.mask!.data as Float32Array)]).toEqual([1, 1, 1, 1, 0, 0]);
  const exact = await lowerSource(texts, session, 0).feeds(batch);
  expect(exact).toEqual(first);
});
