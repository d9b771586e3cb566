/** The fingerprint: pinned, changed by all that determines vectors, and by nothing else. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContextualEncoder, DEFAULT_STRENGTH, type LoadOptions } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TINY_VOCABULARY, type TinyModelOptions, tinyTokenizer, writeTinyModel } from "../support/tiny-model.js";
import { temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const TEXTS = ["The tenant pays the rent.", "Überschwemmung im Keller", "🌊 flood damage"];
let count = 0;

async function fingerprintOf(
  model: TinyModelOptions = {},
  options: LoadOptions = {},
  change: (directory: string) => void = () => {},
): Promise<string> {
  const directory = writeTinyModel(join(folder, `model-${count++}`), model);
  change(directory);
  await using encoder = await ContextualEncoder.load(directory, options);
  expect(encoder.withoutContext().fingerprint).toBe(encoder.fingerprint);
  return encoder.fingerprint;
}

// The second is sha256 of {"model":…,"stage":"spectral","strength":{"a":0.35,"b":0.5,"s":0.3},"texts":[sha256 of
// each],"version":1}. A change of either makes every stored index foreign: bump `version` and say so in the CHANGELOG.
test("of the bundled model and of a context is the same on every machine", async () => {
  await using encoder = await ContextualEncoder.load(modelDirectory);
  expect(encoder.fingerprint).toBe("15851ee3d409138a7020f0c1bcc65d4e8f0c6924fe7ddf14f52c2dbaab348633");
  const context = await encoder.buildContext(TEXTS);
  expect(context.fingerprint).toBe("a4781d992590d07fcc1d6317cadb1888ec88f0b9204dcf0e3d43dfeacb1c8595");
  expect(encoder.withContext(context).fingerprint).toBe(context.fingerprint);
});

describe("of a model", () => {
  const prompts = { query: "query: ", document: "document: " };
  let plain = "";
  beforeAll(async () => {
    plain = await fingerprintOf();
  });

  const edit = (name: string, change: (json: Record<string, unknown>) => object) => (directory: string) => {
    const path = join(directory, name);
    writeFileSync(path, JSON.stringify(change(JSON.parse(readFileSync(path, "utf8")))));
  };
  const changes: [what: string, ...Parameters<typeof fingerprintOf>][] = [
    ["the weights", { seed: 2 }],
    ["one weight", { change: (tensors) => tensors.get("embeddings.LayerNorm.bias")!.data.fill(0.5, 3, 4) }],
    ["the pooling", { pooling: "cls" }],
    ["max_seq_length", { maxTokens: 31 }],
    ["the option maxTokens", {}, { maxTokens: 30 }],
    ["int8", {}, { dtype: "int8" }],
    ["dynamic int8", {}, { dtype: "int8-dynamic" }],
    ["prompts", { prompts }],
    ["other prompts", { prompts: { ...prompts, query: "query: the " } }],
    ["only one of the prompts", { prompts: { query: "query: " } }],
    ["the number of heads, which no weight shows", { heads: 2 }],
    ["the epsilon of layer norm", { config: { layer_norm_eps: 1e-5 } }],
    ["the activation", { config: { hidden_act: "relu" } }],
    [
      "the vocabulary",
      {},
      {},
      (directory) => {
        const swapped = [...TINY_VOCABULARY.slice(0, -2), TINY_VOCABULARY.at(-1)!, TINY_VOCABULARY.at(-2)!];
        writeFileSync(join(directory, "tokenizer.json"), JSON.stringify(tinyTokenizer(swapped)));
      },
    ],
    [
      "the normaliser",
      {},
      {},
      edit("tokenizer.json", (json) => ({ ...json, normalizer: { ...(json.normalizer as object), lowercase: false } })),
    ],
  ];

  test("changes with everything that determines vectors, each in its own way", async () => {
    const seen = new Map([[plain, "nothing"]]);
    for (const [what, ...model] of changes) {
      const fingerprint = await fingerprintOf(...model);
      expect(fingerprint).toMatch(/^[0-9a-f]{64}$/);
      expect(seen.get(fingerprint), `${what} changed`).toBeUndefined();
      seen.set(fingerprint, what);
    }
    expect(seen.size).toBe(changes.length + 1);
  });

  test("stays with everything else: the folder's name, what is said twice, and how files are written", async () => {
    expect(await fingerprintOf()).toBe(plain);
    expect(await fingerprintOf({}, { maxTokens: 32, dtype: "float32", runtime: { threads: 1 } })).toBe(plain);
    const indented = (directory: string) => {
      for (const name of ["tokenizer.json", "config.json"]) {
        const path = join(directory, name);
        const reversed = Object.entries(JSON.parse(readFileSync(path, "utf8"))).reverse();
        writeFileSync(path, JSON.stringify(Object.fromEntries(reversed), null, 2));
      }
    };
    expect(await fingerprintOf({}, {}, indented)).toBe(plain);
    expect(
      await fingerprintOf(
        {},
        {},
        edit("tokenizer.json", (json) => ({ ...json, truncation: { max_length: 9 } })),
      ),
    ).toBe(plain);
    expect(await fingerprintOf({ prompts: {} })).toBe(plain);
  });
});

describe("of a context", () => {
  let encoder: ContextualEncoder;
  let other: ContextualEncoder;
  beforeAll(async () => {
    encoder = await ContextualEncoder.load(writeTinyModel(join(folder, "encoder")));
    other = await ContextualEncoder.load(writeTinyModel(join(folder, "other"), { seed: 2 }));
  });
  afterAll(() => Promise.all([encoder.dispose(), other.dispose()]));

  test("changes with the model, the strength, and each text, their order and their number", async () => {
    const build = async (texts: string[], strength = DEFAULT_STRENGTH, by = encoder) =>
      (await by.buildContext(texts, { strength })).fingerprint;
    const texts = ["law", "rent", "flood damage"];
    const fingerprints = [
      encoder.fingerprint,
      await build(texts),
      await build(texts, DEFAULT_STRENGTH, other),
      await build(texts, { ...DEFAULT_STRENGTH, a: 0.36 }),
      await build(texts, { ...DEFAULT_STRENGTH, s: 0.31 }),
      await build(texts, { ...DEFAULT_STRENGTH, b: 0.51 }),
      await build(["rent", "law", "flood damage"]),
      await build(["law", "rent"]),
      await build([...texts, "law"]),
      await build(["law", "rent", "flood  damage"]), // one token sequence, another text
      await build(["law rent", "flood damage"]),
      await build(["law", "rent flood", "damage"]),
    ];
    expect(new Set(fingerprints).size).toBe(fingerprints.length);
    expect(await build(texts)).toBe(fingerprints[1]);
    const { a, s, b } = DEFAULT_STRENGTH;
    expect(await build(texts, { b, s, a })).toBe(fingerprints[1]);
  });

  test("doesn't depend on how the vectors were computed", async () => {
    await using single = await ContextualEncoder.load(join(folder, "encoder"), { runtime: { threads: 1 } });
    const texts = ["law", "rent"];
    expect((await single.buildContext(texts)).fingerprint).toBe((await encoder.buildContext(texts)).fingerprint);
  });
});
