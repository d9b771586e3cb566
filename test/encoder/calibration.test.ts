/** A context whose strength was chosen for its corpus: by an encoder, by a function, saved, and stopped half-way. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  ContextualEncoder,
  CorpusContext,
  CorruptFileError,
  calibrateContext,
  contextualize,
  DEFAULT_STRENGTH,
  type EmbedFunction,
  FingerprintMismatchError,
  openContextualized,
} from "@cde-js/core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const subjects = ["the tenant", "the court", "the flood", "the law", "damage of rent"];
const doings = ["pays rent for who", "is of the law court", "pays damage for flood", "is who pays a1"];
/** Two sentences of at least five words each. */
const documents = Array.from(
  { length: 60 },
  (_, i) =>
    `${subjects[i % 5]} ${doings[i % 4]} number${i}. ${subjects[(i + 2) % 5]} ${doings[(i + 1) % 4]} for b${i % 7}. x${i} y z.`,
);
/** Token weights have their own tests: token-weights.test.ts. */
const ALIKE = { tokenWeights: "off" } as const;
let encoder: ContextualEncoder;
beforeAll(async () => {
  encoder = await ContextualEncoder.load(writeTinyModel(join(folder, "tiny")));
});
afterAll(() => encoder.dispose());

test("chooses a strength for the corpus, says why, and counts all that it embeds", async () => {
  const seen: { done: number; total: number }[] = [];
  const context = await encoder.buildContext(documents, {
    ...ALIKE,
    onProgress: (progress) => seen.push({ ...progress }),
  });
  expect(context.calibration).toMatchObject({ documents: 60, pseudoQueries: 60, strength: context.identity.strength });
  expect(context.calibration!.expectedGain).not.toBeUndefined();
  // 60 documents, four queries of each, and the rest of each.
  expect(seen.at(-1)).toEqual({ done: 60 * 6, total: 60 * 6 });
  expect(seen.every(({ done }, i) => i === 0 || done >= seen[i - 1]!.done)).toBe(true);

  const again = await encoder.buildContext(documents, ALIKE);
  expect(again.fingerprint).toBe(context.fingerprint);
  // A strength is a strength, whoever chose it.
  const given = await encoder.buildContext(documents, { strength: context.identity.strength! });
  expect(given.fingerprint).toBe(context.fingerprint);
  expect(given.calibration).toBeUndefined();
});

test("takes the default for documents that are too few, and for one document many times", async () => {
  const few = await encoder.buildContext(documents.slice(0, 31));
  expect(few.calibration).toMatchObject({ strength: DEFAULT_STRENGTH, pseudoQueries: 0, expectedGain: undefined });
  const same = await encoder.buildContext(Array.from({ length: 40 }, () => documents[0]!));
  expect(same.calibration).toMatchObject({ strength: DEFAULT_STRENGTH, expectedGain: undefined });
});

test("chooses afterwards as it would have chosen at once, from the context's own texts alone", async () => {
  const base = encoder.withoutContext();
  const off = await encoder.buildContext(documents, { strength: "off" });
  const seen: { done: number; total: number }[] = [];
  const onProgress = (progress: { done: number; total: number }) => seen.push({ ...progress });
  const chosen = await calibrateContext(off, documents, base, { onProgress });
  const atOnce = await encoder.buildContext(documents, ALIKE);
  expect(chosen.fingerprint).toBe(atOnce.fingerprint);
  expect(chosen.calibration).toEqual(atOnce.calibration);
  expect(off.calibration).toBeUndefined();
  expect(chosen.fingerprint).not.toBe(off.fingerprint);
  expect(seen.at(-1)).toEqual({ done: 60 * 5, total: 60 * 5 });

  await expect(calibrateContext(off, documents.slice(1), base)).rejects.toThrow(
    "made of 60 texts, got 59, another at position 0",
  );
  await expect(calibrateContext(off, documents.toReversed(), base)).rejects.toThrow("another at position 0");
  await expect(calibrateContext(off, documents, encoder.withContext(atOnce))).rejects.toThrow(FingerprintMismatchError);
  await expect(
    calibrateContext(off, documents, base, { signal: AbortSignal.abort(new Error("enough")) }),
  ).rejects.toThrow("enough");
});

test("keeps the reason in the file, and drops it with another strength", async () => {
  const context = await encoder.buildContext(documents);
  const path = join(folder, "calibrated.context");
  await context.save(path);
  const read = await CorpusContext.load(path);
  expect(read.calibration).toEqual(context.calibration);
  expect(read.fingerprint).toBe(context.fingerprint);
  expect(read.withStrength(DEFAULT_STRENGTH).calibration).toBeUndefined();
});

test("stops between its pseudo-queries and leaves the encoder as it was", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const onProgress = ({ done }: { done: number }) => {
    if (done > documents.length) controller.abort(reason);
  };
  const { signal } = controller;
  await expect(encoder.buildContext(documents, { signal, onProgress })).rejects.toBe(reason);
  expect((await encoder.buildContext(documents)).size).toBe(60);
});

test("chooses for any function of texts as for the encoder behind it, and keeps the reason", async () => {
  const base = encoder.withoutContext();
  const embed: EmbedFunction = async (texts, { kind }) =>
    (kind === "query" ? await base.embedQueries(texts) : await base.embedDocuments(texts)).vectors;
  const embedder = await contextualize(embed, documents, { modelId: "tiny" });
  const context = await encoder.buildContext(documents, ALIKE);
  // Brought to unit length once more, vectors differ in the last digit.
  const { strength, pseudoGain } = context.calibration!;
  expect(embedder.context.calibration).toMatchObject({ strength, pseudoQueries: 60 });
  expect(embedder.context.calibration!.pseudoGain!.points).toBeCloseTo(pseudoGain!.points, 1);
  const path = join(folder, "function.context");
  await embedder.saveContext(path);
  const opened = await openContextualized(embed, path, { modelId: "tiny" });
  expect(opened.context.calibration).toEqual(embedder.context.calibration);
  expect(opened.fingerprint).toBe(embedder.fingerprint);

  // Control: a function that gives other vectors for queries is calibrated by those.
  const turned: EmbedFunction = async (texts, options) =>
    (await embed(texts, options)).map((vector) =>
      options.kind === "query" ? Float32Array.from(vector).reverse() : Float32Array.from(vector),
    );
  const other = await contextualize(turned, documents, { modelId: "turned" });
  const { points } = other.context.calibration!.pseudoGain!;
  expect(Math.abs(points - pseudoGain!.points)).toBeGreaterThan(0.2);
});

test("refuses a saved reason that can't be one", async () => {
  const path = join(folder, "altered.context");
  await (await encoder.buildContext(documents)).save(path);
  const bytes = readFileSync(path);
  const at = bytes.indexOf('pseudoQueries\\":60');
  expect(at).toBeGreaterThan(0);
  bytes.write("{}", at + 'pseudoQueries\\":'.length);
  writeFileSync(path, bytes);
  await expect(CorpusContext.load(path)).rejects.toThrow(CorruptFileError);
  await expect(CorpusContext.load(path)).rejects.toThrow("calibration");
});
