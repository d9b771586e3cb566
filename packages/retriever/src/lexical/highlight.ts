/** Where a text says what a query asked: for showing results, not for scoring. */
import type { Analyzer } from "./analyzer.js";

/** UTF-16 units of the text, end exclusive: `text.slice(start, end)` is the word. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** The words of `text` whose terms are terms of `query`, in order. */
export function highlight(analyzer: Analyzer, query: string, text: string): Span[] {
  const wanted = new Set<string>();
  analyzer.analyze(query, (term) => wanted.add(term));
  const spans: Span[] = [];
  if (wanted.size > 0) {
    analyzer.analyze(text, (term, start, end) => {
      if (wanted.has(term)) spans.push({ start, end });
    });
  }
  return spans;
}
