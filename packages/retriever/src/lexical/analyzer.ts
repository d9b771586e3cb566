/** Turns text into the terms that BM25 counts: words, without stop words, stemmed. */
import { crc32 } from "node:zlib";
import { InvalidInputError } from "@cde-js/core";
import { stemmer } from "stemmer";

export interface Analyzer {
  /** Names everything that determines the terms. An index stores it and refuses to be opened with another. */
  readonly id: string;
  /** Calls `visit` for each term in the order of the text, with its span in `text` (UTF-16 units, end exclusive). */
  analyze(text: string, visit: (term: string, start: number, end: number) => void): void;
}

export interface AnalyzerOptions {
  /**
   * A BCP 47 tag. English finds words by letters and digits, which splits nothing in scripts that have no spaces;
   * every other language finds them by `Intl.Segmenter`, whose dictionaries belong to the Node in use.
   * @default "en"
   */
  readonly language?: string;
  /** Words to leave out, in lower case. @default the 33 of Lucene for English, none for others */
  readonly stopWords?: readonly string[];
  /** Porter's stems of English words. @default true for English, false for others */
  readonly stem?: boolean;
}

/** Lucene's English stop words. */
const STOP_WORDS =
  "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with".split(
    " ",
  );
/**
 * English words: letters, digits and _, with the marks that belong to them; don't, 1.1.1 and 10,000 stay whole. (Lucene
 * also keeps node.js and example.com whole; splitting them is worth 0.02 points of nDCG@10 over our 21 sets, and finds
 * "node".) The counts bound a term, so that encoded data becomes many terms instead of an endless one.
 */
const WORD =
  /[\p{L}\p{N}_][\p{L}\p{N}\p{M}_]{0,254}(?:(?:(?<=\p{L})['’](?=\p{L})|(?<=\p{N})[.,](?=\p{N}))[\p{L}\p{N}\p{M}_]{1,255}){0,7}/gu;
const POSSESSIVE = /['’]s$/;
/** Words repeat, stemming is slow: the terms of this many are remembered, then all forgotten, so memory is bounded. */
const REMEMBERED_WORDS = 65_536;

/** An analyzer of a language. @throws InvalidInputError for a tag that is none, or stems of a language but English */
export function createAnalyzer(options: AnalyzerOptions = {}): Analyzer {
  const language = canonicalTag(options.language ?? "en");
  const isEnglish = language === "en" || language.startsWith("en-");
  const stem = options.stem ?? isEnglish;
  if (stem && !isEnglish) {
    throw new InvalidInputError(
      `createAnalyzer: only English is stemmed, got stem: true for ${language}. Leave stem out, or write an Analyzer.`,
    );
  }
  const stopWords = new Set(options.stopWords ?? (isEnglish ? STOP_WORDS : []));
  const listId = crc32([...stopWords].sort().join("\n")).toString(16);

  const terms = new Map<string, string>();
  const termOf = (word: string): string => {
    const known = terms.get(word);
    if (known !== undefined) return known;
    const lower = word.normalize("NFKC").toLowerCase();
    const plain = isEnglish ? lower.replace(POSSESSIVE, "") : lower;
    const term = stopWords.has(plain) ? "" : stem ? stemmer(plain) : plain;
    if (terms.size >= REMEMBERED_WORDS) terms.clear();
    const kept = copied(term);
    terms.set(copied(word), kept);
    return kept;
  };
  const segmenter = isEnglish ? undefined : new Intl.Segmenter(language, { granularity: "word" });

  return {
    id: `words-1 ${language} ${stem ? "porter" : "unstemmed"} stop-${stopWords.size}-${listId}`,
    analyze(text, visit) {
      const emit = (word: string, start: number): void => {
        const term = termOf(word);
        if (term !== "") visit(term, start, start + word.length);
      };
      if (segmenter === undefined) for (const { 0: word, index } of text.matchAll(WORD)) emit(word, index);
      else for (const { segment, index, isWordLike } of segmenter.segment(text)) if (isWordLike) emit(segment, index);
    },
  };
}

/** A string of its own: V8 keeps the whole text alive for as long as a piece cut from it. */
function copied(piece: string): string {
  return Buffer.from(piece, "utf16le").toString("utf16le");
}

export interface TermCounts {
  readonly counts: Map<string, number>;
  readonly length: number;
}

/** How often each term occurs in a text, and the sum: the length that BM25 normalises by. */
export function countTerms(analyzer: Analyzer, text: string): TermCounts {
  const counts = new Map<string, number>();
  let length = 0;
  analyzer.analyze(text, (term) => {
    counts.set(term, (counts.get(term) ?? 0) + 1);
    length++;
  });
  return { counts, length };
}

function canonicalTag(language: string): string {
  try {
    return Intl.getCanonicalLocales(language)[0] ?? "";
  } catch (cause) {
    throw new InvalidInputError(
      `createAnalyzer: ${JSON.stringify(language)} is no BCP 47 language tag; write "en", "de" or "zh-Hant".`,
      { cause },
    );
  }
}
