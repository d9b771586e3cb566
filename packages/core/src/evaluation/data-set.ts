/** What is evaluated on: documents, the queries that are judged, and their judgements; from a BEIR folder or made up. */
import { basename, resolve } from "node:path";
import { InvalidInputError } from "../errors.js";
import { createRandom } from "../random.js";
import { type BeirDocument, type BeirQuery, readCorpus, readQrels, readQueries } from "./beir.js";
import type { Qrels } from "./metrics.js";

export interface DataSet {
  readonly name: string;
  /** "dev", "test", ...; for a synthetic set "synthetic". */
  readonly split: string;
  readonly documents: readonly BeirDocument[];
  /** The judged queries, and no others. */
  readonly queries: readonly BeirQuery[];
  /** Of exactly these queries, in their order. */
  readonly qrels: Qrels;
  /** Present where nobody judged: says in a sentence how the queries were made, for whatever shows figures of it. */
  readonly synthetic?: string;
}

export interface ReadDataSetOptions {
  /** @default "test" */
  readonly split?: string;
  /** Evaluates on a random sample of so many queries; the corpus stays whole. @default all */
  readonly maxQueries?: number;
  /** Seed of that sample. @default 0 */
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

/**
 * Reads a BEIR folder into memory. Raises what `readCorpus`, `readQueries` and `readQrels` raise, and InvalidInputError
 * for a judged query that has no text and for a corpus without documents.
 */
export async function readDataSet(folder: string, options: ReadDataSetOptions = {}): Promise<DataSet> {
  const { split = "test", signal } = options;
  const lines = signal ? { signal } : {};
  const judged = await readQrels(folder, split, lines);
  if (judged.size === 0) throw new InvalidInputError(`readDataSet: the split "${split}" of ${folder} judges nothing.`);
  const texts = new Map<string, BeirQuery>();
  for await (const query of readQueries(folder, lines)) if (judged.has(query.id)) texts.set(query.id, query);
  for (const id of judged.keys())
    if (!texts.has(id))
      throw new InvalidInputError(
        `readDataSet: the split "${split}" of ${folder} judges query "${id}", which queries.jsonl lacks.`,
      );
  const documents: BeirDocument[] = [];
  for await (const document of readCorpus(folder, lines)) documents.push(document);
  return dataSetOf({ name: basename(resolve(folder)), split, documents, queries: texts, qrels: judged }, options);
}

interface Parts {
  readonly name: string;
  readonly split: string;
  readonly documents: readonly BeirDocument[];
  readonly queries: ReadonlyMap<string, BeirQuery>;
  readonly qrels: Qrels;
  readonly synthetic?: string;
}

/** The parts with a sample of the queries, where one was asked for. Both keep the order of the judgements. */
export function dataSetOf(
  { name, split, documents, queries, qrels, synthetic }: Parts,
  { maxQueries, seed = 0 }: Pick<ReadDataSetOptions, "maxQueries" | "seed">,
): DataSet {
  if (documents.length === 0) throw new InvalidInputError(`readDataSet: the corpus of ${name} has no documents.`);
  if (maxQueries !== undefined && (!Number.isSafeInteger(maxQueries) || maxQueries < 1))
    throw new InvalidInputError(`readDataSet: maxQueries should be an integer of at least 1, got ${maxQueries}.`);
  const ids = [...qrels.keys()];
  const kept =
    maxQueries === undefined || maxQueries >= ids.length
      ? ids
      : createRandom(seed)
          .sample(ids.length, maxQueries)
          .sort((a, b) => a - b)
          .map((position) => ids[position]!);
  return {
    name,
    split,
    documents,
    queries: kept.map((id) => queries.get(id)!),
    qrels: new Map(kept.map((id) => [id, qrels.get(id)!])),
    ...(synthetic === undefined ? {} : { synthetic }),
  };
}

/** Judged documents that the corpus lacks: they count as relevant and are never found, so every figure is too low. */
export function missingDocuments({ documents, qrels }: Pick<DataSet, "documents" | "qrels">): string[] {
  const known = new Set(documents.map(({ id }) => id));
  const judged = new Set([...qrels.values()].flatMap((judgements) => [...judgements.keys()]));
  return [...judged].filter((id) => !known.has(id));
}

/** @throws InvalidInputError unless exactly the queries are judged: a set made by hand may say otherwise */
export function checkDataSet(operation: string, { name, queries, qrels }: DataSet): void {
  const asked = new Set(queries.map(({ id }) => id));
  if (asked.size !== queries.length)
    throw new InvalidInputError(`${operation}: ${name} has ${queries.length} queries of ${asked.size} different ids.`);
  for (const id of asked)
    if (!qrels.has(id))
      throw new InvalidInputError(`${operation}: query "${id}" of ${name} is not judged. Leave it out.`);
  for (const id of qrels.keys())
    if (!asked.has(id)) throw new InvalidInputError(`${operation}: ${name} judges query "${id}", which has no text.`);
}

/** What is embedded of a document that is not split: its title before its text. */
export function wholeText({ title, text }: Pick<BeirDocument, "title" | "text">): string {
  return title.trim() === "" ? text.trim() : `${title.trim()} ${text}`.trimEnd();
}

/** Scripts that are written without spaces: there a character counts as a word. */
const UNSPACED =
  "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}\\p{Script=Lao}\\p{Script=Khmer}";
const WORDS = new RegExp(`[${UNSPACED}]|[^\\s${UNSPACED}]+`, "gu");

/** Runs of characters that aren't white space, or characters of scripts without spaces: the unit of all lengths here. */
export function countWords(text: string): number {
  return text.match(WORDS)?.length ?? 0;
}
