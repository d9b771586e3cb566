/**
 * Holds a value against a JSON Schema: the keywords that our published schemas use, and no others. Where a value can be
 * one of several things, the problem named is that of the one it was meant to be.
 */

/** A schema, or a part of one. */
export interface Schema {
  readonly title?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly type?: Type | readonly Type[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly oneOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: false | Schema;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly uniqueItems?: boolean;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
}

type Type = "object" | "array" | "string" | "number" | "integer" | "boolean" | "null";

/** Everything wrong with `value`, each with its path, what is there and what should be; empty where it fits. */
export function problemsOf(schema: Schema, value: unknown): string[] {
  return check(schema, value, "", schema);
}

/** `whole`: where to look for an option that is misplaced; undefined where only the number of problems is asked for. */
function check(schema: Schema, value: unknown, path: string, whole: Schema | undefined): string[] {
  const at = path === "" ? "the file" : path;
  const should = (what: string) => [`${at} should be ${what}, got ${shown(value)}`];
  if ("const" in schema && value !== schema.const) return should(JSON.stringify(schema.const));
  if (schema.enum && !schema.enum.includes(value)) return should(describe(schema));
  if (schema.oneOf) return checkOneOf(schema, value, path, whole);
  if (schema.type !== undefined && !typesOf(schema).some((type) => isOfType(value, type))) {
    return should(describe(schema));
  }
  if (typeof value === "number" && !inRange(schema, value)) return should(describe(schema));
  if (typeof value === "string") {
    const { minLength = 0, maxLength = Number.POSITIVE_INFINITY } = schema;
    if (value.length < minLength || value.length > maxLength) {
      return should(maxLength === 1 ? "one character" : "a text that isn't empty");
    }
  }
  if (Array.isArray(value)) return checkList(schema, value, path, whole);
  if (isObject(value)) return checkObject(schema, value, path, whole);
  return [];
}

/** The branch that the value was meant for is the one of its type and with its required keys. */
function checkOneOf(schema: Schema, value: unknown, path: string, whole: Schema | undefined): string[] {
  const branches = schema.oneOf!;
  const fitting = branches.filter((branch) => check(branch, value, path, undefined).length === 0);
  if (fitting.length === 1) return [];
  const at = path === "" ? "the file" : path;
  const meant = branches.filter((branch) => isMeant(branch, value));
  if (meant.length === 1) return check(meant[0]!, value, path, whole);
  if (meant.length > 1) {
    const keys = meant.flatMap(({ required = [] }) => required);
    return [`${at} has ${keys.join(" and ")}, which exclude each other; give one`];
  }
  const objects = branches.filter(({ type }) => type === "object");
  if (isObject(value) && objects.length === 1) return check(objects[0]!, value, path, whole);
  if (isObject(value) && objects.length > 1) {
    return [`${at} should have one of ${objects.flatMap(({ required = [] }) => required).join(", ")}`];
  }
  return [`${at} should be ${branches.map(describe).join(", or ")}, got ${shown(value)}`];
}

function isMeant(branch: Schema, value: unknown): boolean {
  if ("const" in branch) return value === branch.const;
  if (branch.type !== undefined && !typesOf(branch).some((type) => isOfType(value, type))) return false;
  return !isObject(value) || (branch.required ?? []).every((key) => Object.hasOwn(value, key));
}

function checkList(schema: Schema, list: readonly unknown[], path: string, whole: Schema | undefined): string[] {
  const { items, minItems = 0, maxItems = Number.POSITIVE_INFINITY, uniqueItems } = schema;
  if (list.length < minItems || list.length > maxItems) {
    const wanted = minItems === maxItems ? `${minItems}` : `at least ${minItems}`;
    return [`${path} should have ${wanted} ${minItems === 1 ? "entry" : "entries"}, got ${list.length}`];
  }
  const twice = list.find((entry, i) => list.indexOf(entry) !== i);
  if (uniqueItems && twice !== undefined) return [`${path} names ${shown(twice)} twice`];
  return items ? list.flatMap((entry, i) => check(items, entry, `${path}[${i}]`, whole)) : [];
}

function checkObject(
  schema: Schema,
  object: Record<string, unknown>,
  path: string,
  whole: Schema | undefined,
): string[] {
  const { properties = {}, required = [], additionalProperties } = schema;
  const inner = (key: string) => (path === "" ? key : `${path}.${key}`);
  const missing = required.filter((key) => !Object.hasOwn(object, key)).map((key) => `${inner(key)} is missing`);
  const problems = Object.entries(object).flatMap(([key, value]) => {
    if (Object.hasOwn(properties, key)) return check(properties[key]!, value, inner(key), whole);
    if (additionalProperties === undefined) return [];
    if (additionalProperties !== false) return check(additionalProperties, value, inner(key), whole);
    const hint = whole ? hintFor(key, Object.keys(properties), whole) : "";
    return [`${path === "" ? "the file" : path} has no option ${JSON.stringify(key)}${hint}`];
  });
  return [...missing, ...problems];
}

/** Another spelling here, or the same name elsewhere; else what there is. */
function hintFor(key: string, known: readonly string[], whole: Schema): string {
  const plain = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");
  const near = known.find((name) => plain(name) === plain(key)) ?? known.find((name) => distance(name, key) <= 2);
  if (near !== undefined) return `; did you mean ${near}?`;
  const place = [...optionsOf(whole)].find(({ path }) => plain(path.split(".").at(-1)!) === plain(key));
  return place ? `; there is ${place.path}` : `; it has ${known.join(", ")}`;
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + Number(a[i - 1] !== b[j - 1])));
    }
    row = next;
  }
  return row[b.length]!;
}

export interface SchemaOption {
  /** Such as "training.lora.rank"; "[]" stands for any entry of a list, "*" for a name of the user's. */
  readonly path: string;
  readonly schema: Schema;
}

/** Every option of a schema, the outer ones before what is in them. */
export function* optionsOf(schema: Schema, path = ""): Generator<SchemaOption, void, undefined> {
  for (const branch of schema.oneOf ?? []) yield* optionsOf(branch, path);
  if (schema.items) yield* optionsOf(schema.items, `${path}[]`);
  if (schema.additionalProperties) yield* optionsOf(schema.additionalProperties, `${path}.*`);
  for (const [key, inner] of Object.entries(schema.properties ?? {})) {
    const place = path === "" ? key : `${path}.${key}`;
    yield { path: place, schema: inner };
    yield* optionsOf(inner, place);
  }
}

function typesOf({ type = [] }: Schema): readonly Type[] {
  return typeof type === "string" ? [type] : type;
}

function isOfType(value: unknown, type: Type): boolean {
  if (type === "integer") return Number.isSafeInteger(value);
  if (type === "array") return Array.isArray(value);
  if (type === "object") return isObject(value);
  if (type === "null") return value === null;
  return typeof value === type;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function inRange(schema: Schema, value: number): boolean {
  const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY } = schema;
  const { exclusiveMinimum: above = Number.NEGATIVE_INFINITY, exclusiveMaximum: below = Number.POSITIVE_INFINITY } =
    schema;
  return value >= minimum && value <= maximum && value > above && value < below;
}

/** What a value should be, in words. */
function describe(schema: Schema): string {
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const bounds = [
    ...(minimum === undefined ? [] : [`from ${minimum}`]),
    ...(exclusiveMinimum === undefined ? [] : [`above ${exclusiveMinimum}`]),
    ...(maximum === undefined ? [] : [`to ${maximum}`]),
    ...(exclusiveMaximum === undefined ? [] : [`to below ${exclusiveMaximum}`]),
  ];
  const nouns: Readonly<Record<Type, string>> = {
    object: "an object",
    array: "a list",
    string: "a text",
    number: "a number",
    integer: "an integer",
    boolean: "true or false",
    null: "null",
  };
  const noun = typesOf(schema)
    .map((type) => nouns[type])
    .join(" or ");
  return bounds.length > 0 ? `${noun} ${bounds.join(" ")}` : noun;
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
