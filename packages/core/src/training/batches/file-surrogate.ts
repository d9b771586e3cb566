/** A surrogate whose vectors were made elsewhere: a safetensors matrix, and the texts of its rows. */
import { type FileHandle, open } from "node:fs/promises";
import { toUnitVector } from "../../context/remap.js";
import { CorruptFileError, InvalidInputError } from "../../errors.js";
import { corrupt, readJsonLines } from "../../evaluation/lines.js";
import { sha256Hex } from "../../model/digest.js";
import { describe, isJsonObject } from "../../model/json-file.js";
import { openSafetensors } from "../../model/safetensors.js";
import { KeyTable } from "../data/key-table.js";
import { rowKey } from "./row-key.js";
import type { Surrogate } from "./surrogate.js";

export interface FileSurrogateOptions {
  /** A safetensors file with a float32 tensor [texts, dimensions]. */
  readonly vectors: string;
  /** JSONL, a line a row: the text as a string, or `{ "text": … }`. */
  readonly texts: string;
  /** @default "vectors" */
  readonly tensor?: string;
  readonly signal?: AbortSignal;
}

/** Rows are read as they are asked for; 24 bytes a text are kept in memory. Close it after its last use. */
export interface FileSurrogate extends Surrogate, AsyncDisposable {
  readonly dimensions: number;
  readonly texts: number;
  close(): Promise<void>;
}

/**
 * Opens vectors from a file. A text has one vector, as a query and as a document; of a text that comes twice the first
 * row counts.
 *
 * @throws MissingFileError, CorruptFileError; ModelError for another tensor or type; InvalidInputError where the file
 * has no vector for a text that is asked for
 */
export async function openFileSurrogate(options: FileSurrogateOptions): Promise<FileSurrogate> {
  const { vectors: path, texts: textsPath, tensor = "vectors", signal } = options;
  const operation = "openFileSurrogate";
  const weights = await openSafetensors(path);
  let place: { start: number; rows: number; dimensions: number; digest: string };
  try {
    const info = weights.tensors.get(tensor);
    const [rows = 0, dimensions = 0] = info?.shape ?? [];
    if (info?.dtype !== "F32" || info.shape.length !== 2 || rows === 0 || dimensions === 0) {
      const found = info ? `${info.dtype} [${info.shape}]` : `none, only ${[...weights.tensors.keys()].join(", ")}`;
      throw new CorruptFileError(
        path,
        `${operation}: ${path}: "${tensor}" should be F32 [texts, dimensions], found ${found}.`,
      );
    }
    place = { start: weights.place(tensor).start, rows, dimensions, digest: await weights.digest() };
  } finally {
    await weights.close();
  }
  const { start, rows, dimensions, digest } = place;
  const table = new KeyTable();
  const rowOf: number[] = [];
  let row = 0;
  for await (const { line, value } of readJsonLines(textsPath, signal ? { signal } : {})) {
    const text = isJsonObject(value) ? value.text : value;
    if (typeof text !== "string") {
      throw corrupt(
        operation,
        textsPath,
        line,
        `should be a string or an object with "text", found ${describe(value)}.`,
      );
    }
    const { first, second } = rowKey(text);
    if (table.find(first, second) < 0) {
      table.push(first, second);
      rowOf.push(row);
    }
    row++;
  }
  if (row !== rows) {
    throw new CorruptFileError(textsPath, `${operation}: ${textsPath} has ${row} texts, ${path} has ${rows} vectors.`);
  }
  const file = await open(path, "r");
  return {
    name: path,
    // The texts decide which row is whose.
    digest: sha256Hex(`surrogate file\n${digest}\n${tensor}\n${sha256Hex(new Uint8Array(table.first.slice().buffer))}`),
    stored: true,
    dimensions,
    texts: rows,
    async embed(texts) {
      const found: Float32Array[] = [];
      for (const [position, text] of texts.entries()) {
        const { first, second } = rowKey(text);
        const at = table.find(first, second);
        if (at < 0) {
          const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
          throw new InvalidInputError(`surrogate: ${textsPath} has no vector for ${shown} (position ${position}).`, {
            position,
          });
        }
        const bytes = await readRow(file, path, start + 4 * dimensions * rowOf[at]!, 4 * dimensions);
        const values = new Float32Array(bytes.buffer, bytes.byteOffset, dimensions);
        found.push(toUnitVector("surrogate", values, dimensions, rowOf[at]!));
      }
      return found;
    },
    close: () => file.close(),
    [Symbol.asyncDispose]: () => file.close(),
  };
}

async function readRow(file: FileHandle, path: string, start: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const { bytesRead } = await file.read(bytes, 0, length, start);
  if (bytesRead !== length) throw new CorruptFileError(path, `surrogate: ${path} ended while it was read.`);
  return bytes;
}
