/** The prefix stage by the public door, on a small random model: its base without context, and what a context changes. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type BuildContextOptions,
  ContextualEncoder,
  CorpusContext,
  CorruptFileError,
  DEFAULT_STRENGTH,
  FingerprintMismatchError,
  InvalidInputError,
  ModelError,
  mulberry32,
  SpectralMap,
  Spectrum,
} from "@cde-js/core";
import { describe, expect, test } from "vitest";
import type { PlainTensor } from "../support/safetensors.js";
import { writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const LAW = ["law court", "the tenant pays rent", "rent law", "court of the tenant", "who pays for the law"];
const FLOOD = ["flood damage", "the flood pays", "damage for who"];
const QUESTIONS = ["who pays for flood damage ?", "the tenant", "x y z"];
const GATED = { kind: "prefix", softmax: "gated", layers: 2 } as const;
const JOINT = { kind: "prefix", softmax: "joint", layers: 1 } as const;
const base = writeTinyModel(join(folder, "tiny"));
let count = 0;

/** A directory as training will write it: the stage in cde.json, its tensors beside those of the base. */
function trained(secondStage: unknown, { gates = 0.5, without = "" } = {}): string {
  const random = mulberry32(4);
  const tensor = (shape: number[], width: number): PlainTensor => {
    const size = shape.reduce((a, b) => a * b);
    return { dtype: "F32", shape, data: Float32Array.from({ length: size }, () => width * (random() + 0.5)) };
  };
  const directory = writeTinyModel(join(folder, `trained-${count++}`), {
    change: (tensors) => {
      tensors.set("prefix.projection.weight", tensor([32, 32], 0.3));
      tensors.set("prefix.projection.bias", tensor([32], 0.1));
      for (const layer of [0, 1]) tensors.set(`prefix.layer.${layer}.gate`, tensor([4], gates));
      tensors.delete(without);
    },
  });
  writeFileSync(join(directory, "cde.json"), JSON.stringify({ format: 1, secondStage }));
  return directory;
}

async function embed(encoder: ContextualEncoder, context?: CorpusContext): Promise<Float32Array[]> {
  const embedder = context ? encoder.withContext(context) : encoder.withoutContext();
  return (await embedder.embedDocuments(QUESTIONS)).vectors;
}

type SecondStage = Parameters<typeof ContextualEncoder.fromBiencoder>[1]["secondStage"];

async function open(secondStage: SecondStage): Promise<ContextualEncoder> {
  return ContextualEncoder.fromBiencoder(base, { secondStage });
}

async function baseVectors(): Promise<Float32Array[]> {
  await using encoder = await ContextualEncoder.load(base);
  return await embed(encoder); // before it is disposed of
}

describe("without context", () => {
  test.each([GATED, JOINT, { ...JOINT, spectral: true }])("%o gives its base's vectors, bit for bit", async (stage) => {
    await using encoder = await open(stage);
    expect(largestDifference(await embed(encoder), await baseVectors())).toBe(0);
  });
});

describe("a new stage", () => {
  test("that is gated is its base with any context, and a joint one isn't", async () => {
    await using gated = await open(GATED);
    expect(largestDifference(await embed(gated, await gated.buildContext(LAW)), await baseVectors())).toBe(0);
    await using joint = await open(JOINT);
    expect(largestDifference(await embed(joint, await joint.buildContext(LAW)), await baseVectors())).toBeGreaterThan(
      1e-3,
    );
  });

  test("attends in the upper half of the layers where nothing else is said, behind gates", async () => {
    await using byDefault = await open({ kind: "prefix" });
    await using named = await open({ kind: "prefix", softmax: "gated", layers: 1, spectral: false, seed: 0 });
    await using all = await open({ kind: "prefix", layers: 2 });
    expect(byDefault.fingerprint).toBe(named.fingerprint);
    expect(all.fingerprint).not.toBe(named.fingerprint);
  });

  test("is determined by its seed", async () => {
    const of = async (seed: number) => {
      await using encoder = await open({ ...JOINT, seed });
      return { vectors: await embed(encoder, await encoder.buildContext(LAW)), fingerprint: encoder.fingerprint };
    };
    const [a, b, other] = [await of(3), await of(3), await of(4)];
    expect(largestDifference(a.vectors, b.vectors)).toBe(0);
    expect(a.fingerprint).toBe(b.fingerprint);
    expect(largestDifference(a.vectors, other.vectors)).toBeGreaterThan(1e-5);
    expect(a.fingerprint).not.toBe(other.fingerprint);
  });

  test.each([GATED, JOINT])("reports all tensors that it reads and makes (%o)", async (secondStage) => {
    const seen: { done: number; total: number }[] = [];
    const onProgress = ({ done, total }: { done: number; total: number }) => seen.push({ done, total });
    await using _ = await ContextualEncoder.fromBiencoder(base, { secondStage, onProgress });
    const total = seen[0]!.total;
    expect(seen).toEqual(Array.from({ length: total }, (_, i) => ({ done: i + 1, total })));
  });

  test("that is spectral is what load gives", async () => {
    await using encoder = await open("spectral");
    await using loaded = await ContextualEncoder.load(base);
    expect(encoder.fingerprint).toBe(loaded.fingerprint);
  });
});

describe("a trained stage", () => {
  test("moves vectors, another corpus's elsewhere; two contexts of one encoder don't mix", async () => {
    await using encoder = await ContextualEncoder.load(trained(GATED));
    expect(encoder.unusedTensors).toEqual([]);
    const [law, flood] = await Promise.all([encoder.buildContext(LAW), encoder.buildContext(FLOOD)]);
    const [a, b, again] = await Promise.all([embed(encoder, law), embed(encoder, flood), embed(encoder, law)]);
    const none = await embed(encoder);
    for (const [x, y] of [
      [a, b],
      [a, none],
      [b, none],
    ] as const) {
      expect(largestDifference(x, y)).toBeGreaterThan(1e-3);
    }
    expect(largestDifference(a, again)).toBe(0);
    expect(largestDifference(none, await baseVectors())).toBe(0);
  });

  test("doesn't mind the order of context documents; the fingerprint does", async () => {
    await using encoder = await ContextualEncoder.load(trained(GATED));
    const [law, turned] = [await encoder.buildContext(LAW), await encoder.buildContext(LAW.toReversed())];
    expect(largestDifference(await embed(encoder, law), await embed(encoder, turned))).toBeLessThanOrEqual(1e-6);
    expect(turned.fingerprint).not.toBe(law.fingerprint);
  });

  test("gives a text the same vector alone and among others, with a context from a file too", async () => {
    await using encoder = await ContextualEncoder.load(trained(JOINT));
    const context = await encoder.buildContext(LAW);
    const path = join(folder, "prefix-context.safetensors");
    await context.save(path);
    const embedder = encoder.withContext(await CorpusContext.load(path));
    const { vectors } = await encoder.withContext(context).embedDocuments(QUESTIONS);
    for (const [i, text] of QUESTIONS.entries()) {
      expect(largestDifference([await embedder.embedQuery(text)], [vectors[i]!])).toBeLessThanOrEqual(1e-6);
    }
    expect(embedder.fingerprint).toBe(context.fingerprint);
  });

  test("has a fingerprint of its own for each kind, each number of layers, and other gates", async () => {
    const directories = [
      trained(GATED),
      trained(JOINT),
      trained({ ...GATED, layers: 1 }),
      trained({ ...GATED, spectral: true }),
      trained(GATED, { gates: 0.6 }),
    ];
    const found = [];
    for (const directory of [base, ...directories]) {
      await using encoder = await ContextualEncoder.load(directory);
      found.push(encoder.fingerprint);
    }
    expect(new Set(found).size).toBe(directories.length + 1);
    await using again = await ContextualEncoder.load(trained(GATED));
    expect(again.fingerprint).toBe(found[1]);
  });

  test("refuses a context of its base, and gives it none", async () => {
    await using encoder = await ContextualEncoder.load(trained(GATED));
    await using plain = await ContextualEncoder.load(base);
    const [own, other] = [await encoder.buildContext(LAW), await plain.buildContext(LAW)];
    expect(() => encoder.withContext(other)).toThrow(FingerprintMismatchError);
    expect(() => plain.withContext(own)).toThrow(FingerprintMismatchError);
    expect(() => own.withStrength(DEFAULT_STRENGTH)).toThrow("a prefix context has no strength");
    await expect(encoder.buildContext(LAW, { strength: "off" })).rejects.toThrow("this model's is prefix");
  });
});

describe("prefix and spectral map", () => {
  const BOTH = { ...GATED, spectral: true };

  test("the map is fitted to the context documents as the prefix embeds them", async () => {
    await using encoder = await ContextualEncoder.load(trained(BOTH));
    const seen: number[] = [];
    const onProgress: BuildContextOptions["onProgress"] = ({ done, total }) => seen.push(done / total);
    const context = await encoder.buildContext(LAW, { onProgress });
    expect(seen).toEqual([0.5, 1]);
    await using prefix = await ContextualEncoder.load(trained(GATED));
    const behind = prefix.withContext(await prefix.buildContext(LAW));
    const { vectors: rows } = await behind.embedDocuments(LAW);
    const packed = Float32Array.from(rows.flatMap((row) => [...row]));
    const map = new SpectralMap(await Spectrum.fit({ rows: packed, dimensions: 32 }));
    const expected = map.apply((await behind.embedDocuments(QUESTIONS)).vectors);
    const found = await embed(encoder, context);
    expect(largestDifference(found, expected)).toBeLessThanOrEqual(1e-6);
    // Control: the map of the base's vectors is another.
    const ofBase = new SpectralMap(await Spectrum.fit({ rows: context.vectors(), dimensions: 32 }));
    const { vectors } = await behind.embedDocuments(QUESTIONS);
    expect(largestDifference(found, ofBase.apply(vectors))).toBeGreaterThan(1e-3);
  });

  test("with the strength off it is the prefix alone, under a fingerprint of its own", async () => {
    await using encoder = await ContextualEncoder.load(trained(BOTH));
    await using prefix = await ContextualEncoder.load(trained(GATED));
    const context = await encoder.buildContext(LAW);
    const off = context.withStrength("off");
    const alone = await embed(prefix, await prefix.buildContext(LAW));
    expect(largestDifference(await embed(encoder, off), alone)).toBe(0);
    expect(largestDifference(await embed(encoder, context), alone)).toBeGreaterThan(1e-3);
    expect(new Set([context.fingerprint, off.fingerprint, encoder.fingerprint]).size).toBe(3);
  });

  test("survives saving", async () => {
    await using encoder = await ContextualEncoder.load(trained(BOTH));
    const context = await encoder.buildContext(LAW, { strength: { a: 0.2, s: 0.5, b: 0.1 } });
    const path = join(folder, "both.safetensors");
    await context.save(path);
    const loaded = await CorpusContext.load(path);
    expect(loaded.fingerprint).toBe(context.fingerprint);
    expect(largestDifference(await embed(encoder, loaded), await embed(encoder, context))).toBe(0);
  });
});

describe("unusual corpora", () => {
  test.each([GATED, JOINT, { ...GATED, spectral: true }])(
    "the same document many times is that document once, and two are another context (%o)",
    async (stage) => {
      await using encoder = await ContextualEncoder.load(trained(stage));
      const of = async (documents: string[]) => embed(encoder, await encoder.buildContext(documents));
      const once = await of(["law court"]);
      for (const vector of once) expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
      // In the joint softmax five keys weigh five times one; a softmax of its own gives their mean.
      const many = await of(Array.from({ length: 5 }, () => "law court"));
      for (const vector of many) expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
      if (stage.softmax === "gated") expect(largestDifference(many, once)).toBeLessThanOrEqual(1e-6);
      expect(largestDifference(await of(["law court", "flood damage"]), once)).toBeGreaterThan(1e-3);
    },
  );

  test("no documents are refused, and an abort between the two passes leaves no context", async () => {
    await using encoder = await ContextualEncoder.load(trained({ ...GATED, spectral: true }));
    await expect(encoder.buildContext([])).rejects.toThrow("buildContext: got no documents");
    const controller = new AbortController();
    const reason = new Error("enough");
    const onProgress = () => controller.abort(reason);
    await expect(encoder.buildContext(LAW, { signal: controller.signal, onProgress })).rejects.toBe(reason);
    const [a, b] = await Promise.all([encoder.buildContext(LAW), encoder.buildContext(FLOOD)]);
    expect(largestDifference(await embed(encoder, a), await embed(encoder, b))).toBeGreaterThan(1e-3);
    expect(largestDifference(await embed(encoder, a), await embed(encoder, await encoder.buildContext(LAW)))).toBe(0);
  });
});

describe("refuses", () => {
  test("int8, asked for or stored", async () => {
    const secondStage = GATED;
    await expect(ContextualEncoder.fromBiencoder(base, { secondStage, dtype: "int8" })).rejects.toThrow(ModelError);
    await expect(ContextualEncoder.load(trained(GATED), { dtype: "int8" })).rejects.toThrow("runs in float32 only");
  });

  test("weights without the stage's tensors, by name", async () => {
    const directory = trained(GATED, { without: "prefix.layer.1.gate" });
    await expect(ContextualEncoder.load(directory)).rejects.toThrow("prefix.layer.1.gate");
  });

  test("a stage beside the one that the directory names", async () => {
    const secondStage = "spectral";
    await expect(ContextualEncoder.fromBiencoder(trained(GATED), { secondStage })).rejects.toThrow("cde.json already");
  });

  test.each([
    [{ ...GATED, layers: 3 }, "from 1 to the 2 that the model has, got 3"],
    [{ ...GATED, softmax: "hard" }, '"joint" or "gated", got "hard"'],
    [{ ...GATED, size: 3 }, 'got "size" too'],
    [{ ...GATED, spectral: 1 }, "true or false, got 1"],
    [{ ...GATED, seed: -1 }, "got -1"],
    [{ kind: "full" }, 'the kind "full"'],
    ["full", 'got "full"'],
  ])("the stage %o, whether passed or in cde.json", async (stage, message) => {
    const secondStage = stage as never;
    const passed = ContextualEncoder.fromBiencoder(base, { secondStage });
    await expect(passed).rejects.toThrow(InvalidInputError);
    await expect(passed).rejects.toThrow(message);
    const inFile = ContextualEncoder.load(trained(stage));
    await expect(inFile).rejects.toThrow(CorruptFileError);
    await expect(inFile).rejects.toThrow(message);
  });

  test("a seed in cde.json", async () => {
    await expect(ContextualEncoder.load(trained({ ...GATED, seed: 1 }))).rejects.toThrow("a directory holds their");
  });
});
