/** Queries made from documents themselves: for each, the document without the part that the query was made from. */
import { createRandom } from "../../random.js";

/** One document, asked for in several ways. */
export interface PseudoQuery {
  /** Position of the document it was made from. */
  readonly document: number;
  /** The document without the sentence that the queries were made from. */
  readonly rest: string;
  /** One text for each of `PSEUDO_QUERY_KINDS`, in their order. */
  readonly texts: readonly string[];
}

/**
 * A sentence; 6 to 10 words in a row of it; its five rarest words; a question of its three rarest. Real queries are of
 * neither kind, but what helps all four on a corpus tends to help real ones.
 */
export const PSEUDO_QUERY_KINDS: readonly string[] = ["sentence", "span", "rare words", "question"];

/** What is looked at of a document: about the 128 tokens that most models read well. */
const HEAD = 700;
/** Words that a sentence needs. */
const LEAST_WORDS = 5;

/**
 * At most `count` of the documents, drawn by `seed`; fewer where fewer have two sentences of at least five words.
 * Sentences end at a full stop, question or exclamation mark before a space, and at line ends: the same on every machine.
 */
export function makePseudoQueries(documents: readonly string[], count: number, seed: number): PseudoQuery[] {
  const random = createRandom(seed);
  const frequencies = new Map<string, number>();
  for (const text of documents) {
    for (const word of new Set(wordsOf(text))) frequencies.set(word, (frequencies.get(word) ?? 0) + 1);
  }
  const made: PseudoQuery[] = [];
  for (const document of random.shuffle(documents.map((_, position) => position))) {
    if (made.length === count) break;
    const text = documents[document]!;
    const sentences = sentencesOf(text.slice(0, HEAD)).filter((sentence) => wordsOf(sentence).length >= LEAST_WORDS);
    if (sentences.length < 2) continue;
    const sentence = sentences[random.integer(sentences.length)]!;
    const inRow = sentence.split(/\s+/u);
    const length = Math.min(inRow.length, 6 + random.integer(5));
    const start = random.integer(inRow.length - length + 1);
    const rare = (wanted: number) => rarestWords(sentence, frequencies, wanted).join(" ");
    made.push({
      document,
      rest: text.replace(sentence, () => " ").trim(),
      texts: [sentence, inRow.slice(start, start + length).join(" "), rare(5), `what is ${rare(3)}?`],
    });
  }
  return made;
}

function sentencesOf(text: string): string[] {
  return text
    .split(/(?<=[.!?]["')\]]?)\s+|\s*\n\s*/u)
    .map((sentence) => sentence.trim())
    .filter((sentence) => sentence !== "");
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
}

/** In the order in which they stand; of equally rare ones the first. Words of one and two letters say too little. */
function rarestWords(sentence: string, frequencies: ReadonlyMap<string, number>, wanted: number): string[] {
  const distinct = [...new Set(wordsOf(sentence))];
  const rarity = (word: string) => frequencies.get(word) ?? 0;
  const long = distinct.filter((word) => word.length > 2);
  const chosen = new Set((long.length > 0 ? long : distinct).sort((x, y) => rarity(x) - rarity(y)).slice(0, wanted));
  return [...new Set(wordsOf(sentence))].filter((word) => chosen.has(word));
}
