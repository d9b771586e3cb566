/** Judgements where there are none: one sentence of a document is the query that has to find the rest of it. */
import { InvalidInputError } from "../errors.js";
import { createRandom } from "../random.js";
import type { BeirDocument, BeirQuery } from "./beir.js";
import { countWords, type DataSet, dataSetOf } from "./data-set.js";

export interface KnownItemOptions {
  /** @default "known items" */
  readonly name?: string;
  /** Queries wanted; fewer are made where fewer documents can give one. @default 300 */
  readonly queries?: number;
  /** Equal seeds draw equal documents and sentences. @default 0 */
  readonly seed?: number;
}

/** Characters of a document that sentences are drawn from; V8's segmenter takes time quadratic in its input. */
const READ_UNITS = 16_384;
/** A shorter sentence says too little, a longer one is no query. */
const SENTENCE_WORDS = { least: 5, most: 40 };
/** Words that must be left of a document, so that there is something to find. */
const REST_WORDS = 8;

/** What every report of such figures has to say. */
export const SYNTHETIC_NOTICE =
  "Synthetic queries: nobody judged anything. Each query is one sentence of a document, taken out of it, and only that document counts as relevant. Such queries share words with their document more than people's questions do, so word search looks better than it is; compare systems, don't read the figures as quality.";

const sentences = new Intl.Segmenter("en", { granularity: "sentence" });

/**
 * A data set of known-item queries: drawn documents lose one sentence each, which becomes the query; all others stay
 * whole. A sentence of 5 to 40 words is taken that stands in no other document, from the first 16,384 characters, and
 * only where at least 8 words are left. Raises InvalidInputError where no document can give a query.
 *
 * From: Azzopardi & de Rijke 2006, "Automatic construction of known-item finding test beds".
 */
export function knownItems(documents: readonly BeirDocument[], options: KnownItemOptions = {}): DataSet {
  const { name = "known items", queries: wanted = 300, seed = 0 } = options;
  if (!Number.isSafeInteger(wanted) || wanted < 1)
    throw new InvalidInputError(`knownItems: queries should be an integer of at least 1, got ${wanted}.`);
  const random = createRandom(seed);
  // Notices and forms repeat: as a query, such a sentence would have many answers.
  const holders = new Map<string, number>();
  const found = documents.map(({ text }) => sentencesOf(text));
  for (const list of found)
    for (const key of new Set(list.map(({ key }) => key))) holders.set(key, (holders.get(key) ?? 0) + 1);

  const drawn = new Map<number, Sentence>();
  for (const position of random.shuffle(documents.keys())) {
    if (drawn.size === wanted) break;
    const words = countWords(documents[position]!.text);
    const fit = found[position]!.filter(
      ({ key, words: own }) =>
        own >= SENTENCE_WORDS.least &&
        own <= SENTENCE_WORDS.most &&
        words - own >= REST_WORDS &&
        holders.get(key) === 1,
    );
    if (fit.length > 0) drawn.set(position, fit[random.integer(fit.length)]!);
  }
  if (drawn.size === 0)
    throw new InvalidInputError(
      `knownItems: none of ${documents.length} documents has a sentence of ${SENTENCE_WORDS.least} to ${SENTENCE_WORDS.most} words of its own beside ${REST_WORDS} other words. Judge some queries by hand instead.`,
    );
  const chosen = [...drawn].sort(([a], [b]) => a - b);
  const queries = chosen.map(([position, { text }]): BeirQuery => ({ id: `known-item-${position + 1}`, text }));
  return dataSetOf(
    {
      name,
      split: "synthetic",
      documents: documents.map((document, position) => {
        const sentence = drawn.get(position);
        if (!sentence) return document;
        const { text } = document;
        const rest = `${text.slice(0, sentence.start).trimEnd()} ${text.slice(sentence.end).trimStart()}`.trim();
        return { ...document, text: rest };
      }),
      queries: new Map(queries.map((query) => [query.id, query])),
      qrels: new Map(chosen.map(([position], q) => [queries[q]!.id, new Map([[documents[position]!.id, 1]])])),
      synthetic: SYNTHETIC_NOTICE,
    },
    {},
  );
}

interface Sentence {
  readonly start: number;
  readonly end: number;
  /** On one line. */
  readonly text: string;
  readonly words: number;
  /** The same for sentences that differ by case and white space only. */
  readonly key: string;
}

function sentencesOf(text: string): Sentence[] {
  // A text wrapped by hand would end a sentence at every line break.
  const read = text.slice(0, READ_UNITS).replace(/(?<!\n)\r?\n(?!\r?\n)/g, (found) => " ".repeat(found.length));
  const found = [...sentences.segment(read)];
  // The last one may be cut.
  if (text.length > READ_UNITS) found.pop();
  return found.flatMap(({ index, segment }) => {
    const line = segment.replace(/\s+/g, " ").trim();
    if (line === "") return [];
    return { start: index, end: index + segment.length, text: line, words: countWords(line), key: line.toLowerCase() };
  });
}
