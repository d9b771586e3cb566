/** Pairs from a folder in BEIR's layout: every judged query with each document that is relevant to it. */
import { basename } from "node:path";
import { CorruptFileError, InvalidInputError } from "../../errors.js";
import { type BeirDocument, listSplits, readCorpus, readQrels, readQueries } from "../../evaluation/beir.js";
import type { ReadLinesOptions } from "../../evaluation/lines.js";
import type { PairRecord } from "./pair-record.js";

const OPERATION = "readPairsBeir";

export interface ReadBeirOptions extends ReadLinesOptions {
  /** Which judgements; `"all"` reads every split that is there. @default "train" */
  readonly splits?: readonly string[] | "all";
  /** Lowest grade that makes a document a positive. @default 1 */
  readonly leastGrade?: number;
  /**
   * Documents judged below `leastGrade` become the query's hard negatives. @default false: in most sets they are
   * unjudged rather than irrelevant
   */
  readonly judgedNegatives?: boolean;
  /** A document's text as it is embedded. @default title and text with a space between; the text where there is no title */
  readonly text?: (document: BeirDocument) => string;
  /** @default the folder's name */
  readonly dataset?: string;
}

/**
 * The pairs of one or more splits, query by query. Graded judgements: every document of `leastGrade` or more gives a
 * pair, the best ones first. Holds the judged documents in memory, not the corpus.
 *
 * @throws MissingFileError (with the splits there are), CorruptFileError with the line, also for a judgement whose
 * query or document isn't there; InvalidInputError for a query that two of the splits judge
 */
export async function* readPairsBeir(
  folder: string,
  options: ReadBeirOptions = {},
): AsyncGenerator<PairRecord, void, undefined> {
  const { splits = ["train"], leastGrade = 1, judgedNegatives = false, text = titleAndText, signal } = options;
  const dataset = options.dataset ?? basename(folder);
  if (!Number.isInteger(leastGrade) || leastGrade < 1) {
    throw new InvalidInputError(`${OPERATION}: leastGrade must be an integer of at least 1, got ${leastGrade}.`);
  }
  const names = splits === "all" ? await listSplits(folder) : splits;
  const judged = new Map<string, ReadonlyMap<string, number>>();
  const wanted = new Map<string, string>();
  for (const split of names) {
    for (const [query, grades] of await readQrels(folder, split, options)) {
      if (judged.has(query)) {
        throw new InvalidInputError(
          `${OPERATION}: ${folder}: two of the splits ${names.join(", ")} judge the query "${query}".`,
        );
      }
      judged.set(query, grades);
      for (const [document, grade] of grades) if (grade >= leastGrade || judgedNegatives) wanted.set(document, "");
    }
  }
  let found = 0;
  for await (const document of readCorpus(folder, options)) {
    if (!wanted.has(document.id)) continue;
    wanted.set(document.id, text(document));
    found++;
  }
  if (found < wanted.size) {
    const ids = new Set(wanted.keys());
    for await (const { id } of readCorpus(folder, options)) ids.delete(id);
    throw missing(folder, "document", ids);
  }
  const left = new Set(judged.keys());
  for await (const query of readQueries(folder, options)) {
    const grades = judged.get(query.id);
    if (grades === undefined) continue;
    signal?.throwIfAborted();
    left.delete(query.id);
    const best = [...grades].filter(([, grade]) => grade >= leastGrade).sort((a, b) => b[1] - a[1]);
    const others = judgedNegatives ? [...grades].filter(([, grade]) => grade < leastGrade) : [];
    const negatives = others.map(([id]) => wanted.get(id)!);
    for (const [id] of best) {
      yield {
        id: `${query.id}/${id}`,
        dataset,
        query: query.text,
        positive: wanted.get(id)!,
        ...(negatives.length > 0 && { negatives }),
      };
    }
  }
  if (left.size > 0) throw missing(folder, "query", left);
}

function missing(folder: string, what: string, ids: ReadonlySet<string>): CorruptFileError {
  const [first] = ids;
  return new CorruptFileError(
    folder,
    `${OPERATION}: ${folder}: the judgements name ${ids.size} ${what} id${ids.size === 1 ? "" : "s"} that aren't there, such as "${first}".`,
  );
}

function titleAndText({ title, text }: BeirDocument): string {
  return title.trim() === "" ? text : `${title.trim()} ${text}`;
}
