/** Writes judgements as BEIR's qrels, and reads and writes runs as the JSON that BEIR's evaluation takes. */
import { readFile } from "node:fs/promises";
import { CorruptFileError, InvalidInputError } from "../errors.js";
import { describe, isJsonObject, parseJson, unreadable } from "../model/json-file.js";
import { type Qrels, type Run, rankDocuments } from "./metrics.js";
import { writeLines } from "./write-lines.js";

/** Judgements as `qrels/<split>.tsv`, for `readQrels`. Raises InvalidInputError for an id with a tab or line break. */
export async function writeBeirQrels(path: string, qrels: Qrels): Promise<void> {
  const field = (what: string, value: string) => {
    if (value.trim() === value && value !== "" && !/[\t\r\n]/.test(value)) return value;
    throw new InvalidInputError(
      `writeBeirQrels: ${what} is ${JSON.stringify(value)}; tabs part the fields, and space around them is not kept. Map it to another id.`,
    );
  };
  await writeLines("writeBeirQrels", path, function* () {
    yield "query-id\tcorpus-id\tscore\n";
    for (const [query, judgements] of qrels)
      for (const [document, judgement] of judgements) {
        if (!Number.isSafeInteger(judgement))
          throw new InvalidInputError(
            `writeBeirQrels: query "${query}" judges document "${document}" as ${judgement}; judgements are integers.`,
          );
        yield `${field("a query id", query)}\t${field("a document id", document)}\t${judgement}\n`;
      }
  });
}

/** A run as one JSON object, query → document → score. A ranked list of n gets the scores n, n - 1, ..., 1. */
export async function writeBeirRun(path: string, run: Run): Promise<void> {
  await writeLines("writeBeirRun", path, function* () {
    yield "{";
    let first = true;
    for (const [query, results] of run) {
      const ids = rankDocuments(query, results);
      const entries = ids.map((id, i) => {
        const score = results instanceof Map ? (results.get(id) as number) : ids.length - i;
        if (Number.isFinite(score)) return `${JSON.stringify(id)}:${score}`;
        throw new InvalidInputError(
          `writeBeirRun: query "${query}", document "${id}": the score ${score} isn't finite.`,
        );
      });
      yield `${first ? "" : ","}\n${JSON.stringify(query)}:{${entries.join(",")}}`;
      first = false;
    }
    yield "\n}\n";
  });
}

/** Reads such a run. Raises MissingFileError, and CorruptFileError for what isn't one. */
export async function readBeirRun(path: string): Promise<Map<string, Map<string, number>>> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw unreadable("readBeirRun", path, cause);
  }
  const value = parseJson("readBeirRun", path, bytes);
  const fail = (what: string): never => {
    throw new CorruptFileError(path, `readBeirRun: ${path} ${what}`);
  };
  if (!isJsonObject(value)) return fail(`should be an object of queries, found ${describe(value)}.`);
  return new Map(
    Object.entries(value).map(([query, results]) => {
      if (!isJsonObject(results)) return fail(`gives query ${JSON.stringify(query)} ${describe(results)}, no object.`);
      const scores = Object.entries(results).map(([id, score]): [string, number] => {
        if (typeof score === "number" && Number.isFinite(score)) return [id, score];
        return fail(`gives document ${JSON.stringify(id)} of query ${JSON.stringify(query)} ${describe(score)}.`);
      });
      return [query, new Map(scores)];
    }),
  );
}
