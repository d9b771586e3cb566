/** Reads a data set in BEIR's layout: `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`, each plain or `.gz`. */
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { InvalidInputError, MissingFileError } from "../errors.js";
import { describe, isJsonObject } from "../model/json-file.js";
import { corrupt, type ReadLinesOptions, readJsonLines, readLines } from "./lines.js";
import type { Qrels } from "./metrics.js";
import { addJudgement } from "./trec.js";

/** What JSON can carry. */
export type BeirValue = null | boolean | number | string | readonly BeirValue[] | BeirMetadata;
export interface BeirMetadata {
  readonly [key: string]: BeirValue;
}

export interface BeirDocument {
  readonly id: string;
  /** May be "". */
  readonly title: string;
  readonly text: string;
  readonly metadata?: BeirMetadata;
}

export interface BeirQuery {
  readonly id: string;
  readonly text: string;
  readonly metadata?: BeirMetadata;
}

/**
 * The documents in the file's order; of a plain and a `.gz` file the plain one is read. Only ids are kept in memory.
 * Raises MissingFileError, and CorruptFileError with the line for what isn't a document and for an id that was there.
 */
export async function* readCorpus(folder: string, options: ReadLinesOptions = {}): AsyncGenerator<BeirDocument> {
  for await (const { record, string } of readRecords("readCorpus", plainOrGzip(folder, "corpus.jsonl"), options))
    yield { ...record, title: string("title", ""), text: string("text") };
}

/** The queries in the file's order, with the errors of `readCorpus`. */
export async function* readQueries(folder: string, options: ReadLinesOptions = {}): AsyncGenerator<BeirQuery> {
  for await (const { record, string } of readRecords("readQueries", plainOrGzip(folder, "queries.jsonl"), options))
    yield { ...record, text: string("text") };
}

/**
 * The judgements of one split. Raises MissingFileError that names the splits there are, and CorruptFileError with the
 * line for a missing header, a line that isn't query, document and integer between tabs, and a pair judged in two ways;
 * the same line again is let pass.
 */
export async function readQrels(folder: string, split: string, options: ReadLinesOptions = {}): Promise<Qrels> {
  if (split === "" || basename(split) !== split)
    throw new InvalidInputError(`readQrels: split should be a name such as "test", got "${split}".`);
  const path = plainOrGzip(join(folder, "qrels"), `${split}.tsv`);
  if (!existsSync(path)) {
    const splits = await listSplits(folder);
    throw new MissingFileError(path, `readQrels: ${folder} has no split "${split}". It has: ${splits.join(", ")}.`);
  }
  const qrels = new Map<string, Map<string, number>>();
  let header = true;
  for await (const { line, value } of readLines("readQrels", path, options)) {
    const fields = value.split("\t");
    const [query = "", document = "", judgement = ""] = fields.map((field) => field.trim());
    if (fields.length !== 3 || query === "" || document === "")
      throw corrupt(
        "readQrels",
        path,
        line,
        `should be query-id, corpus-id and score between tabs, found ${describe(value)}.`,
      );
    if (!header) addJudgement(qrels, { operation: "readQrels", path, line, query, document, judgement });
    else if (Number.isFinite(Number(judgement)))
      throw corrupt("readQrels", path, line, "is a judgement where the header query-id, corpus-id, score belongs.");
    header = false;
  }
  if (header) throw corrupt("readQrels", path, 1, "is missing: the header query-id, corpus-id, score belongs there.");
  return qrels;
}

/** Names of the splits, sorted. Raises MissingFileError where there is no folder `qrels`. */
export async function listSplits(folder: string): Promise<string[]> {
  const path = join(folder, "qrels");
  let names: string[];
  try {
    names = await readdir(path);
  } catch (cause) {
    throw new MissingFileError(path, `listSplits: can't list the folder ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
  const splits = names.flatMap((name) => /^(.+)\.tsv(?:\.gz)?$/.exec(name)?.[1] ?? []);
  return [...new Set(splits)].sort();
}

interface ReadRecord {
  readonly record: { readonly id: string; readonly metadata?: BeirMetadata };
  /** A string field of the line; `absent` stands for a missing one. */
  readonly string: (key: string, absent?: string) => string;
}

async function* readRecords(operation: string, path: string, options: ReadLinesOptions): AsyncGenerator<ReadRecord> {
  const lines = new Map<string, number>();
  for await (const { line, value } of readJsonLines(path, options)) {
    if (!isJsonObject(value))
      throw corrupt(operation, path, line, `should be an object with "_id" and "text", found ${describe(value)}.`);
    const string = (key: string, absent?: string) => {
      const field = value[key] === undefined ? absent : value[key];
      if (typeof field === "string") return field;
      throw corrupt(operation, path, line, `"${key}" should be a string, found ${describe(value[key])}.`);
    };
    const id = string("_id");
    if (id === "") throw corrupt(operation, path, line, '"_id" is empty.');
    const first = lines.get(id);
    if (first !== undefined) throw corrupt(operation, path, line, `the id "${id}" was already on line ${first}.`);
    lines.set(id, line);
    const { metadata } = value;
    if (metadata !== undefined && !isJsonObject(metadata))
      throw corrupt(operation, path, line, `"metadata" should be an object, found ${describe(metadata)}.`);
    yield { record: metadata === undefined ? { id } : { id, metadata: metadata as BeirMetadata }, string };
  }
}

/** The path of the plain file, or that of its gzip form where only that one is there. */
function plainOrGzip(folder: string, name: string): string {
  const plain = join(folder, name);
  return !existsSync(plain) && existsSync(`${plain}.gz`) ? `${plain}.gz` : plain;
}
