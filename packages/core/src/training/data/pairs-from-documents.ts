/**
 * Pairs from documents that nobody asked about: title and body, neighbouring spans, a sentence and the text around it, a
 * few words and the text that they stand in.
 */
import { InvalidInputError } from "../../errors.js";
import { createRandom, type Random } from "../../random.js";
import type { PairRecord } from "./pair-record.js";
import { keyOf } from "./text-key.js";

/**
 * `title`: the title asks for the text. `neighbours`: a span asks for the one after it. `cloze`: a sentence asks for
 * the span it was taken from (inverse cloze, Lee et al. 2019). `lexical`: some of a span's rarest words, or a few of its
 * words in a row, ask for it; it needs `documentFrequencies`.
 */
export type UnsupervisedMethod = "title" | "neighbours" | "cloze" | "lexical";

export interface UnlabelledDocument {
  /** @default its position in the stream */
  readonly id?: string;
  readonly title?: string;
  readonly text: string;
}

export interface PairsFromDocumentsOptions {
  /** In this order; each gives its own pairs. @default ["title"] */
  readonly methods?: readonly UnsupervisedMethod[];
  /** Words of a span, in whole sentences and so a little more. @default 80 */
  readonly spanWords?: number;
  /** Pairs of a document by `neighbours`, by `cloze` and by `lexical`, at most. @default 1 */
  readonly perDocument?: number;
  /** Chance that `cloze` leaves the sentence in its span, so that words in common are learned too. @default 0.1 */
  readonly keepSentence?: number;
  /** Of the whole corpus, by `countDocumentFrequencies`: what is rare. Words that it lacks are the rarest. */
  readonly documentFrequencies?: ReadonlyMap<string, number>;
  /** Of the choice of spans and sentences; which ones a document gives doesn't depend on other documents. @default 0 */
  readonly seed?: number;
  /** @default "default" */
  readonly dataset?: string;
  readonly signal?: AbortSignal;
  /** A document that a method gives no pair for: no title, or fewer than two spans or sentences. */
  readonly onSkipped?: (skipped: { readonly id: string; readonly method: UnsupervisedMethod }) => void;
}

/** Fewest words of a sentence that is worth asking with. */
const LEAST_WORDS = 4;
/** Different words that a span needs to be asked for by some of them. */
const LEAST_DIFFERENT = 15;
/** Of a span's words as many are called rare, and as few to as many of those ask for it. */
const RARE = { among: 12, least: 3, most: 6 };
/** Words in a row that ask for a span. */
const ROW = { least: 5, most: 14 };

/**
 * Pairs of each document, in the order of the documents. All pairs of a document are of one group, so that a split
 * keeps them together.
 *
 * @throws InvalidInputError for what is no document, with its position
 */
export async function* pairsFromDocuments(
  documents: AsyncIterable<UnlabelledDocument> | Iterable<UnlabelledDocument>,
  options: PairsFromDocumentsOptions = {},
): AsyncGenerator<PairRecord, void, undefined> {
  const { methods = ["title"], seed = 0, dataset, signal, onSkipped } = options;
  const { spanWords = 80, perDocument = 1, keepSentence = 0.1, documentFrequencies } = options;
  for (const [name, value] of Object.entries({ spanWords, perDocument })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new InvalidInputError(`pairsFromDocuments: ${name} must be an integer of at least 1, got ${value}.`);
    }
  }
  if (!(keepSentence >= 0 && keepSentence <= 1)) {
    throw new InvalidInputError(`pairsFromDocuments: keepSentence must be from 0 to 1, got ${keepSentence}.`);
  }
  const unknown = methods.find((method) => !Object.hasOwn(MAKERS, method));
  if (unknown !== undefined || methods.length === 0) {
    throw new InvalidInputError(
      `pairsFromDocuments: methods must be some of ${Object.keys(MAKERS).join(", ")}, got ${JSON.stringify(methods)}.`,
    );
  }
  if (methods.includes("lexical") && !documentFrequencies) {
    throw new InvalidInputError(
      "pairsFromDocuments: the method lexical needs documentFrequencies, which countDocumentFrequencies makes of the same documents.",
    );
  }
  createRandom(seed); // refuses what is no seed
  let position = -1;
  for await (const document of documents) {
    signal?.throwIfAborted();
    position++;
    requireText("pairsFromDocuments", document, position);
    const id = document.id ?? `${position}`;
    for (const method of methods) {
      const random = createRandom(keyOf(JSON.stringify([seed, method, id])));
      const pairs = MAKERS[method](document, { spanWords, perDocument, keepSentence, documentFrequencies, random });
      if (pairs.length === 0) onSkipped?.({ id, method });
      for (const [i, pair] of pairs.entries()) {
        const name = pairs.length === 1 ? `${id}/${method}` : `${id}/${method}/${i + 1}`;
        yield { id: name, ...(dataset !== undefined && { dataset }), group: id, ...pair };
      }
    }
  }
}

/**
 * In how many documents each word stands, in lower case; of title and text.
 *
 * @throws InvalidInputError for what is no document, with its position
 */
export async function countDocumentFrequencies(
  documents: AsyncIterable<UnlabelledDocument> | Iterable<UnlabelledDocument>,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<ReadonlyMap<string, number>> {
  const frequencies = new Map<string, number>();
  let position = -1;
  for await (const document of documents) {
    signal?.throwIfAborted();
    position++;
    requireText("countDocumentFrequencies", document, position);
    for (const word of differentWords(`${document.title ?? ""} ${document.text}`)) {
      frequencies.set(word, (frequencies.get(word) ?? 0) + 1);
    }
  }
  return frequencies;
}

function requireText(operation: string, document: UnlabelledDocument, position: number): void {
  if (typeof (document as UnlabelledDocument | null)?.text === "string") return;
  const message = `${operation}: the document at position ${position} has no text. Pass { id?, title?, text }.`;
  throw new InvalidInputError(message, { position });
}

interface MakerOptions {
  readonly spanWords: number;
  readonly perDocument: number;
  readonly keepSentence: number;
  readonly documentFrequencies: ReadonlyMap<string, number> | undefined;
  readonly random: Random;
}

type Maker = (document: UnlabelledDocument, options: MakerOptions) => { query: string; positive: string }[];

const MAKERS: Readonly<Record<UnsupervisedMethod, Maker>> = {
  title({ title = "", text }) {
    return title.trim() === "" || text.trim() === "" ? [] : [{ query: title.trim(), positive: text.trim() }];
  },
  neighbours({ text }, { spanWords, perDocument, random }) {
    const spans = spansOf(text, spanWords).map((sentences) => sentences.join(" "));
    const places = Math.max(0, spans.length - 1);
    return drawn(places, perDocument, random).map((at) => ({ query: spans[at]!, positive: spans[at + 1]! }));
  },
  cloze({ text }, { spanWords, perDocument, keepSentence, random }) {
    const places = spansOf(text, spanWords).flatMap((span) =>
      span.length < 2 ? [] : span.flatMap((sentence, at) => (wordsOf(sentence) < LEAST_WORDS ? [] : [{ span, at }])),
    );
    return drawn(places.length, perDocument, random).map((place) => {
      const { span, at } = places[place]!;
      const kept = random.next() < keepSentence;
      return { query: span[at]!, positive: span.filter((_, i) => kept || i !== at).join(" ") };
    });
  },
  lexical({ text }, { spanWords, perDocument, documentFrequencies, random }) {
    const spans = spansOf(text, spanWords)
      .map((sentences) => sentences.join(" "))
      .filter((span) => differentWords(span).size >= LEAST_DIFFERENT);
    return drawn(spans.length, perDocument, random).map((at) => {
      const span = spans[at]!;
      const query = random.next() < 0.5 ? rareWords(span, documentFrequencies!, random) : wordsInARow(span, random);
      return { query, positive: span };
    });
  },
};

function rareWords(span: string, frequencies: ReadonlyMap<string, number>, random: Random): string {
  const rarity = (word: string) => frequencies.get(word) ?? 0;
  const rare = [...differentWords(span)].sort((a, b) => rarity(a) - rarity(b)).slice(0, RARE.among);
  return random.shuffle(rare).slice(0, between(RARE, random)).join(" ");
}

function wordsInARow(span: string, random: Random): string {
  const words = span.split(" ");
  const length = Math.min(words.length, between(ROW, random));
  const start = random.integer(words.length - length + 1);
  return words.slice(start, start + length).join(" ");
}

function between({ least, most }: { readonly least: number; readonly most: number }, random: Random): number {
  return least + random.integer(most - least + 1);
}

/** In lower case, of three letters at least; shorter ones say too little. */
function differentWords(text: string): Set<string> {
  return new Set(text.toLowerCase().match(/[\p{L}\p{N}][\p{L}\p{N}'-]{2,}/gu) ?? []);
}

/** Up to `most` different places below `count`, ascending. */
function drawn(count: number, most: number, random: Random): number[] {
  return random.sample(count, Math.min(count, most)).sort((a, b) => a - b);
}

const segmenter = new Intl.Segmenter(undefined, { granularity: "sentence" });

/** Sentences in groups of at least `words` words; what is left at the end joins the last group if it is short. */
function spansOf(text: string, words: number): string[][] {
  const spans: string[][] = [];
  let [span, length]: [string[], number] = [[], 0];
  for (const { segment } of segmenter.segment(text)) {
    const sentence = segment.trim().replace(/\s+/g, " ");
    if (sentence === "") continue;
    span.push(sentence);
    length += wordsOf(sentence);
    if (length < words) continue;
    spans.push(span);
    [span, length] = [[], 0];
  }
  const last = spans.at(-1);
  if (length * 2 >= words || !last) spans.push(span);
  else last.push(...span);
  return spans.filter((sentences) => sentences.length > 0);
}

function wordsOf(sentence: string): number {
  return sentence.split(" ").length;
}
