/** Reads the tasks of MTEB that are plain JSONL files (also `.gz`): labelled texts, pairs with scores, and groups. */

import { describe, isJsonObject, type JsonObject } from "../model/json-file.js";
import type { LabelledText } from "./classification.js";
import { corrupt, type ReadLinesOptions, readJsonLines } from "./lines.js";
import type { ScoredPair } from "./similarity.js";

/**
 * Classification: lines of `{"text", "label"}`, where a label is a string or a number. Raises MissingFileError, and
 * CorruptFileError with the line for anything else.
 */
export async function readLabelledTexts(path: string, options: ReadLinesOptions = {}): Promise<LabelledText[]> {
  const found: LabelledText[] = [];
  for await (const { line, record } of records("readLabelledTexts", path, options)) {
    const { text, label } = record;
    if (typeof text !== "string") throw wrong("readLabelledTexts", path, line, "text", "a string", text);
    found.push({ text, label: labelOf("readLabelledTexts", path, line, "label", label) });
  }
  return found;
}

/** Pair similarity: lines of `{"sentence1", "sentence2", "score"}` with any finite score. Errors as `readLabelledTexts`. */
export async function readScoredPairs(path: string, options: ReadLinesOptions = {}): Promise<ScoredPair[]> {
  const found: ScoredPair[] = [];
  for await (const { line, record } of records("readScoredPairs", path, options)) {
    const { sentence1, sentence2, score } = record;
    if (typeof sentence1 !== "string") throw wrong("readScoredPairs", path, line, "sentence1", "a string", sentence1);
    if (typeof sentence2 !== "string") throw wrong("readScoredPairs", path, line, "sentence2", "a string", sentence2);
    if (typeof score !== "number" || !Number.isFinite(score))
      throw wrong("readScoredPairs", path, line, "score", "a finite number", score);
    found.push({ sentence1, sentence2, score });
  }
  return found;
}

/**
 * Clustering: every line is a group to be clustered by itself, `{"sentences": [...], "labels": [...]}`, as many labels
 * as sentences. Errors as `readLabelledTexts`.
 */
export async function readClusteringSets(path: string, options: ReadLinesOptions = {}): Promise<LabelledText[][]> {
  const found: LabelledText[][] = [];
  for await (const { line, record } of records("readClusteringSets", path, options)) {
    const { sentences, labels } = record;
    if (!Array.isArray(sentences)) throw wrong("readClusteringSets", path, line, "sentences", "a list", sentences);
    if (!Array.isArray(labels) || labels.length !== sentences.length)
      throw wrong("readClusteringSets", path, line, "labels", `a list of ${sentences.length} labels`, labels);
    found.push(
      sentences.map((text: unknown, i) => {
        if (typeof text !== "string")
          throw wrong("readClusteringSets", path, line, `sentences[${i}]`, "a string", text);
        return { text, label: labelOf("readClusteringSets", path, line, `labels[${i}]`, labels[i]) };
      }),
    );
  }
  return found;
}

async function* records(
  operation: string,
  path: string,
  options: ReadLinesOptions,
): AsyncGenerator<{ readonly line: number; readonly record: JsonObject }> {
  for await (const { line, value } of readJsonLines(path, options)) {
    if (!isJsonObject(value)) throw corrupt(operation, path, line, `should be an object, found ${describe(value)}.`);
    yield { line, record: value };
  }
}

/** 1 and "1" are the same label: files of one task differ in how they write it. */
function labelOf(operation: string, path: string, line: number, name: string, label: unknown): string {
  if (typeof label === "string" || (typeof label === "number" && Number.isFinite(label))) return String(label);
  throw wrong(operation, path, line, name, "a string or a number", label);
}

function wrong(operation: string, path: string, line: number, name: string, expected: string, found: unknown) {
  return corrupt(operation, path, line, `"${name}" should be ${expected}, found ${describe(found)}.`);
}
