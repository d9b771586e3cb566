import { expect, test } from "vitest";
import { clock, counted, oneLine, shortened } from "./printable.js";

test("what could move a terminal's cursor or reorder its line is replaced", () => {
  expect(oneLine("a\x1b[31mb\x07c\u202ed\u009be")).toBe("a\ufffd[31mb\ufffdc\ufffdd\ufffde");
  expect(oneLine("two\nlines\tand a tab")).toBe("two lines and a tab");
  expect(oneLine("naïve 漢字 👩‍🚀")).toBe("naïve 漢字 👩‍🚀");
});

test("a long text ends at a word and never in the middle of a character", () => {
  expect(shortened("one two  three", 20)).toBe("one two three");
  expect(shortened("one two three", 9)).toBe("one two …");
  expect(shortened("😀😀😀😀", 3)).toBe("😀 …");
});

test("numbers read as people write them", () => {
  expect([counted(1, "document"), counted(4596, "passage")]).toEqual(["1 document", "4,596 passages"]);
  expect([counted(1, "query"), counted(2, "query")]).toEqual(["1 query", "2 queries"]);
  expect([clock(5.4), clock(65), clock(3665)]).toEqual(["0:05", "1:05", "1:01:05"]);
});
