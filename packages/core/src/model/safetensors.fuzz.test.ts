/** Damaged copies of real files: the reader either refuses with an error of ours, or reads what the bytes say. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CdeError } from "../errors.js";
import { openSafetensors, parseSafetensors, type SafetensorsBytes } from "./safetensors.js";

const FILES = ["bert-tiny/weights", "nomic-bert-tiny/weights", "modernbert-tiny/weights", "minilm/expected"];
const numRuns = process.env.CDE_FULL === "1" ? 10_000 : 800;

let folder: string;
let originals: Buffer[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-fuzz-"));
  const golden = new URL("../../../../test/parity/golden/", import.meta.url);
  originals = await Promise.all(FILES.map((name) => readFile(new URL(`${name}.safetensors`, golden))));
});
afterAll(() => rm(folder, { recursive: true }));

const seldom = <T>(damage: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.oneof({ weight: 5, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: damage });

/** Damage to the raw bytes, most of it near the header, where it matters. */
const byteDamage = fc.record({
  flips: fc.array(fc.tuple(fc.oneof(fc.nat(4000), fc.nat(15), fc.nat(1e6)), fc.integer({ min: 0, max: 255 })), {
    maxLength: 4,
  }),
  cut: seldom(fc.nat(1e6)),
  extra: seldom(fc.uint8Array({ maxLength: 40 })),
  length: seldom(fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 5000n }))),
});

/** A value where a sound header has another. */
const oddValue = fc.oneof(
  fc.constantFrom<unknown>(
    "F16",
    "BF16",
    "F32",
    "F4",
    "X9",
    -1,
    0,
    1,
    4,
    2 ** 31,
    2 ** 53,
    1e308,
    null,
    true,
    "",
    {},
    [],
    [[[]]],
  ),
  fc.array(fc.oneof(fc.nat(64), fc.constantFrom(-1, 0.5, 2 ** 40, 2 ** 53, null)), { maxLength: 4 }),
  fc.jsonValue({ maxDepth: 2 }),
);
const headerDamage = fc.array(
  fc.record({
    tensor: fc.nat(60),
    field: fc.constantFrom("dtype", "shape", "data_offsets", "*", "name", "drop", "twice", "shift"),
    value: oddValue,
    shift: fc.integer({ min: -128, max: 128 }),
    name: fc.oneof(fc.string(), fc.constantFrom("__proto__", "constructor", "__metadata__", "0")),
  }),
  { minLength: 1, maxLength: 3 },
);

describe("a damaged file", () => {
  test(`of ${numRuns} with damaged bytes gives our error, or what the bytes say`, () => {
    let read = 0;
    fc.assert(
      fc.property(fc.nat(FILES.length - 1), byteDamage, (which, damage) => {
        read += check(damageBytes(originals[which]!, damage)) ? 1 : 0;
      }),
      { seed: 5, numRuns },
    );
    // Both ends have to be met: damage to the data alone is readable, damage to the header mostly isn't.
    expect(read).toBeGreaterThan(numRuns / 50);
    expect(read).toBeLessThan(numRuns);
  });

  test(`of ${numRuns} with a damaged header gives our error, or what the header says`, () => {
    let read = 0;
    fc.assert(
      fc.property(fc.nat(FILES.length - 1), headerDamage, (which, damage) => {
        read += check(damageHeader(originals[which]!, damage)) ? 1 : 0;
      }),
      { seed: 7, numRuns },
    );
    expect(read).toBeLessThan(numRuns / 2);
  });

  test("gives the same answer from disk as from memory", async () => {
    const path = join(folder, "damaged.safetensors");
    const run = async (which: number, bytes: Uint8Array) => {
      await writeFile(path, bytes);
      const inMemory = outcome(() => parseSafetensors(bytes));
      const onDisk = await openSafetensors(path).catch((error: unknown) => error);
      if (inMemory instanceof Error) {
        expect(onDisk, FILES[which]).toBeInstanceOf(inMemory.constructor);
        return;
      }
      expect(onDisk).not.toBeInstanceOf(Error);
      await using file = onDisk as Awaited<ReturnType<typeof openSafetensors>>;
      for (const name of inMemory.tensors.keys()) expect(same(await file.read(name), inMemory.read(name))).toBe(true);
    };
    await fc.assert(
      fc.asyncProperty(fc.nat(FILES.length - 1), byteDamage, (which, damage) =>
        run(which, damageBytes(originals[which]!, damage)),
      ),
      { seed: 9, numRuns: numRuns / 10 },
    );
  });
});

/** True where the file could be read; fails on an error that isn't ours, or on values that aren't the file's. */
function check(bytes: Uint8Array): boolean {
  const parsed = outcome(() => parseSafetensors(bytes));
  if (parsed instanceof Error) return false;
  const headerBytes = Number(Buffer.from(bytes.buffer, bytes.byteOffset).readBigUInt64LE(0));
  const header = JSON.parse(Buffer.from(bytes.subarray(8, 8 + headerBytes)).toString()) as Record<
    string,
    { data_offsets: [number, number]; shape: number[] }
  >;
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  expect([...parsed.tensors.keys()].sort()).toEqual(names.sort());
  let covered = 8 + headerBytes;
  for (const name of names) {
    const [begin, end] = header[name]!.data_offsets;
    const start = 8 + headerBytes + begin;
    expect(same(parsed.read(name), bytes.slice(start, start + end - begin)), name).toBe(true);
    expect(parsed.tensors.get(name)!.shape).toEqual(header[name]!.shape);
    covered += end - begin;
  }
  expect(covered).toBe(bytes.length);
  return true;
}

function outcome(parse: () => SafetensorsBytes): SafetensorsBytes | Error {
  try {
    return parse();
  } catch (error) {
    if (error instanceof CdeError) return error;
    throw error;
  }
}

function same(a: ArrayBufferView, b: ArrayBufferView): boolean {
  const bytes = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  return bytes(a).equals(bytes(b));
}

type ByteDamage = typeof byteDamage extends fc.Arbitrary<infer T> ? T : never;
type HeaderDamage = typeof headerDamage extends fc.Arbitrary<infer T> ? T : never;

function damageBytes(original: Buffer, { flips, cut, extra, length }: ByteDamage): Uint8Array {
  const bytes = Uint8Array.from(original);
  for (const [position, value] of flips) bytes[position % bytes.length] = value;
  if (length !== null) new DataView(bytes.buffer).setBigUint64(0, length, true);
  const kept = cut === null ? bytes : bytes.slice(0, cut % bytes.length);
  return extra === null ? kept : new Uint8Array(Buffer.concat([kept, extra]));
}

/** Rebuilds the file around a changed header; the data stay. */
function damageHeader(original: Buffer, damages: HeaderDamage): Uint8Array {
  const length = Number(original.readBigUInt64LE(0));
  const header = JSON.parse(original.subarray(8, 8 + length).toString()) as Record<string, unknown>;
  const members = Object.entries(header).map(([name, value]) => [name, value] as [string, unknown]);
  for (const { tensor, field, value, shift, name } of damages) {
    if (members.length === 0) break;
    const at = tensor % members.length;
    const member = members[at]!;
    const info = { ...(member[1] as Record<string, unknown>) };
    if (field === "drop") members.splice(at, 1);
    else if (field === "twice") members.push(member);
    else if (field === "name") member[0] = name;
    else if (field === "*") member[1] = value;
    else if (field === "shift" && Array.isArray(info.data_offsets))
      member[1] = { ...info, data_offsets: info.data_offsets.map((offset: number) => offset + shift) };
    else member[1] = { ...info, [field]: value };
  }
  const json = Buffer.from(`{${members.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`)}}`);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  return new Uint8Array(Buffer.concat([size, json, original.subarray(8 + length)]));
}
