/** When two texts count as the same, and a short number that stands for a text. */
import { createHash } from "node:crypto";

const ASCII = /^[\0-\x7f]*$/;

/**
 * The text without what doesn't tell two texts apart: case, punctuation, runs of white space, compatible forms of
 * characters. Numbers stay. A text of nothing but punctuation is itself.
 */
export function normalisedText(text: string): string {
  // The short way, five times faster, gives the same for what has no other characters.
  const words = ASCII.test(text)
    ? text.toLowerCase().replace(/[^a-z0-9]+/g, " ")
    : text
        .normalize("NFKC")
        .toLowerCase()
        .replace(/[^\p{L}\p{M}\p{N}]+/gu, " ");
  return words.trim() === "" ? text.trim() : words.trim();
}

/**
 * 52 bits of the digest of the normalised text, as an integer that a Float64Array keeps exactly. Among ten million
 * texts two different ones share a key with a chance of one in a hundred: enough to keep texts apart in a batch, and
 * never used alone to drop one.
 */
export function textKey(text: string): number {
  return keyOf(normalisedText(text));
}

/** The same of any string as it stands. */
export function keyOf(text: string): number {
  return Number.parseInt(createHash("sha256").update(text).digest("hex").slice(0, 13), 16);
}
