/** Draws the context documents of a corpus: a seeded sample that doesn't depend on the order of the corpus. */
import { createHash } from "node:crypto";

/**
 * Up to `size` different texts, blank ones left out: those with the smallest sha256 of seed and text, in that order.
 * The same texts in another order give the same sample, and one text more changes it by one at most, so a corpus that
 * is read again keeps its context fingerprint.
 */
export function sampleTexts(texts: Iterable<string>, size: number, seed: number): string[] {
  const drawn = new Map<string, string>();
  for (const text of texts) {
    if (text.trim() === "" || drawn.has(text)) continue;
    drawn.set(text, createHash("sha256").update(`${seed}\n${text}`).digest("hex"));
  }
  return [...drawn]
    .sort(([, a], [, b]) => (a < b ? -1 : 1))
    .slice(0, size)
    .map(([text]) => text);
}
