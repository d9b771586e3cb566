/** JSON files of a model directory, read with errors that say which file and what is wrong with it. */
import { readFile } from "node:fs/promises";
import { CdeError, CorruptFileError, MissingFileError, ModelError } from "../errors.js";

export type JsonObject = Readonly<Record<string, unknown>>;

const LFS_MARK = "version https://git-lfs.github.com/spec/";

/** Whether a file's first bytes are those of a Git-LFS pointer, which stands where the real file should be. */
export function isLfsPointer(head: Uint8Array): boolean {
  return Buffer.from(head.buffer, head.byteOffset, Math.min(head.length, LFS_MARK.length)).toString() === LFS_MARK;
}

export function lfsPointerError(operation: string, path: string): CorruptFileError {
  return new CorruptFileError(
    path,
    `${operation}: ${path} is a Git-LFS pointer, not the file itself. Run "git lfs pull" in its repository, or download the file again.`,
  );
}

/** The typed error for a file that can't be read; errors of our own pass through. */
export function unreadable(operation: string, path: string, cause: unknown): CdeError {
  if (cause instanceof CdeError) return cause;
  if ((cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT")
    return new MissingFileError(path, `${operation}: there is no file ${path}.`, { cause });
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new CorruptFileError(path, `${operation}: can't read ${path}: ${reason}`, { cause });
}

/** Parses UTF-8 JSON and refuses repeated keys, of which JSON.parse would keep the last in silence. */
export function parseJson(operation: string, path: string, bytes: Uint8Array): unknown {
  if (isLfsPointer(bytes)) throw lfsPointerError(operation, path);
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new CorruptFileError(path, `${operation}: ${path} isn't JSON: ${reason}`, { cause });
  }
  const repeated = firstRepeatedKey(text);
  if (repeated !== undefined)
    throw new CorruptFileError(path, `${operation}: ${path} has the key ${describe(repeated)} twice.`);
  return value;
}

export async function readJson(operation: string, path: string): Promise<unknown> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw unreadable(operation, path, cause);
  }
  return parseJson(operation, path, bytes);
}

export async function readJsonObject(operation: string, path: string): Promise<JsonObject> {
  const value = await readJson(operation, path);
  if (!isJsonObject(value))
    throw new CorruptFileError(path, `${operation}: ${path} should hold an object, found ${describe(value)}.`);
  return value;
}

/** The object, or undefined where there is no such file. */
export async function readOptionalJsonObject(operation: string, path: string): Promise<JsonObject | undefined> {
  try {
    return await readJsonObject(operation, path);
  } catch (error) {
    if (error instanceof MissingFileError) return undefined;
    throw error;
  }
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as an error message shows it: short, whatever its size or depth. */
export function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (isJsonObject(value)) return "an object";
  if (!Array.isArray(value)) return clip(JSON.stringify(value) ?? typeof value);
  const entries = value.slice(0, 12).map((entry) => (typeof entry === "object" ? "…" : clip(JSON.stringify(entry))));
  return `[${entries.join(", ")}${value.length > 12 ? ", …" : ""}]`;
}

function clip(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** Typed access to one configuration object; every refusal names the file, the key and the value found. */
export class JsonFields {
  readonly #operation: string;
  readonly #path: string;
  readonly #object: JsonObject;

  constructor(operation: string, path: string, object: JsonObject) {
    this.#operation = operation;
    this.#path = path;
    this.#object = object;
  }

  /** An integer of at least `minimum`. @default minimum 1 */
  integer(key: string, minimum = 1): number {
    const value = this.#object[key];
    if (!Number.isSafeInteger(value) || (value as number) < minimum)
      throw this.#error(key, minimum === 1 ? "a positive integer" : `an integer of at least ${minimum}`);
    return value as number;
  }

  /** A finite number above 0. */
  positive(key: string): number {
    const value = this.#object[key];
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) throw this.#error(key, "a positive number");
    return value;
  }

  string(key: string): string {
    const value = this.#object[key];
    if (typeof value !== "string") throw this.#error(key, "a string");
    return value;
  }

  /** Refuses every value of `key` but those given; an absent key and null count as the first of them. */
  only<T extends string | number | boolean | null>(key: string, ...supported: [T, ...T[]]): T {
    const value = this.#object[key] ?? supported[0];
    if (supported.includes(value as T)) return value as T;
    throw new ModelError(
      `${this.#operation}: ${this.#path} has "${key}": ${describe(value)}; this version supports ${supported.map((entry) => JSON.stringify(entry)).join(", ")}.`,
    );
  }

  #error(key: string, wanted: string): CorruptFileError {
    const found = describe(this.#object[key]);
    return new CorruptFileError(
      this.#path,
      `${this.#operation}: ${this.#path}: "${key}" should be ${wanted}, found ${found}.`,
    );
  }
}

/** Finds a key written twice in one object of a valid JSON text. */
function firstRepeatedKey(text: string): string | undefined {
  const scopes: Set<string>[] = [];
  let start = 0;
  let end = 0;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '"') {
      start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
      end = i + 1;
    } else if (char === "{") scopes.push(new Set());
    else if (char === "}") scopes.pop();
    else if (char === ":") {
      const key = JSON.parse(text.slice(start, end)) as string;
      const keys = scopes.at(-1)!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}
