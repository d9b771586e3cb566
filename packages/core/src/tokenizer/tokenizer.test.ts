import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CorruptFileError, InvalidInputError, MissingFileError, ModelError } from "../errors.js";
import { Tokenizer } from "./tokenizer.js";

const LETTERS = [..."abcdefghijklmnopqrstuvwxyz0123456789αβγδεοσςик北京ıß"];
const TOKENS = [
  ...["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##ing"],
  ...LETTERS,
  ...LETTERS.map((letter) => `##${letter}`),
  ..."!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~。",
];
const SPECIAL = TOKENS.slice(0, 5);
const id = (token: string) => TOKENS.indexOf(token);

/** A BERT tokenizer of single letters, so that hardly a difference between two texts hides behind [UNK]. */
function bertDefinition() {
  return {
    version: "1.0",
    truncation: { max_length: 8, strategy: "LongestFirst", stride: 0, direction: "Right" },
    padding: null,
    added_tokens: SPECIAL.map((content) => ({ id: id(content), content, special: true, normalized: false })),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null as boolean | null,
      lowercase: true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single: [
        { SpecialToken: { id: "[CLS]", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "[SEP]", type_id: 0 } },
      ],
      pair: [],
      special_tokens: {},
    },
    decoder: null,
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(TOKENS.map((token, i) => [token, i])) as Record<string, number>,
    },
  };
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-tokenizer-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function load(definition: object, settings: object = {}, embeddingRows?: number): Promise<Tokenizer> {
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(definition));
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(settings));
  return Tokenizer.load(folder, embeddingRows === undefined ? {} : { embeddingRows });
}

describe("encode", () => {
  test("puts the special tokens around the word pieces, and follows no truncation of tokenizer.json", async () => {
    const tokenizer = await load(bertDefinition());
    const expected = ["[CLS]", "hello", ",", "world", "##ing", "a", "##b", "!", "!", "!", "!", "[SEP]"].map(id);
    expect([...tokenizer.encode("Hello, WORLDing áb!!!!")]).toEqual(expected);
    expect(tokenizer.countTokens("Hello, WORLDing áb!!!!")).toBe(expected.length);
    expect(tokenizer).toMatchObject({ vocabularySize: TOKENS.length, padId: 0, clsId: 2, sepId: 3 });
  });

  test("refuses half a surrogate pair, and names its place", async () => {
    const tokenizer = await load(bertDefinition());
    expect(() => tokenizer.encode("ab\ud800")).toThrow(/index 2/);
    expect(() => tokenizer.encode("ab\udc00c")).toThrow(InvalidInputError);
    expect(tokenizer.encode("ab😀").length).toBeGreaterThan(2);
  });

  test("gives an error, not id 0, where the unknown token isn't in the vocabulary", async () => {
    const tokenizer = await load({
      ...bertDefinition(),
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"], unk_token: "<unk>" },
    });
    expect([...tokenizer.encode("abab")]).toEqual([2, 2]);
    expect(() => tokenizer.encode("abc")).toThrow(ModelError);
  });
});

describe("the word cache", () => {
  const odd = ["[CLS]", "[SEP", "[P\0AD]", "[pad]", "\u000b", "\ufeff", "\u0085", "\u3000", "\u2028", "\u00a0", "İ"];
  const pieces = fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(" ", "\n", "\t", "hello", "Worlding", "ab", "don't", "a.b") },
    { weight: 3, arbitrary: fc.constantFrom(...odd, "ΟΔΟΣ", "Σ", "\u0301", "\u0345", "\u200d", "北京", "𠀀", "😀") },
    { weight: 1, arbitrary: fc.constantFrom("x".repeat(100), "x".repeat(101), "é".repeat(101), "\ufffd", "𝒳") },
    { weight: 2, arbitrary: fc.string({ unit: "binary", maxLength: 6 }) },
  );
  const texts = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(""));
  const numRuns = process.env.CDE_FULL === "1" ? 20_000 : 2_000;

  for (const [name, change] of [
    ["uncased", {}],
    ["cased", { lowercase: false }],
    ["cased without accents", { lowercase: false, strip_accents: true }],
    ["lower-cased with accents", { strip_accents: false, handle_chinese_chars: false }],
  ] as const)
    test(`gives the library's ids for any text, ${name}`, async () => {
      const definition = bertDefinition();
      Object.assign(definition.normalizer, change);
      const tokenizer = await load(definition);
      const library = new Library(definition, {});
      fc.assert(
        fc.property(texts, (text) => {
          expect([...tokenizer.encode(text)]).toEqual(library.encode(text).ids);
        }),
        { seed: 11, numRuns },
      );
    });

  test("differs from a library that keeps the case (the control)", async () => {
    const tokenizer = await load(bertDefinition());
    const cased = bertDefinition();
    cased.normalizer.lowercase = false;
    expect([...tokenizer.encode("Hello ab")]).not.toEqual(new Library(cased, {}).encode("Hello ab").ids);
  });

  test("takes what normalises to a special token for text, unless it is all the text, as the library does", async () => {
    const definition = bertDefinition();
    definition.normalizer.lowercase = false;
    const tokenizer = await load(definition);
    expect(tokenizer.encode("[SE\0P]")[1]).toBe(id("[SEP]"));
    expect(tokenizer.encode("a [SE\0P]")[2]).toBe(id("["));
    expect(tokenizer.encode("[SE\0P] a")[1]).toBe(id("["));
  });

  test("gives the same ids after more words than it holds", async () => {
    const tokenizer = await load(bertDefinition());
    const before = tokenizer.encode("hello ab0 world");
    const words = Array.from({ length: 130_000 }, (_, i) => i.toString(36));
    for (let start = 0; start < words.length; start += 1000)
      tokenizer.encode(words.slice(start, start + 1000).join(" "));
    expect(tokenizer.encode("hello ab0 world")).toEqual(before);
  });
});

describe("encodeBatch", () => {
  test("cuts the content's end, keeps the special tokens and reports which texts were cut", async () => {
    const tokenizer = await load(bertDefinition());
    const { ids, truncated } = await tokenizer.encodeBatch(["a b c", "a b c d", "", "a b c d e f"], { maxTokens: 5 });
    const short = ["[CLS]", "a", "b", "c", "[SEP]"].map(id);
    expect(ids.map((row) => [...row])).toEqual([short, short, [id("[CLS]"), id("[SEP]")], short]);
    expect(truncated).toEqual([1, 3]);
  });

  test("counts the prompt, and tokenises it together with the text", async () => {
    const tokenizer = await load(bertDefinition());
    const { ids, truncated } = await tokenizer.encodeBatch(["b c"], { maxTokens: 4, prompt: "a" });
    expect(ids.map((row) => [...row])).toEqual([["[CLS]", "a", "##b", "[SEP]"].map(id)]);
    expect(truncated).toEqual([0]);
  });

  test('refuses a longer text under truncation "error", with both lengths and its position', async () => {
    const tokenizer = await load(bertDefinition());
    const long = tokenizer.encodeBatch(["a", "a b c d"], { maxTokens: 5, truncation: "error" });
    await expect(long).rejects.toThrow(/text 1 takes 6 tokens, the model reads 5/);
    await expect(long).rejects.toMatchObject({ position: 1 });
    const fits = await tokenizer.encodeBatch(["a", "a b c"], { maxTokens: 5, truncation: "error" });
    expect(fits.truncated).toEqual([]);
  });

  test("refuses what isn't a text, with its position", async () => {
    const tokenizer = await load(bertDefinition());
    for (const bad of [null, undefined, 7, { text: "a" }, "\udfff"]) {
      const result = tokenizer.encodeBatch(["a", bad as string, "b"], { maxTokens: 5 });
      await expect(result).rejects.toBeInstanceOf(InvalidInputError);
      await expect(result).rejects.toMatchObject({ position: 1 });
    }
    await expect(tokenizer.encodeBatch("ab" as unknown as string[], { maxTokens: 5 })).rejects.toThrow(/list/);
    for (const maxTokens of [2, 0, 3.5, Number.NaN])
      await expect(tokenizer.encodeBatch(["a"], { maxTokens })).rejects.toThrow(/maxTokens/);
  });

  test("leaves the event loop turns, and stops with the signal's reason", async () => {
    const tokenizer = await load(bertDefinition());
    const texts = Array.from({ length: 20_000 }, (_, i) => `${i.toString(36)}北京 `.repeat(40));
    const controller = new AbortController();
    const work = tokenizer.encodeBatch(texts, { maxTokens: 500, signal: controller.signal });
    let turns = 0;
    const count = () => {
      if (++turns === 2) controller.abort(new Error("enough"));
      else setImmediate(count);
    };
    setImmediate(count);
    await expect(work).rejects.toThrow("enough");
    await expect(tokenizer.encodeBatch(["a"], { maxTokens: 5, signal: controller.signal })).rejects.toThrow("enough");
  });
});

describe("load", () => {
  test("has a digest of what determines the ids, and of nothing else", async () => {
    const { digest } = await load(bertDefinition());
    const same = { ...bertDefinition(), truncation: null, padding: { strategy: "BatchLongest", pad_id: 0 } };
    expect((await load(same, { model_max_length: 512 })).digest).toBe(digest);
    const other = bertDefinition();
    other.normalizer.lowercase = false;
    expect((await load(other)).digest).not.toBe(digest);
    expect((await load(bertDefinition(), { do_lowercase_and_remove_accent: true })).digest).not.toBe(digest);
  });

  test("refuses an embedding table of another vocabulary, and takes one padded to a multiple of 64", async () => {
    const size = TOKENS.length;
    await expect(load(bertDefinition(), {}, size - 1)).rejects.toThrow(`ids up to ${size - 1}`);
    await expect(load(bertDefinition(), {}, 30_522)).rejects.toBeInstanceOf(ModelError);
    expect((await load(bertDefinition(), {}, Math.ceil(size / 64) * 64)).vocabularySize).toBe(size);
  });

  test.each<[string, (definition: ReturnType<typeof bertDefinition>) => unknown, new (...args: never[]) => Error]>([
    [
      "two tokens of one id",
      (d) => {
        d.model.vocab.hello = id("world");
      },
      CorruptFileError,
    ],
    [
      "an id that isn't an integer",
      (d) => {
        d.model.vocab.hello = 1.5;
      },
      CorruptFileError,
    ],
    [
      "an id beyond all vocabularies",
      (d) => {
        d.model.vocab.hello = 2 ** 40;
      },
      CorruptFileError,
    ],
    [
      "no unknown token",
      (d) => {
        d.model.unk_token = "[NONE]";
      },
      CorruptFileError,
    ],
    [
      "an added token of another id",
      (d) => {
        d.added_tokens[0]!.id = 7;
      },
      CorruptFileError,
    ],
    ["no added tokens", ({ added_tokens, ...d }) => d, CorruptFileError],
    ["no model", ({ model, ...d }) => d, CorruptFileError],
    ["a model of another type", (d) => ({ ...d, model: { type: "WordLevel", vocab: {} } }), ModelError],
    [
      "an unknown normalizer",
      (d) => {
        d.normalizer.type = "Rot13";
      },
      ModelError,
    ],
    ["a left truncation", () => undefined, ModelError],
  ])("refuses %s", async (name, change, kind) => {
    const settings = name.startsWith("a left") ? { truncation_side: "left" } : {};
    const definition = bertDefinition();
    await expect(load((change(definition) as object | undefined) ?? definition, settings)).rejects.toBeInstanceOf(kind);
  });

  test("tells a missing, cut or Git-LFS file apart", async () => {
    await expect(Tokenizer.load(join(folder, "nowhere"))).rejects.toBeInstanceOf(MissingFileError);
    const text = JSON.stringify(bertDefinition());
    await writeFile(join(folder, "tokenizer.json"), text.slice(0, 500));
    await expect(Tokenizer.load(folder)).rejects.toBeInstanceOf(CorruptFileError);
    await writeFile(
      join(folder, "tokenizer.json"),
      "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    );
    await expect(Tokenizer.load(folder)).rejects.toThrow(/Git-LFS/);
  });
});
