/** Cuts a text at its natural borders, the widest that fit: paragraphs, sentences, lines, words, graphemes. */

/** A stretch of a text in UTF-16 units, `end` not included. */
export interface Passage {
  readonly start: number;
  readonly end: number;
}

/** A stretch without white space at its ends, and its tokens (special tokens and prompt not counted). */
export interface Piece extends Passage {
  readonly cost: number;
}

/** Counts the tokens of a stretch alone. */
export type Cost = (start: number, end: number) => number;

const sentences = new Intl.Segmenter("en", { granularity: "sentence" });
const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });

/** Above so many units a token, a stretch is cut further without counting: counting is linear in its length. */
const MAX_UNITS_PER_TOKEN = 24;

type Level = (text: string, start: number, end: number) => Iterable<Passage>;

const levels: readonly Level[] = [paragraphs, sentenceStretches, separated(/\n/g), separated(/\s+/g)];

/** The pieces of `text` from `start` to `end`, in order, each of at most `limit` tokens where a cut can bring it there. */
export function* pieces(
  text: string,
  start: number,
  end: number,
  limit: number,
  cost: Cost,
  level = 0,
): Generator<Piece> {
  const cut = levels[level];
  if (!cut) {
    yield* halves(text, start, end, limit, cost);
    return;
  }
  for (const stretch of cut(text, start, end)) {
    const piece = trim(text, stretch.start, stretch.end);
    if (piece.start === piece.end) continue;
    const tokens = piece.end - piece.start > limit * MAX_UNITS_PER_TOKEN ? Infinity : cost(piece.start, piece.end);
    if (tokens <= limit) yield { ...piece, cost: tokens };
    else yield* pieces(text, piece.start, piece.end, limit, cost, level + 1);
  }
}

/** A single word that is too long, halved at a grapheme border until each part fits. */
function* halves(text: string, start: number, end: number, limit: number, cost: Cost): Generator<Piece> {
  const tokens = end - start > limit * MAX_UNITS_PER_TOKEN ? Infinity : cost(start, end);
  const middle = tokens <= limit ? undefined : border(text, start, end);
  if (middle === undefined) {
    // One code point of more tokens than the limit stays whole: there is nothing left to cut.
    yield { start, end, cost: Number.isFinite(tokens) ? tokens : cost(start, end) };
    return;
  }
  yield* halves(text, start, middle, limit, cost);
  yield* halves(text, middle, end, limit, cost);
}

/** The border next to the middle: between graphemes, else between code points; undefined where there is none. */
function border(text: string, start: number, end: number): number | undefined {
  const word = text.slice(start, end);
  const middle = word.length >> 1;
  const grapheme = graphemes.segment(word).containing(middle);
  if (grapheme && grapheme.index > 0) return start + grapheme.index;
  const after = grapheme ? grapheme.segment.length : word.length;
  if (after < word.length) return start + after;
  const codePoint = isLowSurrogate(word, middle) ? middle - 1 : middle;
  if (codePoint > 0) return start + codePoint;
  return word.length > 2 ? start + 2 : undefined;
}

function isLowSurrogate(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  return unit >= 0xdc00 && unit <= 0xdfff;
}

/** Paragraphs: parted by a blank line. */
function paragraphs(text: string, start: number, end: number): Iterable<Passage> {
  return separated(/\n\s*\n/g)(text, start, end);
}

/** Units given to the segmenter at once: V8 takes time quadratic in its input to walk it (Node 20: 2 MB, a minute). */
const WINDOW = 4096;

/**
 * Sentences by the Unicode rules (UAX 29). They end a sentence at every line break, so a text wrapped by hand would be
 * cut in mid-sentence: its line breaks count as spaces here.
 */
function* sentenceStretches(text: string, start: number, end: number): Generator<Passage> {
  for (let window = WINDOW; start < end; ) {
    const to = Math.min(end, start + window);
    const found = [...sentences.segment(text.slice(start, to).replace(/[\r\n]/g, " "))];
    // The last one may go on behind the window: it starts the next one.
    if (to < end) found.pop();
    for (const { index, segment } of found) yield { start: start + index, end: start + index + segment.length };
    const last = found.at(-1);
    start += last ? last.index + last.segment.length : 0;
    window = last ? WINDOW : 2 * window;
    // So long a sentence will be cut at words anyway.
    if (window > 32 * WINDOW) {
      yield { start, end };
      return;
    }
  }
}

/** The stretches between the matches of a pattern. */
function separated(separator: RegExp): Level {
  return function* (text, start, end) {
    let from = 0;
    const stretch = text.slice(start, end);
    for (const match of stretch.matchAll(separator)) {
      yield { start: start + from, end: start + match.index };
      from = match.index + match[0].length;
    }
    yield { start: start + from, end };
  };
}

/** The stretch without white space at its ends. */
export function trim(text: string, start: number, end: number): Passage {
  const isSpace = (at: number): boolean => /\s/.test(text[at] as string);
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return { start, end };
}
