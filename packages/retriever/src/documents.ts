/** What an index holds: documents with string ids, a text, an optional title and JSON metadata. */
import { InvalidInputError } from "@cde-js/core";

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

export interface CorpusDocument {
  /** Unique in its corpus, any Unicode, not empty, at most 4,096 UTF-16 units. */
  readonly id: string;
  readonly text: string;
  /** Embedded before every passage of the text. */
  readonly title?: string;
  readonly metadata?: JsonObject;
}

const MAX_ID = 4096;
/** Levels of metadata; deeper values would exhaust the stack of whatever reads them. */
const MAX_DEPTH = 64;

/**
 * `value` as a document, copied so that later changes by the caller don't reach the index.
 *
 * @throws InvalidInputError naming `operation`, the position and what is wrong.
 */
export function checkDocument(value: unknown, position: number, operation: string): CorpusDocument {
  const fail = (what: string): never => {
    throw new InvalidInputError(`${operation}: the document at position ${position} ${what}.`, { position });
  };
  if (typeof value !== "object" || value === null) return fail(`is ${describe(value)}, expected { id, text }`);
  const { id, text, title, metadata } = value as Record<string, unknown>;
  const idFault = wellFormedFault(id);
  if (idFault) return fail(`has an id that ${idFault}`);
  if (id === "") return fail("has an empty id");
  if ((id as string).length > MAX_ID)
    fail(`has an id of ${(id as string).length} units, at most ${MAX_ID} are allowed`);
  const name = JSON.stringify(id);
  const textFault = wellFormedFault(text);
  if (textFault) return fail(`(id ${name}) has a text that ${textFault}`);
  const titleFault = title === undefined ? undefined : wellFormedFault(title);
  if (titleFault) return fail(`(id ${name}) has a title that ${titleFault}`);
  if (metadata !== undefined) {
    if (!isPlainObject(metadata))
      return fail(`(id ${name}) has metadata that is ${describe(metadata)}, expected an object`);
    const fault = jsonFault(metadata, "metadata", 0);
    if (fault) return fail(`(id ${name}) has metadata that JSON can't carry: ${fault}`);
  }
  return {
    id: id as string,
    text: text as string,
    ...(title === undefined ? {} : { title: title as string }),
    ...(metadata === undefined ? {} : { metadata: JSON.parse(JSON.stringify(metadata)) as JsonObject }),
  };
}

/** `metadata` as an object of JSON, copied. @throws InvalidInputError naming `operation` */
export function checkMetadata(metadata: unknown, operation: string): JsonObject {
  const fault = isPlainObject(metadata)
    ? jsonFault(metadata, "metadata", 0)
    : `it is ${describe(metadata)}, expected an object`;
  if (fault) throw new InvalidInputError(`${operation}: metadata that JSON can't carry: ${fault}.`);
  return JSON.parse(JSON.stringify(metadata)) as JsonObject;
}

/** Why `value` isn't a text that can be stored and read back, or undefined. */
export function wellFormedFault(value: unknown): string | undefined {
  if (typeof value !== "string") return `is ${describe(value)}, expected a string`;
  if (/\p{Surrogate}/u.test(value)) {
    const at = value.search(/\p{Surrogate}/u);
    return `has a lone surrogate at ${at}; it can't be written as UTF-8`;
  }
  return undefined;
}

function jsonFault(value: unknown, path: string, depth: number): string | undefined {
  if (depth > MAX_DEPTH) return `${path.slice(0, 80)}… is nested deeper than ${MAX_DEPTH} levels (or in a circle)`;
  if (typeof value === "number") {
    return Number.isFinite(value) ? undefined : `${path} is ${value}`;
  }
  if (typeof value === "string") {
    const fault = wellFormedFault(value);
    return fault && `${path} ${fault}`;
  }
  if (value === null || typeof value === "boolean") return undefined;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const fault = jsonFault(value[i], `${path}[${i}]`, depth + 1);
      if (fault) return fault;
    }
    return undefined;
  }
  if (!isPlainObject(value)) return `${path} is ${describe(value)}`;
  for (const [key, entry] of Object.entries(value)) {
    if (wellFormedFault(key)) return `${path} has a key with a lone surrogate`;
    const fault = jsonFault(entry, `${path}.${key}`, depth + 1);
    if (fault) return fault;
  }
  return undefined;
}

/** An object literal: no class instance (a Date becomes a string in JSON, a Map an empty object), no `toJSON`. */
function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype = Object.getPrototypeOf(value) as object | null;
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return `a ${value.constructor?.name ?? "object"}`;
  return `a ${typeof value}`;
}
