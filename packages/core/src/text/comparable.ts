/** What is compared of a text where two should count as the same one. */

/** Characters that are compared: more than a model reads of a text. */
const COMPARED_UNITS = 32_768;

/** What makes two texts the same: letters in order; case, punctuation, spaces and the values of numbers don't count. */
export function comparable(text: string): string {
  return text
    .slice(0, COMPARED_UNITS)
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{M}]+/gu, (gap) => (/\p{N}/u.test(gap) ? " 0 " : " "))
    .trim();
}
