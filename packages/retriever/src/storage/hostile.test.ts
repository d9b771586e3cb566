import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { CdeError } from "@cde-js/core";
import fc from "fast-check";
import { expect, test } from "vitest";
import { DIRECTORY, read, sampleContents, write } from "./index-files.test.support.js";
import { SimulatedFileSystem } from "./simulated-file-system.test.support.js";

const full = process.env.CDE_FULL === "1";
const numRuns = full ? 10_000 : 600;
const contents = sampleContents("x", 5);
const manifestPath = `${DIRECTORY}/manifest.json`;
const pristine = new SimulatedFileSystem();
await write(pristine, contents);
const paths = [...pristine.files().keys()];

/** One kind of damage to a file's bytes. */
const damage = fc.oneof(
  fc.record({ kind: fc.constant("flip" as const), at: fc.nat(), bit: fc.nat(7) }),
  fc.record({ kind: fc.constant("cut" as const), at: fc.nat() }),
  fc.record({ kind: fc.constant("grow" as const), bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }) }),
  fc.record({
    kind: fc.constant("overwrite" as const),
    at: fc.nat(),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  }),
  fc.record({
    kind: fc.constant("word" as const),
    at: fc.nat(),
    value: fc.constantFrom(0, 1, 7, 2 ** 31, 2 ** 32 - 1),
  }),
);
type Damage = typeof damage extends fc.Arbitrary<infer T> ? T : never;

function apply(bytes: Buffer, change: Damage): Buffer {
  const copy = Buffer.from(bytes);
  const at = "at" in change ? change.at % copy.length : 0;
  switch (change.kind) {
    case "flip":
      copy.writeUInt8(copy.readUInt8(at) ^ (1 << change.bit), at);
      return copy;
    case "cut":
      return copy.subarray(0, at);
    case "grow":
      return Buffer.concat([copy, change.bytes]);
    case "overwrite":
      copy.set(change.bytes.subarray(0, copy.length - at), at);
      return copy;
    case "word":
      if (copy.length >= 4) copy.writeUInt32LE(change.value, Math.min(at, copy.length - 4));
      return copy;
  }
}

test(`damaged files give a typed error or the right contents, in ${numRuns} cases`, async () => {
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...paths),
      fc.array(damage, { minLength: 1, maxLength: 3 }),
      async (path, changes) => {
        const disk = pristine.clone();
        const bytes = changes.reduce(
          (left, change) => (left.length > 0 ? apply(left, change) : left),
          disk.files().get(path)!,
        );
        disk.place(path, bytes);
        try {
          expect(await read(disk)).toEqual(contents);
        } catch (error) {
          if (!(error instanceof CdeError)) throw error;
          refused++;
        }
      },
    ),
    { numRuns, seed: 3 },
  );
  // The control: most damage is not invisible.
  expect(refused).toBeGreaterThan(0.9 * numRuns);
});

type Json = { [key: string]: unknown };

/** Puts altered bytes in place and makes every checksum and size agree with them, as an attacker would. */
function forge(
  disk: SimulatedFileSystem,
  edit: (manifest: Json) => void,
  file?: "documents" | "vectors",
  change?: Damage,
): void {
  const { checksum: _, ...manifest } = JSON.parse(disk.files().get(manifestPath)!.toString()) as Json;
  const files = manifest.files as { documents: Json; vectors: Json };
  if (file && change) {
    const path = `${DIRECTORY}/${String(files[file].name)}`;
    const bytes = apply(disk.files().get(path)!, change);
    if (file === "documents")
      for (let at = 0; at + 8 <= bytes.length; ) {
        const length = bytes.readUInt32LE(at);
        bytes.writeUInt32LE(crc32(bytes.subarray(at + 8, at + 8 + length)), at + 4);
        at += 8 + length;
      }
    disk.place(path, bytes);
    Object.assign(files[file], { size: bytes.length, crc32: crc32(bytes) });
  }
  edit(manifest);
  const sealed = { ...manifest, checksum: createHash("sha256").update(JSON.stringify(manifest)).digest("hex") };
  disk.place(manifestPath, Buffer.from(JSON.stringify(sealed)));
}

test(`forged files with right checksums give a typed error or documents, in ${numRuns} cases`, async () => {
  let refused = 0;
  const field = fc.constantFrom(
    "version",
    "generation",
    "modelId",
    "fingerprint",
    "dimensions",
    "documents",
    "passages",
    "files",
    "vectorFingerprint",
    "split",
    "sequence",
    "settled",
    "notes",
    "former",
  );
  const value = fc.oneof(fc.jsonValue(), fc.constantFrom(-1, 0, 1, 2 ** 31, 2 ** 53, 1.5, "../manifest.json", null));
  await fc.assert(
    fc.asyncProperty(
      fc.option(fc.tuple(field, value)),
      fc.option(fc.tuple(fc.constantFrom("documents" as const, "vectors" as const), damage)),
      async (edit, change) => {
        const disk = pristine.clone();
        forge(disk, (manifest) => edit && Object.assign(manifest, { [edit[0]]: edit[1] }), change?.[0], change?.[1]);
        try {
          const found = await read(disk);
          expect(found.documents.length * 6).toBe(found.vectors.length);
        } catch (error) {
          if (!(error instanceof CdeError)) throw error;
          refused++;
        }
      },
    ),
    { numRuns, seed: 4 },
  );
  expect(refused).toBeGreaterThan(0.5 * numRuns);
});

test.each([
  [
    "a path out of the folder",
    (files: Json) => ((files.documents as Json).name = "../secret.bin"),
    /does not name its files/,
  ],
  ["an absolute path", (files: Json) => ((files.vectors as Json).name = "/etc/passwd"), /does not name its files/],
  ["vectors as its words", (files: Json) => ((files.lexical as Json).name = "vectors-000001.f32"), /name its files/],
  ["a file that is not there", (files: Json) => ((files.vectors as Json).name = "vectors-000009.f32"), /is missing/],
  [
    "a size that is not the file's",
    (files: Json) => ((files.documents as Json).size = 7),
    /bytes, the manifest says 7/,
  ],
  ["a size that the rows don't take", (files: Json) => ((files.vectors as Json).size = 7), /do not take 7 bytes/],
])("a manifest that names %s is refused", async (_, edit, message) => {
  const disk = pristine.clone();
  forge(disk, (manifest) => void edit(manifest.files as Json));
  await expect(read(disk)).rejects.toThrow(message);
});

test("vectors that are not finite or zero are refused by row", async () => {
  for (const [word, message] of [
    [0x7fc00000, /row 1 has NaN/],
    [0, /row 1 is zero everywhere/],
  ] as const) {
    const disk = pristine.clone();
    const path = paths.find((name) => name.includes("vectors"))!;
    const bytes = Buffer.from(disk.files().get(path)!);
    for (let i = 3; i < 6; i++) bytes.writeUInt32LE(word, 4 * i);
    disk.place(path, bytes);
    // Any damage, then the checksums made right: the words above are the damage.
    forge(disk, () => {}, "vectors", { kind: "flip", at: 0, bit: 0 });
    await expect(read(disk)).rejects.toThrow(message);
  }
});
