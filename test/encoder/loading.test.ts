/** Directories that are no model, or a damaged one: a typed error that names the trouble, and nothing left running. */
import { execFile } from "node:child_process";
import { cpSync, existsSync, readFileSync, realpathSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  CdeError,
  ContextualEncoder,
  CorruptFileError,
  InvalidInputError,
  type LoadOptions,
  MissingFileError,
  ModelError,
} from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { describe, expect, test } from "vitest";
import { TINY_VOCABULARY, tinyTokenizer, writeTinyModel } from "../support/tiny-model.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const folder = temporaryFolder();
const tiny = writeTinyModel(join(folder, "tiny"));
const CHILD = fileURLToPath(new URL("./child.js", import.meta.url));
const QUERY = "encoder.layer.1.attention.self.query.weight";
let count = 0;

type LoadProgress = Parameters<NonNullable<LoadOptions["onProgress"]>>[0];
type Damage = (directory: string) => void;

function damaged(damage: Damage): string {
  const directory = join(folder, `damaged-${count++}`);
  cpSync(tiny, directory, { recursive: true });
  damage(directory);
  return directory;
}

/** Threads of encoders that live in this process. */
let workers = 0;
process.on("worker", (worker) => {
  workers++;
  worker.once("exit", () => workers--);
});

/** The typed error that loading ends with, and no thread left. */
async function errorOf(source: string, options: LoadOptions = {}): Promise<CdeError> {
  const end = await ContextualEncoder.load(source, options).then(
    (encoder) => encoder.dispose().then(() => "it loaded"),
    (error: unknown) => error,
  );
  expect(workers).toBe(0);
  if (end instanceof CdeError) return end;
  throw new Error("expected a typed error", { cause: end });
}

const edit =
  (name: string, change: (json: Record<string, unknown>) => unknown): Damage =>
  (directory) => {
    const path = join(directory, name);
    writeFileSync(path, JSON.stringify(change(JSON.parse(readFileSync(path, "utf8")))));
  };
const remove =
  (name: string): Damage =>
  (directory) =>
    rmSync(join(directory, name));
const put =
  (name: string, text: string): Damage =>
  (directory) =>
    writeFileSync(join(directory, name), text);
const POINTER = `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 90868376\n`;
const weights =
  (change: NonNullable<Parameters<typeof writeTinyModel>[1]>["change"]): Damage =>
  (directory) => {
    writeTinyModel(directory, { change: change! });
  };

test("control: the undamaged directory loads and embeds", async () => {
  await using encoder = await ContextualEncoder.load(damaged(() => {}));
  expect((await encoder.withoutContext().embedQuery("law")).length).toBe(32);
  expect(workers).toBe(1); // so that the counter of this file counts
  expect(encoder).toMatchObject({ dimensions: 32, maxTokens: 32, contextSize: undefined, unusedTensors: [] });
});

describe("a damaged directory is refused, by name", () => {
  type Kind = typeof MissingFileError | typeof CorruptFileError | typeof ModelError | typeof InvalidInputError;
  const cases: [what: string, damage: Damage, kind: Kind, ...words: string[]][] = [
    ["no config.json", remove("config.json"), MissingFileError, "config.json"],
    ["no tokenizer.json", remove("tokenizer.json"), MissingFileError, "tokenizer.json"],
    ["no weights", remove("model.safetensors"), MissingFileError, "model.safetensors"],
    ["no pooling", remove("1_Pooling/config.json"), MissingFileError, "1_Pooling"],
    ["no modules.json and no option", remove("modules.json"), InvalidInputError, "pooling"],
    [
      "half of the weights",
      (d) => truncateSync(join(d, "model.safetensors"), 20_000),
      CorruptFileError,
      "model.safetensors",
    ],
    [
      "half of the weights' header",
      (d) => truncateSync(join(d, "model.safetensors"), 500),
      CorruptFileError,
      "model.safetensors",
    ],
    ["empty weights", (d) => truncateSync(join(d, "model.safetensors"), 0), CorruptFileError, "model.safetensors"],
    ["a Git-LFS pointer for weights", put("model.safetensors", POINTER), CorruptFileError, "Git-LFS pointer"],
    ["a Git-LFS pointer for the tokenizer", put("tokenizer.json", POINTER), CorruptFileError, "Git-LFS pointer"],
    ["half of config.json", (d) => truncateSync(join(d, "config.json"), 40), CorruptFileError, "config.json"],
    ["half of tokenizer.json", (d) => truncateSync(join(d, "tokenizer.json"), 400), CorruptFileError, "tokenizer.json"],
    ["a missing tensor", weights((all) => all.delete(QUERY)), ModelError, QUERY, "lacks 1 of"],
    [
      "a misshapen tensor",
      weights((all) => all.set(QUERY, { dtype: "F32", shape: [32, 16], data: new Float32Array(512) })),
      ModelError,
      QUERY,
      "F32[32, 16]",
      "float32[32, 32]",
    ],
    [
      "integers without their scales",
      weights((all) => all.set(QUERY, { dtype: "I8", shape: [32, 32], data: new Int8Array(1024) })),
      ModelError,
      `${QUERY}_scale`,
    ],
    [
      "a config of another width",
      edit("config.json", (json) => ({ ...json, hidden_size: 64 })),
      CorruptFileError,
      "64",
      "32",
    ],
    [
      "a config of more layers",
      edit("config.json", (json) => ({ ...json, num_hidden_layers: 3 })),
      ModelError,
      "encoder.layer.2",
    ],
    [
      "an unknown architecture",
      edit("config.json", (json) => ({ ...json, model_type: "t5" })),
      ModelError,
      "t5",
      "bert",
    ],
    ["an unknown activation", edit("config.json", (json) => ({ ...json, hidden_act: "silu" })), ModelError, "silu"],
    [
      "a tokenizer of more tokens than the model has rows",
      put("tokenizer.json", JSON.stringify(tinyTokenizer([...TINY_VOCABULARY, "extra"]))),
      ModelError,
      `ids up to ${TINY_VOCABULARY.length}`,
      `${TINY_VOCABULARY.length} rows`,
    ],
    [
      "a module that isn't supported",
      edit("modules.json", (json) => [
        ...(json as unknown as object[]),
        { idx: 3, path: "3_Dense", type: "sentence_transformers.models.Dense" },
      ]),
      ModelError,
      "Dense",
    ],
  ];
  test.each(cases)("%s", async (_, damage, kind, ...words) => {
    const error = await errorOf(damaged(damage));
    expect(error.message).toBeTypeOf("string");
    expect(error).toBeInstanceOf(kind);
    for (const word of words) expect(error.message).toContain(word);
  });

  test.each([["float32"], ["int8"]] as const)("weights with NaN don't give vectors (run as %s)", async (dtype) => {
    const directory = damaged(weights((all) => all.get(QUERY)!.data.fill(Number.NaN, 5, 6)));
    const error = await ContextualEncoder.load(directory, { dtype }).then(
      async (encoder) => {
        await using _ = encoder;
        return await encoder
          .withoutContext()
          .embedQuery("law rent")
          .catch((reason: unknown) => reason);
      },
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(ModelError);
    expect((error as Error).message).toMatch(/NaN/);
  });
});

describe("an option that can't be met is refused", () => {
  test("maxTokens out of the range that the model has positions for", async () => {
    for (const maxTokens of [2, 65, 0, -1, 3.5, Number.NaN]) {
      const error = await errorOf(tiny, { maxTokens });
      expect(error).toBeInstanceOf(InvalidInputError);
      expect(error.message).toContain(`from 3 to 64, got ${maxTokens}`);
    }
    await using longest = await ContextualEncoder.load(tiny, { maxTokens: 64 });
    const text = Array.from({ length: 62 }, () => "law").join(" ");
    expect((await longest.withoutContext().embedDocuments([text, `${text} law`])).truncated).toEqual([1]);
  });

  test("other numbers than int8 for int8 weights, and numbers that don't exist", async () => {
    for (const dtype of ["float32", "int8-dynamic"] as const) {
      const error = await errorOf(modelDirectory, { dtype });
      expect(error).toBeInstanceOf(InvalidInputError);
      expect(error.message).toContain(`{ dtype: "${dtype}" }`);
    }
    for (const directory of [tiny, modelDirectory]) {
      const error = await errorOf(directory, { dtype: "int4" as "int8" });
      expect(error).toBeInstanceOf(InvalidInputError);
      expect(error.message).toContain('got "int4"');
    }
  });

  test("a provider that this build doesn't have, threads that can't be", async () => {
    const error = await errorOf(tiny, { runtime: { provider: "abacus" } });
    expect(error).toMatchObject({ code: "RUNTIME", message: expect.stringMatching(/"abacus".*cpu/) });
    expect(await errorOf(tiny, { runtime: { threads: -1 } })).toBeInstanceOf(InvalidInputError);
  });

  test("a pooling where the directory names one, a revision of a directory, a prompt that the model hasn't got", async () => {
    expect((await errorOf(tiny, { pooling: "cls" })).message).toContain("Leave it out");
    expect((await errorOf(tiny, { revision: "main" })).message).toContain("no revisions");
    expect((await errorOf(tiny, { prompts: { query: "poem" } })).message).toContain('no prompt "poem"');
  });
});

test("a Hugging Face directory without modules.json loads with the pooling that is given", async () => {
  const directory = damaged(remove("modules.json"));
  await using cls = await ContextualEncoder.load(directory, { pooling: "cls" });
  await using mean = await ContextualEncoder.load(directory, { pooling: "mean" });
  await using whole = await ContextualEncoder.load(tiny);
  const [a, b, c] = await Promise.all(
    [cls, mean, whole].map((each) => each.withoutContext().embedQuery("flood damage")),
  );
  expect(largestDifference([b!], [c!])).toBe(0);
  expect(largestDifference([a!], [c!])).toBeGreaterThan(0.01);
});

test("weights whose names begin with bert. are the same model", async () => {
  const prefixed = damaged(
    weights((all) => {
      for (const [name, tensor] of [...all]) {
        all.delete(name);
        all.set(`bert.${name}`, tensor);
      }
      all.set("cls.predictions.bias", { dtype: "F32", shape: [3], data: new Float32Array(3) });
    }),
  );
  for (const dtype of ["float32", "int8"] as const) {
    await using a = await ContextualEncoder.load(prefixed, { dtype });
    await using b = await ContextualEncoder.load(tiny, { dtype });
    const [x, y] = [await a.withoutContext().embedQuery("law"), await b.withoutContext().embedQuery("law")];
    expect(largestDifference([x], [y])).toBe(0);
    expect(a.unusedTensors).toEqual(["cls.predictions.bias"]);
  }
});

/** The same weights with spaces behind the header, so that the first tensor begins where it is wanted. */
const beginAt =
  (rest: 0 | 1): Damage =>
  (directory) => {
    const path = join(directory, "model.safetensors");
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE());
    const padded = Math.ceil(length / 8) * 8 + rest;
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(BigInt(padded));
    const header = bytes.subarray(8, 8 + length).toString();
    writeFileSync(path, Buffer.concat([head, Buffer.from(header.padEnd(padded)), bytes.subarray(8 + length)]));
  };

test.skipIf(!existsSync("/proc/self/maps"))(
  "float32 weights are used where they lie, and copied where they lie across the grain: the same vectors (needs Linux)",
  async () => {
    const [even, odd] = [damaged(beginAt(0)), damaged(beginAt(1))];
    await using mapped = await ContextualEncoder.load(even);
    await using copied = await ContextualEncoder.load(odd);
    const maps = readFileSync("/proc/self/maps", "utf8");
    expect(maps).toContain(join(realpathSync(even), "model.safetensors"));
    expect(maps).not.toContain(join(realpathSync(odd), "model.safetensors"));
    const vectors = await Promise.all(
      [mapped, copied].map((encoder) => encoder.withoutContext().embedDocuments(["flood damage", "law"])),
    );
    expect(largestDifference(vectors[0]!.vectors, vectors[1]!.vectors)).toBe(0);
    expect(mapped.unusedTensors).toEqual(copied.unusedTensors);
    expect(mapped.fingerprint).not.toBe(copied.fingerprint); // of the file's bytes
  },
);

test("loading reports every tensor, and can be aborted between two", async () => {
  const seen: LoadProgress[] = [];
  await using encoder = await ContextualEncoder.load(tiny, { onProgress: (progress) => seen.push(progress) });
  expect(encoder.dimensions).toBe(32);
  expect(seen.map(({ done }) => done)).toEqual(seen.map((_, i) => i + 1));
  expect(seen.at(-1)).toEqual({ step: "load", done: seen.length, total: seen.length });
  const reason = new Error("no longer wanted");
  const controller = new AbortController();
  const onProgress = ({ done }: LoadProgress) => {
    if (done === 5) controller.abort(reason);
  };
  await expect(ContextualEncoder.load(tiny, { signal: controller.signal, onProgress })).rejects.toBe(reason);
});

describe("a process of its own", () => {
  const run = async (source: string, options: object = {}) => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [CHILD, source, JSON.stringify(options)], {
      timeout: 30_000, // one that stays is killed, which rejects
    });
    expect(stderr).toBe("");
    return JSON.parse(stdout) as unknown;
  };

  test.each<[string, Damage, object, object]>([
    ["a missing file", remove("config.json"), {}, { code: "MISSING_FILE" }],
    ["cut weights", (d) => truncateSync(join(d, "model.safetensors"), 20_000), {}, { code: "CORRUPT_FILE" }],
    ["a missing tensor", weights((all) => all.delete(QUERY)), {}, { code: "MODEL" }],
    ["a missing provider", () => {}, { runtime: { provider: "abacus" } }, { code: "RUNTIME" }],
    ["maxTokens out of range", () => {}, { maxTokens: 99 }, { code: "INVALID_INPUT" }],
  ])("ends by itself after %s", async (_, damage, options, expected) => {
    expect(await run(damaged(damage), options)).toMatchObject(expected);
  });

  test("ends by itself with an idle encoder that nobody disposed of", async () => {
    expect(await run(tiny, { embed: "law" })).toBe(32);
  });
});
