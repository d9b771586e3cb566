/** Splits a text into passages of at most so many tokens, at sentence borders where they allow it. */
import { InvalidInputError } from "@cde-js/core";
import { type Passage, type Piece, pieces } from "./pieces.js";

export interface SplitTextOptions {
  /** Tokens of a text as the model counts them, special tokens and prompt included (`embedder.countTokens`). */
  readonly countTokens: (text: string) => number;
  /** Longest passage in tokens, as `countTokens` counts. */
  readonly maxTokens: number;
  /** Tokens of a passage's end that the next one repeats, at most; borders are kept, so often fewer. @default 0 */
  readonly overlap?: number;
  /** Put before every passage when it is embedded (a title and a space), so that it counts. @default "" */
  readonly prefix?: string;
}

/** Texts up to this length have their counts remembered: words come again, whole passages don't. */
const REMEMBERED_UNITS = 32;

/**
 * The passages of `text`: in order, without white space at their ends, together all of it but white space. A text of
 * white space has none. A passage is longer than `maxTokens` only where a single code point is.
 *
 * @throws InvalidInputError where `maxTokens` leaves no room beside special tokens, prefix and overlap.
 */
export function splitText(text: string, options: SplitTextOptions): Passage[] {
  return [...passagesOf(text, options)];
}

/** `splitText` one passage at a time, so that a caller can pause in a long text. */
export function* passagesOf(text: string, options: SplitTextOptions): Generator<Passage> {
  const { countTokens, maxTokens, overlap = 0, prefix = "" } = options;
  const fixed = countTokens(prefix);
  const room = maxTokens - fixed;
  if (!Number.isSafeInteger(maxTokens) || room < 1) {
    throw new InvalidInputError(
      `splitText: maxTokens must be an integer above the ${fixed} tokens of the empty passage, got ${maxTokens}.`,
    );
  }
  if (!Number.isSafeInteger(overlap) || overlap < 0 || overlap >= room) {
    throw new InvalidInputError(`splitText: overlap must be an integer from 0 to ${room - 1}, got ${overlap}.`);
  }
  const remembered = new Map<string, number>();
  const bare = countTokens("");
  const cost = (start: number, end: number): number => {
    const stretch = text.slice(start, end);
    const known = remembered.get(stretch);
    if (known !== undefined) return known;
    const tokens = Math.max(0, countTokens(stretch) - bare);
    if (stretch.length <= REMEMBERED_UNITS) remembered.set(stretch, tokens);
    return tokens;
  };
  const fits = (first: Piece, last: Piece): boolean =>
    countTokens(prefix + text.slice(first.start, last.end)) <= maxTokens;

  let taken: Piece[] = [];
  /** Pieces at the head of `taken` with which the passage before ended. */
  let repeated = 0;
  /** Estimated tokens of `taken`: its pieces and the white space between them. */
  let total = 0;

  function take(piece: Piece): void {
    total += joined(piece);
    taken.push(piece);
  }

  /** Tokens that `piece` adds to what is taken. */
  function joined(piece: Piece): number {
    const last = taken.at(-1);
    return piece.cost + (last ? cost(last.end, piece.start) : 0);
  }

  function takeAll(list: readonly Piece[]): void {
    taken = [];
    total = 0;
    list.forEach(take);
  }

  /** Ends a passage with the most of `taken` that fits, and keeps the rest for the next one. */
  function close(): Passage {
    // Tokens of pieces don't always add up to those of the whole, so the whole is counted; mostly once.
    let [fitting, over] = [repeated, taken.length + 1];
    for (let n = taken.length; fitting + 1 < over; n = (fitting + over) >> 1) {
      if (fits(taken[0] as Piece, taken[n - 1] as Piece)) fitting = n;
      else over = n;
    }
    if (fitting === repeated) {
      // Not one new piece fits: give up the repetition, then cut the piece further, down to a code point.
      const first = taken[repeated] as Piece;
      const parts = repeated > 0 ? [first] : [...pieces(text, first.start, first.end, first.cost >> 1, cost)];
      if (repeated > 0 || parts.length > 1) {
        takeAll([...parts, ...taken.slice(repeated + 1)]);
        repeated = 0;
        return close();
      }
      fitting = 1;
    }
    const passage = { start: (taken[0] as Piece).start, end: (taken[fitting - 1] as Piece).end };
    const kept = overlap > 0 ? tail(taken.slice(0, fitting)) : [];
    takeAll([...kept, ...taken.slice(fitting)]);
    repeated = kept.length;
    return passage;
  }

  /** The end of a passage in at most `overlap` tokens: whole pieces, and the last words of the piece before them. */
  function tail(passage: readonly Piece[]): Piece[] {
    const kept: Piece[] = [];
    let left = overlap;
    const keep = (piece: Piece): boolean => {
      const tokens = piece.cost + (kept[0] ? cost(piece.end, kept[0].start) : 0);
      if (tokens > left) return false;
      kept.unshift(piece);
      left -= tokens;
      return true;
    };
    const larger = passage.findLast((piece) => !keep(piece));
    if (larger && left > 0) {
      [...pieces(text, larger.start, larger.end, left, cost)].findLast((part) => !keep(part));
      while (kept[0] && kept[0].start > larger.start && /\S/.test(text[kept[0].start - 1] as string)) kept.shift();
    }
    return kept;
  }

  for (const piece of pieces(text, 0, text.length, room, cost)) {
    while (taken.length > repeated && total + joined(piece) > room) yield close();
    if (taken.length > 0 && taken.length === repeated && total + joined(piece) > room) {
      // What would be repeated leaves no room for the next piece.
      takeAll([]);
      repeated = 0;
    }
    take(piece);
  }
  while (taken.length > repeated) yield close();
}
