/** Context files that were cut, altered or made up: CorruptFileError, and nothing else. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ContextualEncoder, CorpusContext, CorruptFileError, DEFAULT_STRENGTH, MissingFileError } from "@cde-js/core";
import { beforeAll, describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const path = join(folder, "context.safetensors");
const altered = join(folder, "altered.safetensors");
let whole: Buffer;

beforeAll(async () => {
  const directory = writeTinyModel(join(folder, "tiny"), { hiddenSize: 8 });
  await using encoder = await ContextualEncoder.load(directory);
  const context = await encoder.buildContext(["law court", "rent", "flood damage"]);
  await context.save(path);
  whole = readFileSync(path);
});

async function endOf(bytes: Uint8Array): Promise<unknown> {
  writeFileSync(altered, bytes);
  return CorpusContext.load(altered).then(
    () => "it loaded",
    (error: unknown) => error,
  );
}

async function expectCorrupt(bytes: Uint8Array, what: string, message?: string): Promise<void> {
  const end = await endOf(bytes);
  expect(end, what).toBeInstanceOf(CorruptFileError);
  expect(end, what).toMatchObject({ path: altered });
  if (message !== undefined) expect((end as Error).message, what).toContain(message);
}

test("control: the same bytes, whole, load", async () => {
  expect(await endOf(whole)).toBe("it loaded");
});

test("a file cut anywhere is refused", async () => {
  for (let length = 0; length < whole.length; length += 13)
    await expectCorrupt(whole.subarray(0, length), `cut at ${length}`);
  await expectCorrupt(whole.subarray(0, -1), "without its last byte");
  await expectCorrupt(Buffer.concat([whole, whole]), "twice as long");
});

test("a file with any byte changed is refused", async () => {
  for (let at = 0; at < whole.length; at += 5) {
    const bytes = Buffer.from(whole);
    bytes[at]! ^= 1 << (at % 8);
    await expectCorrupt(bytes, `bit ${at % 8} of byte ${at}`);
  }
});

/** Replaces parts of the file and sums it anew, as someone would who writes such files with other software. */
function forge(
  change: (header: Record<string, unknown>, data: Map<string, Buffer>, shapes: Map<string, number[]>) => void,
): Buffer {
  const start = 8 + Number(whole.readBigUInt64LE());
  const { __metadata__: metadata, ...tensors } = JSON.parse(whole.toString("utf8", 8, start)) as Record<string, never>;
  const data = new Map<string, Buffer>();
  const shapes = new Map<string, number[]>();
  const types = new Map<string, string>();
  for (const [name, { dtype, shape, data_offsets: at }] of Object.entries(tensors) as [
    string,
    { dtype: string; shape: number[]; data_offsets: number[] },
  ][]) {
    data.set(name, Buffer.from(whole.subarray(start + at[0]!, start + at[1]!)));
    shapes.set(name, shape);
    types.set(name, dtype);
  }
  const header = JSON.parse((metadata as unknown as { cde: string }).cde) as Record<string, unknown>;
  change(header, data, shapes);
  const text = JSON.stringify(header);
  const hash = createHash("sha256").update(text).update(data.get("vectors")!);
  const spectral = [...data.keys()].filter((name) => name.startsWith("spectrum.")).sort();
  for (const name of spectral) hash.update(name.slice("spectrum.".length)).update(data.get(name)!);
  const entries: Record<string, unknown> = { __metadata__: { cde: text, checksum: hash.digest("hex") } };
  let offset = 0;
  for (const [name, bytes] of data) {
    entries[name] = { dtype: types.get(name), shape: shapes.get(name), data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(entries));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...data.values()]);
}

describe("with a right checksum", () => {
  type Identity = Record<"model" | "stage" | "strength" | "texts", unknown>;
  const identity = (change: (identity: Identity) => void) => (header: Record<string, unknown>) => {
    change(header.identity as Identity);
  };

  test("control: a forged file with nothing changed loads", async () => {
    expect(await endOf(forge(() => {}))).toBe("it loaded");
  });

  test.each<[string, Parameters<typeof forge>[0], string]>([
    ["NaN among the vectors", (_, data) => data.get("vectors")!.writeFloatLE(Number.NaN, 8), "finite"],
    ["Infinity among the vectors", (_, data) => data.get("vectors")!.writeFloatLE(Number.POSITIVE_INFINITY), "finite"],
    ["NaN in the mean", (_, data) => data.get("spectrum.mean")!.writeDoubleLE(Number.NaN), "spectrum"],
    ["NaN in the eigenvalues", (_, data) => data.get("spectrum.eigenvalues")!.writeDoubleLE(Number.NaN, 8), "spectrum"],
    ["no mean", (_, data) => data.delete("spectrum.mean"), "spectrum"],
    [
      "vectors of another dimension",
      (_, data, shapes) => {
        data.set("vectors", data.get("vectors")!.subarray(0, 48));
        shapes.set("vectors", [3, 4]);
      },
      "4 dimensions and a spectrum of 8",
    ],
    [
      "vectors of no dimension",
      (_, data, shapes) => {
        data.set("vectors", Buffer.alloc(0));
        shapes.set("vectors", [3, 0]);
      },
      "[3,0]",
    ],
    [
      "fewer vectors than texts",
      (_, data, shapes) => {
        data.set("vectors", data.get("vectors")!.subarray(0, 64));
        shapes.set("vectors", [2, 8]);
      },
      "names 3 context texts",
    ],
    ["vectors that are one list", (_, __, shapes) => shapes.set("vectors", [24]), "[24]"],
    [
      "another format",
      (header) => Object.assign(header, { format: "cde-context/2" }),
      '"cde-context/2", this version reads',
    ],
    ["no format", (header) => delete header.format, "format"],
    ["no identity", (header) => delete header.identity, "doesn't describe"],
    ["no model id", (header) => delete header.modelId, "doesn't describe"],
    ["a position that no text has", (header) => Object.assign(header, { truncated: [3] }), "doesn't describe"],
    ["a model that isn't a digest", identity((it) => Object.assign(it, { model: "x" })), "doesn't describe"],
    ["a stage that doesn't exist", identity((it) => Object.assign(it, { stage: "telepathic" })), "doesn't describe"],
    ["a strength that doesn't exist", identity((it) => Object.assign(it, { strength: "weak" })), "doesn't describe"],
    [
      "a strength out of range",
      identity((it) => Object.assign(it, { strength: { a: 5, s: 0.3, b: 0.5 } })),
      "doesn't describe",
    ],
    [
      "a strength of s = 0",
      identity((it) => Object.assign(it, { strength: { a: 0.5, s: 0, b: 0.5 } })),
      "doesn't describe",
    ],
    ["no strength", identity((it) => Object.assign(it, { strength: null })), "doesn't describe"],
    [
      "a stage without a spectrum and with a strength",
      identity((it) => Object.assign(it, { stage: "full" })),
      "doesn't describe",
    ],
    ["no texts", identity((it) => Object.assign(it, { texts: [] })), "doesn't describe"],
    ["a text that isn't a digest", identity((it) => Object.assign(it, { texts: ["a", "b", "c"] })), "doesn't describe"],
  ])("refuses %s", async (what, change, message) => {
    await expectCorrupt(forge(change), what, message);
  });
});

test("refuses a safetensors file that isn't a context, a directory, and text; a file that isn't there is missing", async () => {
  await expectCorrupt(readFileSync(join(folder, "tiny/model.safetensors")), "a model", "without a context");
  await expectCorrupt(
    Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "a pointer",
    "LFS",
  );
  await expectCorrupt(Buffer.from('{"hello": "world"}'), "text");
  await mkdir(join(folder, "directory"));
  await expect(CorpusContext.load(join(folder, "directory"))).rejects.toThrow(CorruptFileError);
  await expect(CorpusContext.load(join(folder, "nothing.safetensors"))).rejects.toThrow(MissingFileError);
});

test("saving where it can't be leaves the old file whole and raises a typed error", async () => {
  const context = await CorpusContext.load(path);
  await expect(context.save(join(folder, "no/such/folder.safetensors"))).rejects.toMatchObject({ code: "RUNTIME" });
  await expect(context.save(join(folder, "directory"))).rejects.toMatchObject({ code: "RUNTIME" });
  expect(readFileSync(path).equals(whole)).toBe(true);
});

describe("contexts as bytes", () => {
  test("are the file that save writes, and the same context again", async () => {
    const context = await CorpusContext.load(path);
    expect(Buffer.from(context.toBytes()).equals(whole)).toBe(true);
    const again = await CorpusContext.fromBytes(whole);
    expect(again.fingerprint).toBe(context.fingerprint);
    expect(again.vectors()).toEqual(context.vectors());
    const damaged = Buffer.from(whole);
    damaged[damaged.length - 3]! ^= 1;
    await expect(CorpusContext.fromBytes(damaged, "somewhere")).rejects.toMatchObject({
      code: "CORRUPT_FILE",
      path: "somewhere",
    });
  });
});

test("a context from base vectors is what buildContext makes of the texts, to the bit, at any strength", async () => {
  await using encoder = await ContextualEncoder.load(join(folder, "tiny"));
  const texts = ["law court", "rent", "flood damage", "who pays for the flood"];
  const base = encoder.withoutContext();
  const { vectors } = await base.embedDocuments(texts);
  const rows = Float32Array.from(vectors.flatMap((vector) => [...vector]));
  for (const options of [
    { strength: DEFAULT_STRENGTH },
    { strength: { a: 1, s: 0.2, b: 0.7 } },
    { strength: "off" as const },
  ]) {
    const built = await encoder.buildContext(texts, options);
    const made = await CorpusContext.fromBaseVectors(base, texts, rows, options);
    expect(Buffer.from(made.toBytes()).equals(Buffer.from(built.toBytes()))).toBe(true);
    expect(encoder.withContext(made).fingerprint).toBe(encoder.withContext(built).fingerprint);
  }
  await expect(CorpusContext.fromBaseVectors(base, texts, rows.subarray(8))).rejects.toThrow(
    /4 texts of 8 dimensions are 32 numbers, got 24/,
  );
  await expect(
    CorpusContext.fromBaseVectors(
      base,
      texts,
      rows.map((x) => 2 * x),
    ),
  ).rejects.toThrow(/has length 2/);
  // What an embedder says about itself.
  const bound = encoder.withContext(await encoder.buildContext(texts));
  expect(bound).toMatchObject({ stage: "spectral", context: { size: 4 }, base: { fingerprint: base.fingerprint } });
  expect([base.context, base.base]).toEqual([undefined, undefined]);
  expect(bound.withContext(await encoder.buildContext(["rent", "law"])).context?.size).toBe(2);
});
