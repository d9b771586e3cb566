/** Payload paths (`a.b`, `a[].b`, `a[0]`, `"quoted key"`) and the values they reach. */
import { InvalidFilterError } from "./types.js";

/** A key of an object, an index of an array, or every element of an array. */
type Step = string | number | "[]"[];

export type PayloadPath = readonly Step[];

const EVERY: Step = ["[]"];
const STEP = /\.?(?:"(?<quoted>[^"\\]+)"|(?<plain>[\p{L}\p{N}_-]+))|\[(?<index>\d*)\]/uy;

/** Parses a payload path. `where` names the place in the filter. @throws InvalidFilterError */
export function parsePath(key: unknown, where: string): PayloadPath {
  if (typeof key !== "string")
    throw new InvalidFilterError(where, `must be a payload path (a string), got ${describe(key)}.`);
  const steps: Step[] = [];
  let at = 0;
  while (at < key.length) {
    STEP.lastIndex = at;
    const found = STEP.exec(key);
    // A dot belongs between two steps: not before the first key, and never left out between keys.
    const dotted = key[at] === ".";
    const isKey = found?.groups?.index === undefined;
    if (found === null || (isKey && dotted !== steps.length > 0) || (!isKey && steps.length === 0)) {
      throw new InvalidFilterError(
        where,
        `is no payload path: ${JSON.stringify(key)}. Write a.b, a[].b or a[0]; quote keys that hold anything but letters, digits, _ and -, as in "\\"a key\\".b".`,
      );
    }
    const { quoted, plain, index } = found.groups as { quoted?: string; plain?: string; index?: string };
    steps.push(quoted ?? plain ?? (index === "" ? EVERY : Number(index)));
    at = STEP.lastIndex;
  }
  if (steps.length === 0) throw new InvalidFilterError(where, "is an empty payload path.");
  return steps;
}

/** The path of the elements of the array at `path`: `a.b` and `a.b[]` are the same to a nested filter. */
export function elementsOf(path: PayloadPath): PayloadPath {
  return path.at(-1) === EVERY ? path : [...path, EVERY];
}

/** The values at a path, arrays not flattened; none where a step is missing or of another kind. */
export function valuesAt(payload: unknown, path: PayloadPath): unknown[] {
  const values: unknown[] = [];
  collect(payload, path, 0, values);
  return values;
}

function collect(value: unknown, path: PayloadPath, depth: number, into: unknown[]): void {
  const step = path[depth];
  if (step === undefined) into.push(value);
  else if (typeof step === "string") {
    if (isObject(value) && Object.hasOwn(value, step) && value[step] !== undefined) {
      collect(value[step], path, depth + 1, into);
    }
  } else if (Array.isArray(value)) {
    if (typeof step === "number") {
      if (step < value.length) collect(value[step], path, depth + 1, into);
    } else for (const element of value) collect(element, path, depth + 1, into);
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as an error message shows it: short, and never throwing. */
export function describe(value: unknown): string {
  if (value === null || typeof value === "boolean" || typeof value === "number") return String(value);
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  return Array.isArray(value) ? `an array of ${value.length}` : typeof value === "object" ? "an object" : typeof value;
}
