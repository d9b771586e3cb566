/** Streams the lines of text files, plain or gzip, and says in every error which line it was. */
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { CdeError, CorruptFileError, InvalidInputError, MissingFileError } from "../errors.js";

export interface ReadLinesOptions {
  /** Longest line in bytes, its end not counted; bounds the memory taken. @default 64 MiB */
  readonly maxLineBytes?: number;
  /** Stops reading; the iteration rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** One line's content and its number from 1. */
export interface Line<T> {
  readonly line: number;
  readonly value: T;
}

/**
 * The JSON values of a JSONL file, gzip by the suffix `.gz`, in bounded memory. Blank lines are passed over, the byte
 * order mark of the first line too. Raises MissingFileError, and CorruptFileError with the line for a line that isn't
 * UTF-8 or JSON or is longer than `maxLineBytes`, and for a gzip stream that is cut or damaged.
 */
export async function* readJsonLines(path: string, options: ReadLinesOptions = {}): AsyncGenerator<Line<unknown>> {
  for await (const { line, value } of readLines("readJsonLines", path, options)) {
    let parsed: unknown;
    try {
      parsed = JSON.parse(value);
    } catch (cause) {
      throw corrupt("readJsonLines", path, line, `isn't JSON: ${(cause as Error).message}`, cause);
    }
    yield { line, value: parsed };
  }
}

/** The lines that hold more than white space, without their ends; `operation` opens the messages of errors. */
export async function* readLines(
  operation: string,
  path: string,
  { maxLineBytes = 64 * 2 ** 20, signal }: ReadLinesOptions = {},
): AsyncGenerator<Line<string>> {
  if (!Number.isSafeInteger(maxLineBytes) || maxLineBytes < 1)
    throw new InvalidInputError(`${operation}: maxLineBytes should be a positive integer, got ${maxLineBytes}.`);
  signal?.throwIfAborted();
  let line = 0;
  try {
    for await (const bytes of splitLines(openBytes(path, signal), maxLineBytes, signal)) {
      line++;
      if (bytes === "too long")
        throw corrupt(
          operation,
          path,
          line,
          `is longer than ${maxLineBytes} bytes. Raise maxLineBytes if it is right.`,
        );
      const value = decode(bytes, operation, path, line);
      if (value.trim() !== "") yield { line, value };
    }
  } catch (cause) {
    if (cause instanceof CdeError) throw cause;
    signal?.throwIfAborted();
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new MissingFileError(path, `${operation}: there is no file ${path}.`, { cause });
    throw corrupt(operation, path, line + 1, `can't be read: ${message}`, cause);
  }
}

export function corrupt(
  operation: string,
  path: string,
  line: number,
  problem: string,
  cause?: unknown,
): CorruptFileError {
  return new CorruptFileError(path, `${operation}: ${path}, line ${line}: ${problem}`, { cause, line });
}

/** @internal The bytes of a file, unpacked where its name ends in `.gz`. */
export function openBytes(path: string, signal: AbortSignal | undefined): AsyncIterable<Buffer> {
  const file = createReadStream(path, { signal, highWaterMark: 1 << 18 });
  // The callback is needed, and idle: the error also ends the iteration of the stream returned.
  return path.endsWith(".gz") ? pipeline(file, createGunzip({ chunkSize: 1 << 18 }), () => {}) : file;
}

async function* splitLines(
  chunks: AsyncIterable<Buffer>,
  maxLineBytes: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer | "too long"> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    signal?.throwIfAborted();
    for (let start = 0; start < chunk.length; ) {
      const end = chunk.indexOf(0x0a, start);
      const part = chunk.subarray(start, end === -1 ? chunk.length : end);
      length += part.length;
      if (length > maxLineBytes) yield "too long";
      parts.push(part);
      if (end === -1) break;
      yield parts.length === 1 ? part : Buffer.concat(parts, length);
      parts = [];
      length = 0;
      start = end + 1;
    }
  }
  if (length > 0) yield Buffer.concat(parts, length);
}

// One that keeps byte order marks: inside a file they are characters.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: Buffer, operation: string, path: string, line: number): string {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch (cause) {
    throw corrupt(operation, path, line, "isn't UTF-8.", cause);
  }
  if (line === 1 && text.startsWith("\uFEFF")) text = text.slice(1);
  return text.endsWith("\r") ? text.slice(0, -1) : text;
}
