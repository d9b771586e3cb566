import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { passagesOf, splitText } from "./split-text.js";

/** Words, and two special tokens: counts add up. */
const byWords = (text: string): number => 2 + (text.match(/\S+/g)?.length ?? 0);
/** UTF-8 bytes: white space counts too, and a character may be more than a passage allows. */
const byBytes = (text: string): number => Buffer.byteLength(text);
const wellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);
const texts = (text: string, passages: readonly { start: number; end: number }[]): string[] =>
  passages.map(({ start, end }) => text.slice(start, end));

describe("splitText", () => {
  test("fills passages with whole paragraphs, then whole sentences, and keeps offsets", () => {
    const text = "  One two three.\n\nFour five. Six seven eight. Nine ten.\n";
    const passages = splitText(text, { countTokens: byWords, maxTokens: 7 });
    // 2 special tokens leave 5 words. The second paragraph has 7, so it is cut into sentences of 2, 3 and 2.
    expect(texts(text, passages)).toEqual(["One two three.\n\nFour five.", "Six seven eight. Nine ten."]);
    expect(passages[0]).toEqual({ start: 2, end: 28 });
  });

  test("a line break inside a sentence is no border", () => {
    const text = "The licensee may copy\nthe work. The licensor keeps\nall rights.";
    expect(texts(text, splitText(text, { countTokens: byWords, maxTokens: 9 }))).toEqual([
      "The licensee may copy\nthe work.",
      "The licensor keeps\nall rights.",
    ]);
  });

  test("repeats the end of a passage up to the overlap", () => {
    const text = "A b c. D e. F g. H i.";
    const overlapping = texts(text, splitText(text, { countTokens: byWords, maxTokens: 7, overlap: 2 }));
    expect(overlapping).toEqual(["A b c. D e.", "D e. F g.", "F g. H i."]);
    expect(texts(text, splitText(text, { countTokens: byWords, maxTokens: 7 }))).toEqual(["A b c. D e.", "F g. H i."]);
  });

  test("counts the whole where the tokens of pieces don't add up to it", () => {
    // One more token for more than three words: two sentences of two are 2 + 4 + 1 together, one is 2 + 2.
    const jointly = (text: string): number => byWords(text) + (byWords(text) > 5 ? 1 : 0);
    const text = "A b. C d. E f.";
    expect(texts(text, splitText(text, { countTokens: jointly, maxTokens: 6 }))).toEqual(["A b.", "C d.", "E f."]);
    expect(texts(text, splitText(text, { countTokens: jointly, maxTokens: 7 }))).toEqual(["A b. C d.", "E f."]);
  });

  test("a prefix takes its tokens from every passage", () => {
    const text = "one two three four five six";
    const passages = splitText(text, { countTokens: byWords, maxTokens: 6, prefix: "My title " });
    expect(texts(text, passages)).toEqual(["one two", "three four", "five six"]);
  });

  test("a word longer than a passage is cut between graphemes, and a grapheme only where it must be", () => {
    const family = "👩‍👩‍👧‍👦"; // 4 people of 4 bytes and 3 joiners of 3: 25 bytes
    const text = family.repeat(5);
    for (const { start, end } of splitText(text, { countTokens: byBytes, maxTokens: 60 })) {
      expect(start % family.length).toBe(0);
      expect(end % family.length).toBe(0);
    }
    const cut = texts(text, splitText(text, { countTokens: byBytes, maxTokens: 12 }));
    expect(cut.join("")).toBe(text);
    expect(cut.every((passage) => wellFormed(passage) && byBytes(passage) <= 12)).toBe(true);
    // A code point of 4 bytes stays whole even where 3 are allowed.
    expect(texts("👍👍", splitText("👍👍", { countTokens: byBytes, maxTokens: 3 }))).toEqual(["👍", "👍"]);
  });

  test("a text of white space has no passages", () => {
    expect(splitText(" \n\t\u3000\n\n", { countTokens: byWords, maxTokens: 9 })).toEqual([]);
    expect(splitText("", { countTokens: byWords, maxTokens: 9 })).toEqual([]);
  });

  test("refuses limits that leave no room", () => {
    expect(() => splitText("a", { countTokens: byWords, maxTokens: 2 })).toThrow(/above the 2 tokens.*got 2/);
    expect(() => splitText("a", { countTokens: byWords, maxTokens: 5.5 })).toThrow(/integer/);
    expect(() => splitText("a", { countTokens: byWords, maxTokens: 9, overlap: 7 })).toThrow(/0 to 6, got 7/);
  });

  test("loses nothing but white space, in order, within the limit, for any text", () => {
    const word = fc.oneof(fc.string({ unit: "grapheme" }), fc.constantFrom("a", "b.", "c!", "\n", "\n\n", " ", "\r\n"));
    fc.assert(
      fc.property(
        fc.array(word, { maxLength: 60 }),
        fc.integer({ min: 4, max: 40 }),
        fc.integer({ min: 0, max: 20 }),
        fc.constantFrom(byWords, byBytes),
        (words, maxTokens, wanted, countTokens) => {
          const text = words.join(" ").replace(/\p{Surrogate}/gu, "");
          const overlap = Math.min(wanted, maxTokens - countTokens("") - 1);
          const passages = splitText(text, { countTokens, maxTokens, overlap });
          const covered = new Uint8Array(text.length);
          let [start, end] = [-1, -1];
          for (const passage of passages) {
            // Each passage begins and ends after the one before: progress in spite of the overlap.
            expect(passage.start).toBeGreaterThan(start);
            expect(passage.end).toBeGreaterThan(end);
            ({ start, end } = passage);
            covered.fill(1, start, end);
            const part = text.slice(start, end);
            expect(wellFormed(part)).toBe(true);
            expect(part.trim()).toBe(part);
            if ([...part].length > 1) expect(countTokens(part)).toBeLessThanOrEqual(maxTokens);
          }
          for (let i = 0; i < text.length; i++) if (!covered[i]) expect(text[i]).toMatch(/\s/);
        },
      ),
      { numRuns: 400, seed: 7 },
    );
  });

  const long: [string, string][] = [
    ["sentences on one line", "The party of the first part pays for the flood. ".repeat(40_000)],
    ["one word", "x".repeat(2_000_000)],
    ["short lines", "a line of text\n".repeat(130_000)],
    ["words far apart", `a${" ".repeat(999)}`.repeat(2000)],
    ["line breaks and spaces", "\n   ".repeat(500_000)],
  ];
  test.each(long)("a text of 2 MB takes time in proportion to its length: %s", (_, text) => {
    const work = (input: string): { units: number; milliseconds: number } => {
      let units = 0;
      const countTokens = (part: string): number => {
        units += part.length;
        return byBytes(part);
      };
      // Processor time, which other processes disturb less than the clock.
      const before = process.cpuUsage().user;
      for (const _passage of passagesOf(input, { countTokens, maxTokens: 512, overlap: 64 }));
      return { units, milliseconds: (process.cpuUsage().user - before) / 1000 };
    };
    work(text.slice(0, text.length >> 5));
    const part = work(text.slice(0, text.length >> 5));
    const whole = work(text);
    // Every level counts a text once or twice.
    expect(whole.units).toBeLessThan(20 * text.length);
    // 32 in proportion, 1024 if quadratic.
    expect(whole.milliseconds / Math.max(part.milliseconds, 5)).toBeLessThan(160);
  });
});
