/** Draws passages of a corpus: the same ones wherever it lies, and whatever order it came in. */
import { setImmediate as pause } from "node:timers/promises";
import { hashTerm } from "../lexical/sparse.js";
import type { DocumentStore } from "../storage/document-store.js";

/** Documents looked at before the event loop gets a turn. */
const SLICE = 5000;

/** A passage by its document's id and its number there. */
export interface DrawnPassage {
  readonly document: string;
  readonly passage: number;
}

/** The lot of a passage, an unsigned 32-bit number: the smallest are drawn first. Levels are stored on servers, so it never changes. */
function lotOf({ document, passage }: DrawnPassage): number {
  return hashTerm(`${passage} ${document}`);
}

/** How often a corpus can be halved, by the first bits of lots, until this passage is out: from 0 to 32. */
export function drawLevel(document: string, passage: number): number {
  return Math.clz32(lotOf({ document, passage }));
}

/** First drawn first. */
export function inDrawOrder(a: DrawnPassage, b: DrawnPassage): number {
  const byId = a.document < b.document ? -1 : a.document > b.document ? 1 : 0;
  return lotOf(a) - lotOf(b) || byId || a.passage - b.passage;
}

/** Labels of `count` passages, fewer where there are fewer, in the order in which they are drawn. */
export async function drawPassages(documents: DocumentStore, count: number): Promise<Uint32Array> {
  const drawn: (DrawnPassage & { readonly number: number; readonly label: number })[] = [];
  let highest = Number.POSITIVE_INFINITY;
  // As they are now; what goes meanwhile isn't drawn.
  const numbers = [...documents.live()];
  for (const [i, number] of numbers.entries()) {
    if (i % SLICE === SLICE - 1) await pause();
    if (!documents.isLive(number)) continue;
    const document = documents.idOf(number);
    const first = documents.firstPassage(number);
    for (let label = first; label < documents.firstPassage(number + 1); label++) {
      const one = { document, passage: label - first, number, label };
      if (lotOf(one) > highest) continue;
      drawn.push(one);
      // Not sorted for each that comes, only when there are many too many.
      if (drawn.length < 8 * count) continue;
      drawn.sort(inDrawOrder).splice(count);
      highest = lotOf(drawn.at(-1) as DrawnPassage);
    }
  }
  const first = drawn.sort(inDrawOrder).slice(0, count);
  return Uint32Array.from(first.filter(({ number }) => documents.isLive(number)).map(({ label }) => label));
}
