/** One pair as a reader gives it, and what is wrong with it. */
import { describe } from "../../model/json-file.js";
import { normalisedText } from "./text-key.js";

/** A query with one text that answers it. A line with several positives gives a record for each. */
export interface PairRecord {
  /** Names the pair in errors and logs; two pairs may share it. @default its position, `#0` and so on */
  readonly id?: string;
  /** Pairs of one data set are batched together and share prompts. @default "default" */
  readonly dataset?: string;
  readonly query: string;
  readonly positive: string;
  /** Hard negatives. @default none */
  readonly negatives?: readonly string[];
  /** Pairs of one group (a contract, a patient, an author) stay on one side of a split. @default none */
  readonly group?: string;
  /** Where it was read, for errors. */
  readonly source?: { readonly path: string; readonly line: number };
}

/** What makes a pair unfit for training. */
export type PairFault =
  | "empty query"
  | "empty positive"
  | "empty negative"
  | "query equals positive"
  | "negative equals positive";

/** A pair's texts as they are compared. */
export interface ComparedTexts {
  readonly query: string;
  readonly positive: string;
  readonly negatives: readonly string[];
}

export function comparedTexts({ query, positive, negatives = [] }: PairRecord): ComparedTexts {
  return {
    query: normalisedText(query),
    positive: normalisedText(positive),
    negatives: negatives.map(normalisedText),
  };
}

/** The first fault of a pair, or undefined. Texts are equal but for case, punctuation and white space. */
export function pairFault({ query, positive, negatives }: ComparedTexts): PairFault | undefined {
  if (query === "") return "empty query";
  if (positive === "") return "empty positive";
  if (query === positive) return "query equals positive";
  if (negatives.includes("")) return "empty negative";
  if (negatives.includes(positive)) return "negative equals positive";
  return undefined;
}

/** What is no record at all, for callers without types: the field and what was found in its place. */
export function shapeFault(record: unknown): string | undefined {
  if (typeof record !== "object" || record === null) return `should be an object, found ${describe(record)}`;
  const { id, dataset, query, positive, negatives, group } = record as Record<string, unknown>;
  for (const [name, value] of Object.entries({ query, positive })) {
    if (typeof value !== "string") return `"${name}" should be a string, found ${describe(value)}`;
  }
  for (const [name, value] of Object.entries({ id, dataset, group })) {
    if (value !== undefined && (typeof value !== "string" || value === "")) {
      return `"${name}" should be a string that isn't empty, found ${describe(value)}`;
    }
  }
  const strings =
    negatives === undefined || (Array.isArray(negatives) && negatives.every((n) => typeof n === "string"));
  return strings ? undefined : `"negatives" should be a list of strings, found ${describe(negatives)}`;
}
