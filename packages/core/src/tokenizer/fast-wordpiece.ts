/**
 * BERT's tokenisation through a cache of words. The library stays the authority: it encodes every word once, and
 * every text whose ids can't be put together from those of its words. (Not a tokenizer of its own.)
 *
 * Why words suffice: BertNormalizer works character by character, except for lower-casing (a final sigma looks at its
 * neighbours) and the order of combining marks; neither looks past white space, and white space separates words.
 */
import { isJsonObject, type JsonObject } from "../model/json-file.js";

/** Words are kept in two generations of this many; when the young one is full, the old one is dropped. */
const GENERATION = 60_000;

/** Longer words are rare, and would make the cache's size depend on the texts. In UTF-16 units. */
const MAX_CACHED_LENGTH = 48;

/** Whether ids of words make up ids of texts: the BERT pipeline, and added tokens that lie within one word. */
export function suitsFastWordPiece(definition: JsonObject, settings: JsonObject): boolean {
  const { normalizer, pre_tokenizer: preTokenizer, model, added_tokens: added } = definition;
  return (
    isJsonObject(normalizer) &&
    normalizer.type === "BertNormalizer" &&
    normalizer.clean_text === true &&
    isJsonObject(preTokenizer) &&
    preTokenizer.type === "BertPreTokenizer" &&
    isJsonObject(model) &&
    model.type === "WordPiece" &&
    !model.fuse_unk &&
    !settings.remove_space &&
    !settings.do_lowercase_and_remove_accent &&
    (added as JsonObject[]).every(
      (token) => !(token.normalized ?? !token.special) && !/\s/.test(token.content as string),
    )
  );
}

const CONTROL = 0;
const SPACE = 1;
const WORD = 2;
const PUNCTUATION = 3;

/** What BertNormalizer and BertPreTokenizer make of each ASCII character: of the controls only \t, \n, \r are space. */
const ASCII = Uint8Array.from({ length: 128 }, (_, code) => {
  if (code === 32 || code === 9 || code === 10 || code === 13) return SPACE;
  if (code < 32 || code === 127) return CONTROL;
  return /[0-9A-Za-z]/.test(String.fromCharCode(code)) ? WORD : PUNCTUATION;
});

/** White space beyond ASCII; U+FEFF, which JavaScript counts too, is dropped by the normaliser. */
function isWideSpace(code: number): boolean {
  return (
    code === 0xa0 ||
    (code >= 0x2000 && code <= 0x200a) ||
    code === 0x3000 ||
    code === 0x2028 ||
    code === 0x2029 ||
    code === 0x202f ||
    code === 0x205f ||
    code === 0x1680
  );
}

export class FastWordPiece {
  readonly #added: RegExp | undefined;
  readonly #encodeSlowly: (text: string) => readonly number[];
  #young: Map<string, readonly number[]> = new Map();
  #old: Map<string, readonly number[]> = new Map();

  /** `encodeSlowly` gives the library's ids of a text without special tokens around it. */
  constructor(definition: JsonObject, encodeSlowly: (text: string) => readonly number[]) {
    const contents = (definition.added_tokens as { content: string }[]).map(({ content }) =>
      content.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"),
    );
    this.#added = contents.length > 0 ? new RegExp(contents.join("|")) : undefined;
    this.#encodeSlowly = encodeSlowly;
  }

  /**
   * The text's ids, or undefined where only the library can tell: an added token is written in it, or it has no white
   * space (the library takes a text that normalises to "[SEP]" for the token, a part of a text never).
   * With `enough`, stops once there are more ids than that.
   */
  encode(text: string, enough: number = Number.POSITIVE_INFINITY): number[] | undefined {
    if (this.#added?.test(text)) return undefined;
    const ids: number[] = [];
    const length = text.length;
    let sawSpace = false;
    for (let start = 0; start < length && ids.length <= enough; ) {
      let simple = true;
      let end = start;
      for (; end < length; end++) {
        const code = text.charCodeAt(end);
        if (code < 128) {
          const kind = ASCII[code];
          if (kind === SPACE) break;
          if (kind === CONTROL) simple = false;
        } else if (isWideSpace(code)) break;
        else simple = false;
      }
      sawSpace ||= end < length;
      if (simple) this.#pushParts(text, start, end, ids);
      else if (end > start) this.#push(text.slice(start, end), ids);
      start = end + 1;
    }
    return sawSpace ? ids : undefined;
  }

  /** Splits plain ASCII at its punctuation: shorter words, which are met again sooner. */
  #pushParts(text: string, start: number, end: number, ids: number[]): void {
    for (let from = start; from < end; ) {
      let to = from + 1;
      if (ASCII[text.charCodeAt(from)] === WORD) while (to < end && ASCII[text.charCodeAt(to)] === WORD) to++;
      this.#push(text.slice(from, to), ids);
      from = to;
    }
  }

  #push(word: string, ids: number[]): void {
    const found = this.#young.get(word) ?? this.#miss(word);
    for (const id of found) ids.push(id);
  }

  #miss(word: string): readonly number[] {
    // The space keeps the library from taking a word that normalises to an added token for that token.
    const ids = this.#old.get(word) ?? this.#encodeSlowly(` ${word}`);
    if (word.length > MAX_CACHED_LENGTH) return ids;
    if (this.#young.size >= GENERATION) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    // A slice of a text would keep that whole text in memory; this makes a string of its own.
    this.#young.set(Buffer.from(word).toString(), ids);
    return ids;
  }
}
