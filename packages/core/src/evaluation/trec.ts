/** Reads and writes the run and qrels formats of trec_eval; a path that ends in `.gz` is read as gzip. */
import { InvalidInputError } from "../errors.js";
import { describe } from "../model/json-file.js";
import { corrupt, type ReadLinesOptions, readLines } from "./lines.js";
import { type Qrels, type Run, rankDocuments } from "./metrics.js";
import { writeLines } from "./write-lines.js";

/**
 * A run: lines of query, "Q0", document, rank, score and tag between white space. Like trec_eval, it goes by the
 * score and not by the rank. Raises CorruptFileError with the line for anything else and for a document given twice.
 */
export async function readTrecRun(
  path: string,
  options: ReadLinesOptions = {},
): Promise<Map<string, Map<string, number>>> {
  const run = new Map<string, Map<string, number>>();
  for await (const { line, value } of readLines("readTrecRun", path, options)) {
    const fields = value.trim().split(/\s+/);
    const [query = "", , document = "", rank = "", score = ""] = fields;
    if (fields.length !== 6)
      throw corrupt(
        "readTrecRun",
        path,
        line,
        `should have 6 fields (query Q0 document rank score tag), found ${fields.length}.`,
      );
    if (!/^\d+$/.test(rank))
      throw corrupt("readTrecRun", path, line, `the rank should be an integer, found "${rank}".`);
    if (!DECIMAL.test(score) || !Number.isFinite(Number(score)))
      throw corrupt("readTrecRun", path, line, `the score should be a number, found "${score}".`);
    const scores = entry(run, query);
    if (scores.has(document))
      throw corrupt("readTrecRun", path, line, `document "${document}" is given twice for query "${query}".`);
    scores.set(document, Number(score));
  }
  return run;
}

/**
 * Judgements: lines of query, iteration, document and integer between white space. Raises CorruptFileError with the
 * line for anything else and for a pair judged in two ways; the same line again is let pass.
 */
export async function readTrecQrels(path: string, options: ReadLinesOptions = {}): Promise<Qrels> {
  const qrels = new Map<string, Map<string, number>>();
  for await (const { line, value } of readLines("readTrecQrels", path, options)) {
    const fields = value.trim().split(/\s+/);
    const [query = "", , document = "", judgement = ""] = fields;
    if (fields.length !== 4)
      throw corrupt(
        "readTrecQrels",
        path,
        line,
        `should have 4 fields (query iteration document judgement), found ${fields.length}.`,
      );
    addJudgement(qrels, { operation: "readTrecQrels", path, line, query, document, judgement });
  }
  return qrels;
}

/**
 * Writes a run, best first, ranks from 1; the format has no place for a query without results. A ranked list of n gets
 * the scores n, n - 1, ..., 1. The file is whole or not there. Raises InvalidInputError for ids with white space and
 * scores that aren't finite, RuntimeFailureError where the disk fails.
 */
export async function writeTrecRun(path: string, run: Run, options: { readonly tag: string }): Promise<void> {
  const tag = word("writeTrecRun", "the tag", options.tag);
  await writeLines("writeTrecRun", path, function* () {
    for (const [query, results] of run) {
      const prefix = `${word("writeTrecRun", "a query id", query)} Q0 `;
      const ids = rankDocuments(query, results);
      for (const [i, id] of ids.entries()) {
        const score = results instanceof Map ? (results.get(id) as number) : ids.length - i;
        if (!Number.isFinite(score))
          throw new InvalidInputError(
            `writeTrecRun: query "${query}", document "${id}": the score ${score} isn't finite.`,
          );
        yield `${prefix}${word("writeTrecRun", "a document id", id)} ${i + 1} ${score} ${tag}\n`;
      }
    }
  });
}

/** Writes judgements with iteration 0; errors as `writeTrecRun`. */
export async function writeTrecQrels(path: string, qrels: Qrels): Promise<void> {
  await writeLines("writeTrecQrels", path, function* () {
    for (const [query, judgements] of qrels)
      for (const [document, judgement] of judgements) {
        if (!Number.isSafeInteger(judgement))
          throw new InvalidInputError(
            `writeTrecQrels: query "${query}" judges document "${document}" as ${judgement}; judgements are integers.`,
          );
        const id = word("writeTrecQrels", "a document id", document);
        yield `${word("writeTrecQrels", "a query id", query)} 0 ${id} ${judgement}\n`;
      }
  });
}

interface JudgementLine {
  readonly operation: string;
  readonly path: string;
  readonly line: number;
  readonly query: string;
  readonly document: string;
  readonly judgement: string;
}

/**
 * Adds one line's judgement; raises CorruptFileError where it isn't an integer or contradicts an earlier line. The same
 * judgement again is let pass, as published sets hold such lines (tldr_pages has one 12 times) and nothing is lost.
 */
export function addJudgement(qrels: Map<string, Map<string, number>>, of: JudgementLine): void {
  const { operation, path, line, query, document, judgement } = of;
  const value = Number(judgement);
  if (!/^[+-]?\d+$/.test(judgement) || !Number.isSafeInteger(value))
    throw corrupt(operation, path, line, `the judgement should be an integer, found ${describe(judgement)}.`);
  const judgements = entry(qrels, query);
  const before = judgements.get(document);
  if (before !== undefined && before !== value) {
    const problem = `document "${document}" is judged ${value} for query "${query}", and ${before} on an earlier line.`;
    throw corrupt(operation, path, line, problem);
  }
  judgements.set(document, value);
}

const DECIMAL = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

function entry(table: Map<string, Map<string, number>>, query: string): Map<string, number> {
  const row = table.get(query) ?? new Map<string, number>();
  table.set(query, row);
  return row;
}

function word(operation: string, what: string, value: string): string {
  if (value !== "" && !/\s/.test(value)) return value;
  throw new InvalidInputError(
    `${operation}: ${what} is ${JSON.stringify(value)}; the format separates fields by white space. Map it to an id without.`,
  );
}
