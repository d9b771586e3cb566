/** Pairs from JSONL: one object a line with `query`, `positive` or `positives`, and what else it may have. */
import { corrupt, type ReadLinesOptions, readJsonLines } from "../../evaluation/lines.js";
import { describe, isJsonObject, type JsonObject } from "../../model/json-file.js";
import type { PairRecord } from "./pair-record.js";

const OPERATION = "readPairsJsonl";
const FIELDS = new Set(["query", "positive", "positives", "negatives", "id", "dataset", "group"]);
/** Names that other tools use, and ours for them. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  anchor: "query",
  question: "query",
  document: "positive",
  passage: "positive",
  answer: "positive",
  pos: "positives",
  neg: "negatives",
  negative: "negatives",
  _id: "id",
};

export interface ReadPairsOptions extends ReadLinesOptions {
  /** Data set of lines that name none. @default "default" */
  readonly dataset?: string;
}

/**
 * The pairs of a JSONL file, plain or `.gz`, in bounded memory. A line is `{ query, positive | positives, negatives?,
 * id?, dataset?, group? }`; one with several positives gives a pair for each, whose ids end in `/1`, `/2` and so on.
 * Whether a pair is fit for training is for `createPairSet` to say.
 *
 * @throws MissingFileError; CorruptFileError with the line for what is no such object, and for a field of any other
 * name: a field that is overlooked is a data set that is misunderstood
 */
export async function* readPairsJsonl(
  path: string,
  options: ReadPairsOptions = {},
): AsyncGenerator<PairRecord, void, undefined> {
  for await (const { line, value } of readJsonLines(path, options)) {
    if (!isJsonObject(value)) {
      throw corrupt(
        OPERATION,
        path,
        line,
        `should be an object with "query" and "positive", found ${describe(value)}.`,
      );
    }
    const fail = (problem: string): never => {
      throw corrupt(OPERATION, path, line, problem);
    };
    const positives = checkLine(value, fail);
    const { id = `${line}`, dataset = options.dataset, query, negatives, group } = value as JsonObject & PairRecord;
    for (const [i, positive] of positives.entries()) {
      yield {
        id: positives.length === 1 ? id : `${id}/${i + 1}`,
        ...(dataset !== undefined && { dataset }),
        query,
        positive,
        ...(negatives !== undefined && { negatives }),
        ...(group !== undefined && { group }),
        source: { path, line },
      };
    }
  }
}

/** Refuses a line with wrong fields; its positives. */
function checkLine(value: JsonObject, fail: (problem: string) => never): readonly string[] {
  for (const key of Object.keys(value)) {
    if (FIELDS.has(key)) continue;
    const ours = OTHER_NAMES[key];
    const help = ours === undefined ? `There are ${[...FIELDS].join(", ")}.` : `Call it "${ours}".`;
    fail(`has an unknown field ${describe(key)}. ${help}`);
  }
  const { query, positive, positives, negatives } = value;
  if (typeof query !== "string") fail(`"query" should be a string, found ${describe(query)}.`);
  for (const key of ["id", "dataset", "group"]) {
    const field = value[key];
    if (field !== undefined && (typeof field !== "string" || field === "")) {
      fail(`"${key}" should be a string that isn't empty, found ${describe(field)}.`);
    }
  }
  if (negatives !== undefined && !isStrings(negatives)) {
    fail(`"negatives" should be a list of strings, found ${describe(negatives)}.`);
  }
  if (positive !== undefined && positives !== undefined) fail('has both "positive" and "positives"; give one of them.');
  if (positives === undefined) {
    if (typeof positive !== "string") fail(`"positive" should be a string, found ${describe(positive)}.`);
    return [positive as string];
  }
  if (!isStrings(positives) || positives.length === 0) {
    fail(`"positives" should be a list of at least one string, found ${describe(positives)}.`);
  }
  return positives as string[];
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === "string");
}
