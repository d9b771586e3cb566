/** Turns texts into token ids: `@huggingface/tokenizers`, with the cutting, the checks and the pace it hasn't got. */
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { CorruptFileError, InvalidInputError, ModelError } from "../errors.js";
import { canonicalJson, sha256Hex } from "../model/digest.js";
import { describe, isJsonObject, type JsonObject, readJsonObject, readOptionalJsonObject } from "../model/json-file.js";
import { FastWordPiece, suitsFastWordPiece } from "./fast-wordpiece.js";

export interface EncodeBatchOptions {
  /** Longest result, special tokens and prompt included. */
  readonly maxTokens: number;
  /** Put before every text; both are tokenised as one string. @default "" */
  readonly prompt?: string;
  /** "end" cuts longer texts and reports them, "error" refuses them. @default "end" */
  readonly truncation?: "end" | "error";
  /** Stops between texts; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** What errors name: the call that the texts were given to. @default "encodeBatch" */
  readonly operation?: string;
  /** What errors count from: the place of `texts[0]` in what the caller was given, say a stream. @default 0 */
  readonly firstPosition?: number;
}

/** Ids in the order of the texts, special tokens included, without padding. */
export interface EncodedTexts {
  readonly ids: Int32Array[];
  /** Positions of the texts that were cut, ascending. */
  readonly truncated: number[];
}

export interface TokenizerLoadOptions {
  /** Rows of the model's embedding table. A tokenizer of another vocabulary is then a ModelError. */
  readonly embeddingRows?: number;
}

/** A turn of the event loop is left to others after this much work, in milliseconds. */
const SLICE_MS = 8;

/** Tables are padded to a multiple of 64 or 128 rows; one that has this many too many belongs to another tokenizer. */
const MAX_SPARE_ROWS = 1024;

/** What of tokenizer_config.json changes ids; the library is shown nothing else of it. */
const RELEVANT_SETTINGS = ["remove_space", "do_lowercase_and_remove_accent", "eos_token"];

/**
 * A tokenizer of one model. It keeps no state that changes a result: the word cache only changes the speed.
 *
 * Its ids are those of `@huggingface/tokenizers` 0.2.0. Under BertNormalizer these differ from the Rust library's in two
 * rare places: a capital sigma at a word's end becomes ς instead of σ, and CJK characters beyond U+FFFF aren't set
 * apart (1 of the 275,453 reference texts, a sigma).
 */
export class Tokenizer {
  /** Highest id plus one. */
  readonly vocabularySize: number;
  /** The padding token's id; undefined where the files name none. */
  readonly padId: number | undefined;
  /** The id before every text, or undefined where the model puts none there. */
  readonly clsId: number | undefined;
  /** The id after every text, or undefined where the model puts none there. */
  readonly sepId: number | undefined;
  /** sha256 (hex) of all that determines the ids. */
  readonly digest: string;
  readonly #library: Library;
  readonly #fast: FastWordPiece | undefined;
  readonly #before: readonly number[];
  readonly #after: readonly number[];

  private constructor(path: string, definition: JsonObject, settings: JsonObject, special: JsonObject) {
    const relevant = Object.fromEntries(
      RELEVANT_SETTINGS.filter((key) => key in settings).map((key) => [key, settings[key]]),
    );
    this.vocabularySize = checkVocabulary(path, definition);
    try {
      const { truncation, padding, ...determining } = definition;
      this.digest = sha256Hex(canonicalJson({ tokenizer: determining, settings: relevant }));
      this.#library = new Library(definition, relevant);
      [this.#before, this.#after] = this.#specialTokens(path);
    } catch (cause) {
      if (cause instanceof ModelError) throw cause;
      const reason = (cause as Error).message;
      throw new ModelError(`Tokenizer.load: ${path} describes a tokenizer that can't be run: ${reason}`, { cause });
    }
    this.padId = this.#library.token_to_id(padTokenOf(definition, settings, special) ?? "");
    this.clsId = this.#before[0];
    this.sepId = this.#after.at(-1);
    if (suitsFastWordPiece(definition, relevant))
      this.#fast = new FastWordPiece(definition, (text) => this.#libraryIds(text, false));
  }

  /**
   * Reads `tokenizer.json`, and `tokenizer_config.json` and `special_tokens_map.json` where there are any. The
   * truncation and padding that tokenizer.json asks for are not followed: the published file of all-MiniLM-L6-v2 cuts
   * at 128 what the model reads to 256. Raises MissingFileError, CorruptFileError or ModelError.
   */
  static async load(directory: string, options: TokenizerLoadOptions = {}): Promise<Tokenizer> {
    const operation = "Tokenizer.load";
    const path = join(directory, "tokenizer.json");
    const definition = await readJsonObject(operation, path);
    const settings = (await readOptionalJsonObject(operation, join(directory, "tokenizer_config.json"))) ?? {};
    const special = (await readOptionalJsonObject(operation, join(directory, "special_tokens_map.json"))) ?? {};
    if ((settings.truncation_side ?? "right") !== "right" || (settings.padding_side ?? "right") !== "right")
      throw new ModelError(
        `${operation}: tokenizer_config.json of ${directory} cuts or pads on the left; only the right is supported.`,
      );
    const tokenizer = new Tokenizer(path, definition, settings, special);
    const rows = options.embeddingRows;
    const size = tokenizer.vocabularySize;
    if (rows !== undefined && (size > rows || rows - size >= MAX_SPARE_ROWS))
      throw new ModelError(
        `${operation}: ${path} has ids up to ${size - 1}, the model's embedding table ${rows} rows. They don't belong together; take both from one model.`,
      );
    return tokenizer;
  }

  /** The ids of one text, special tokens included and uncut. Raises InvalidInputError for what isn't a text. */
  encode(text: string): Int32Array {
    checkTexts("encode", [text]);
    return this.#wrap(this.#contentIds(text));
  }

  /** Number of ids that `encode` returns. */
  countTokens(text: string): number {
    return this.encode(text).length;
  }

  /**
   * The ids of many texts, each cut to `maxTokens` as Hugging Face cuts: special tokens stay at both ends, the content
   * loses its end. Leaves the event loop a turn every 8 ms; one text is never split, so a long one takes its time.
   * Checks all texts before the first is encoded. Raises InvalidInputError with the position of the text.
   */
  async encodeBatch(texts: readonly string[], options: EncodeBatchOptions): Promise<EncodedTexts> {
    const {
      maxTokens,
      prompt = "",
      truncation = "end",
      signal,
      operation = "encodeBatch",
      firstPosition = 0,
    } = options;
    const specials = this.#before.length + this.#after.length;
    if (!Number.isSafeInteger(maxTokens) || maxTokens <= specials)
      throw new InvalidInputError(
        `${operation}: maxTokens should be an integer above the ${specials} special tokens, got ${maxTokens}.`,
      );
    checkTexts(operation, texts, firstPosition);
    checkTexts(`${operation} (prompt)`, [prompt]);
    const room = maxTokens - specials;
    const ids: Int32Array[] = [];
    const truncated: number[] = [];
    signal?.throwIfAborted();
    let sliceEnd = performance.now() + SLICE_MS;
    for (const [position, text] of texts.entries()) {
      let content = this.#contentIds(prompt + text, truncation === "end" ? room : undefined);
      if (content.length > room) {
        if (truncation === "error")
          throw new InvalidInputError(
            `${operation}: text ${firstPosition + position} takes ${content.length + specials} tokens, the model reads ${maxTokens}. Split it, or cut it with { truncation: "end" }.`,
            { position: firstPosition + position },
          );
        content = content.slice(0, room);
        truncated.push(position);
      }
      ids.push(this.#wrap(content));
      if (performance.now() >= sliceEnd) {
        await nextTurn();
        signal?.throwIfAborted();
        sliceEnd = performance.now() + SLICE_MS;
      }
    }
    return { ids, truncated };
  }

  /** All ids of the content, or, with `enough`, at least one more than that where there are more. */
  #contentIds(text: string, enough?: number): readonly number[] {
    return this.#fast?.encode(text, enough) ?? this.#libraryIds(text, false);
  }

  #libraryIds(text: string, special: boolean): number[] {
    const { ids, tokens } = this.#library.encode(text, { add_special_tokens: special });
    // The library gives undefined for a token outside a vocabulary that has no unknown token; an Int32Array would
    // make 0 of it, another token's id.
    const unknown = (ids as (number | undefined)[]).indexOf(undefined);
    if (unknown >= 0)
      throw new ModelError(
        `encode: the vocabulary has neither the token ${describe(tokens[unknown])} nor one for unknown tokens.`,
      );
    return ids;
  }

  #wrap(content: readonly number[]): Int32Array {
    const ids = new Int32Array(this.#before.length + content.length + this.#after.length);
    ids.set(this.#before);
    ids.set(content, this.#before.length);
    ids.set(this.#after, this.#before.length + content.length);
    return ids;
  }

  /** What the post-processor puts before and after a text, seen on a text that is sure to have tokens. */
  #specialTokens(path: string): [before: number[], after: number[]] {
    const content = this.#libraryIds("a", false);
    const all = this.#libraryIds("a", true);
    for (let start = 0; content.length > 0 && start + content.length <= all.length; start++)
      if (content.every((id, i) => all[start + i] === id))
        return [all.slice(0, start), all.slice(start + content.length)];
    throw new ModelError(`Tokenizer.load: the post-processor of ${path} changes the text's own tokens.`);
  }
}

/** Refuses what isn't a text: another type, or a lone surrogate, which no tokenizer can have seen. */
export function checkTexts(operation: string, texts: readonly string[], firstPosition = 0): void {
  if (!Array.isArray(texts))
    throw new InvalidInputError(`${operation}: a list of strings is wanted, got ${typeof texts}.`);
  for (const [index, text] of texts.entries()) {
    const position = firstPosition + index;
    if (typeof text !== "string")
      throw new InvalidInputError(
        `${operation}: entry ${position} should be a string, got ${text === null ? "null" : typeof text}.`,
        { position },
      );
    // In Node since 20; missing from the library of types that this project builds with.
    if (!(text as string & { isWellFormed(): boolean }).isWellFormed())
      throw new InvalidInputError(
        `${operation}: entry ${position} has half a surrogate pair at index ${text.search(/\p{Surrogate}/u)}: it isn't valid Unicode, probably cut inside a character. Cut between characters, or replace it with toWellFormed().`,
        { position },
      );
  }
}

/** Checks the vocabulary's form, and returns its highest id plus one. */
function checkVocabulary(path: string, definition: JsonObject): number {
  const corrupt = (reason: string) => new CorruptFileError(path, `Tokenizer.load: ${path}: ${reason}`);
  const { model, added_tokens: added } = definition;
  if (!isJsonObject(model)) throw corrupt(`"model" should be an object, found ${describe(model)}.`);
  const { type, vocab } = model;
  const ids = new Map<number, string>();
  const add = (id: unknown, token: string) => {
    // Ids far beyond any vocabulary would make arrays of that length.
    if (!Number.isSafeInteger(id) || (id as number) < 0 || (id as number) >= 1 << 24)
      throw corrupt(`token ${describe(token)} has the id ${describe(id)}.`);
    const other = ids.get(id as number);
    if (other !== undefined && other !== token)
      throw corrupt(`tokens ${describe(other)} and ${describe(token)} share the id ${id}.`);
    ids.set(id as number, token);
  };
  if (type === "Unigram" && Array.isArray(vocab)) {
    for (const [id, piece] of vocab.entries()) {
      const token: unknown = Array.isArray(piece) ? piece[0] : undefined;
      if (typeof token !== "string") throw corrupt(`entry ${id} of the vocabulary has no text.`);
      add(id, token);
    }
  } else if ((type === "WordPiece" || type === "BPE") && isJsonObject(vocab)) {
    for (const [token, id] of Object.entries(vocab)) add(id, token);
    const { unk_token: unknown } = model;
    if (type === "WordPiece" && (typeof unknown !== "string" || !Object.hasOwn(vocab, unknown)))
      throw corrupt(`the unknown token ${describe(unknown)} isn't in the vocabulary.`);
  } else
    throw new ModelError(
      `Tokenizer.load: ${path} has a model of type ${describe(type)} with ${Array.isArray(vocab) ? "a list" : describe(vocab)} as its vocabulary; WordPiece, BPE and Unigram are supported.`,
    );
  if (!Array.isArray(added)) throw corrupt(`"added_tokens" should be a list, found ${describe(added)}.`);
  for (const token of added as unknown[]) {
    if (!isJsonObject(token) || typeof token.content !== "string" || token.content === "")
      throw corrupt(`an added token has no "content".`);
    add(token.id, token.content);
  }
  if (ids.size === 0) throw corrupt("the vocabulary is empty.");
  return [...ids.keys()].reduce((highest, id) => Math.max(highest, id)) + 1;
}

/** The padding token by name: as configured, else one of the two names in use. */
function padTokenOf(definition: JsonObject, settings: JsonObject, special: JsonObject): string | undefined {
  for (const entry of [settings.pad_token, special.pad_token]) {
    const name = isJsonObject(entry) ? entry.content : entry;
    if (typeof name === "string") return name;
  }
  const added = definition.added_tokens as readonly { content: string }[];
  return added.find(({ content }) => content === "[PAD]" || content === "<pad>")?.content;
}
