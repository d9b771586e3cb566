/** Evaluates Qdrant's JSON filters: checks a filter once, then tests any number of points with it. */
import { describe, elementsOf, isObject, type PayloadPath, parsePath, valuesAt } from "./payload-path.js";
import { type Filter, type FilterPoint, type GeoPoint, InvalidFilterError } from "./types.js";
import { haversine, holdsPhrase, inBox, inRing, instant, isGeoPoint, words } from "./values.js";

type PointTest = (point: FilterPoint) => boolean;
type ValueTest = (value: unknown) => boolean;

const CLAUSES = ["must", "should", "must_not", "min_should"];
const CONDITIONS = ["key", "is_empty", "is_null", "has_id", "has_vector", "nested"];
const OPERATORS = [
  "match",
  "range",
  "geo_bounding_box",
  "geo_radius",
  "geo_polygon",
  "values_count",
  "is_empty",
  "is_null",
];
const MATCHES = ["value", "any", "except", "text", "text_any", "phrase", "prefix"];
const BOUNDS = ["gt", "gte", "lt", "lte"];
/** Filters come over the network too; deeper ones would end in a stack overflow instead of an error. */
const MAX_DEPTH = 64;

/**
 * Compiles a filter to a test of points. Equal to Qdrant's local mode 1.20 (and so to a server from 1.19.1 without
 * payload indexes); where a server accepts what can only be a slip (an unknown key beside a known one, two operators
 * in one condition, a range without bounds), this refuses.
 *
 * @throws InvalidFilterError naming the place, what stands there and what is allowed
 */
export function compileFilter(filter: Filter): PointTest {
  return compileClauses(filter, "", 0, false);
}

function compileClauses(filter: unknown, path: string, depth: number, nested: boolean): PointTest {
  if (depth > MAX_DEPTH) throw new InvalidFilterError(path, `is nested deeper than ${MAX_DEPTH} levels.`);
  const clauses = record(filter, path, CLAUSES);
  const list = (name: string): PointTest[] => {
    const clause = clauses[name] ?? [];
    const conditions: unknown[] = Array.isArray(clause) ? clause : [clause];
    const at = join(path, name);
    return conditions.map((condition, i) =>
      compileCondition(condition, Array.isArray(clause) ? `${at}[${i}]` : at, depth + 1, nested),
    );
  };
  const must = list("must");
  const should = list("should");
  const mustNot = list("must_not");
  const atLeast =
    clauses.min_should == null ? undefined : minShould(clauses.min_should, join(path, "min_should"), depth, nested);
  return (point) =>
    must.every((test) => test(point)) &&
    (should.length === 0 || should.some((test) => test(point))) &&
    !mustNot.some((test) => test(point)) &&
    (atLeast === undefined || atLeast(point));
}

function minShould(value: unknown, path: string, depth: number, nested: boolean): PointTest {
  const { conditions, min_count: least } = record(value, path, ["conditions", "min_count"]);
  if (!Array.isArray(conditions)) throw wrong(join(path, "conditions"), conditions, "an array of conditions");
  if (!Number.isSafeInteger(least) || (least as number) < 1)
    throw wrong(join(path, "min_count"), least, "a whole number from 1");
  const tests = conditions.map((condition, i) =>
    compileCondition(condition, `${path}.conditions[${i}]`, depth + 1, nested),
  );
  return (point) => {
    let held = 0;
    for (const test of tests) if (test(point) && ++held === least) return true;
    return false;
  };
}

function compileCondition(condition: unknown, path: string, depth: number, nested: boolean): PointTest {
  if (!isObject(condition)) throw wrong(path, condition, "a condition (an object)");
  if ("key" in condition) return compileField(condition, path);
  const names = definedKeys(condition);
  if (names.every((name) => CLAUSES.includes(name))) return compileClauses(condition, path, depth, nested);
  const [name, ...others] = names;
  if (name === undefined || others.length > 0 || !CONDITIONS.includes(name)) {
    throw new InvalidFilterError(
      path,
      `has the keys ${names.map((key) => JSON.stringify(key)).join(", ")}; a condition is { key, ${OPERATORS.join(" | ")} }, ` +
        `or has one of ${CONDITIONS.slice(1).join(", ")}, or is a filter (${CLAUSES.join(", ")}).`,
    );
  }
  const at = join(path, name);
  const value = condition[name];
  if (nested && (name === "has_id" || name === "has_vector")) {
    throw new InvalidFilterError(
      at,
      "asks about the point, but stands inside nested, which looks at one element of the payload. Move it beside nested.",
    );
  }
  switch (name) {
    case "has_id":
      return hasId(value, at);
    case "has_vector":
      if (typeof value !== "string") throw wrong(at, value, "the name of a vector");
      return ({ vectorNames }) => vectorNames?.includes(value) ?? false;
    case "nested": {
      const { key, filter } = record(value, at, ["key", "filter"]);
      const elements = elementsOf(parsePath(key, join(at, "key")));
      const test = compileClauses(filter, join(at, "filter"), depth + 1, true);
      return ({ id, payload }) =>
        valuesAt(payload, elements).some((element) => isObject(element) && test({ id, payload: element }));
    }
    default: {
      const keyPath = parsePath(record(value, at, ["key"]).key, join(at, "key"));
      return presence(name, keyPath, true);
    }
  }
}

function hasId(ids: unknown, path: string): PointTest {
  if (!Array.isArray(ids)) throw wrong(path, ids, "an array of ids");
  ids.forEach((id: unknown, i) => {
    if (typeof id !== "string" && !(Number.isSafeInteger(id) && (id as number) >= 0)) {
      throw wrong(`${path}[${i}]`, id, "a string or a whole number from 0");
    }
  });
  const wanted = new Set(ids);
  return ({ id }) => wanted.has(id);
}

function compileField(condition: Record<string, unknown>, path: string): PointTest {
  const { key, ...rest } = record(condition, path, ["key", ...OPERATORS]);
  const keyPath = parsePath(key, join(path, "key"));
  const [operator, ...others] = definedKeys(rest).filter((name) => rest[name] !== null);
  if (operator === undefined || others.length > 0) {
    throw new InvalidFilterError(
      path,
      `needs exactly one of ${OPERATORS.join(", ")} beside key, has ${operator === undefined ? "none" : [operator, ...others].join(" and ")}. Write a condition for each.`,
    );
  }
  const at = join(path, operator);
  const value = rest[operator];
  if (operator === "is_empty" || operator === "is_null") {
    if (typeof value !== "boolean") throw wrong(at, value, "true or false");
    return presence(operator, keyPath, value);
  }
  if (operator === "values_count") {
    const within = bounds(
      value,
      at,
      (bound) => Number.isSafeInteger(bound) && (bound as number) >= 0,
      "a whole number from 0",
    );
    // A missing key counts as 0 values, like null; an object or a scalar is one.
    return ({ payload }) => {
      const values = valuesAt(payload, keyPath);
      return (values.length === 0 ? [null] : values).some((v) =>
        within(Array.isArray(v) ? v.length : v === null ? 0 : 1),
      );
    };
  }
  const test = valueTest(operator, value, at);
  // An array holds if any element does; arrays inside arrays are not opened.
  return ({ payload }) =>
    valuesAt(payload, keyPath).some((found) => (Array.isArray(found) ? found.some(test) : test(found)));
}

function presence(operator: string, keyPath: PayloadPath, wanted: boolean): PointTest {
  const isEmpty: ValueTest = (value) => value === null || (Array.isArray(value) && value.length === 0);
  const isNull: ValueTest = (value) => value === null || (Array.isArray(value) && value.includes(null));
  return operator === "is_empty"
    ? ({ payload }) => valuesAt(payload, keyPath).every(isEmpty) === wanted
    : ({ payload }) => valuesAt(payload, keyPath).some(isNull) === wanted;
}

function valueTest(operator: string, value: unknown, path: string): ValueTest {
  switch (operator) {
    case "match":
      return match(value, path);
    case "range":
      return range(value, path);
    case "geo_bounding_box": {
      const box = record(value, path, ["top_left", "bottom_right"]);
      const topLeft = geoPoint(box.top_left, join(path, "top_left"));
      const bottomRight = geoPoint(box.bottom_right, join(path, "bottom_right"));
      return (found) => isGeoPoint(found) && inBox(topLeft, bottomRight, found);
    }
    case "geo_radius": {
      const circle = record(value, path, ["center", "radius"]);
      const center = geoPoint(circle.center, join(path, "center"));
      const { radius } = circle;
      if (typeof radius !== "number" || !(radius >= 0)) throw wrong(join(path, "radius"), radius, "metres, 0 or more");
      return (found) => isGeoPoint(found) && haversine(center, found) < radius;
    }
    default: {
      const polygon = record(value, path, ["exterior", "interiors"]);
      const interiors = polygon.interiors ?? [];
      if (!Array.isArray(interiors)) throw wrong(join(path, "interiors"), interiors, "an array of lines");
      const exterior = geoLine(polygon.exterior, join(path, "exterior"));
      const holes = interiors.map((line, i) => geoLine(line, `${path}.interiors[${i}]`));
      return (found) =>
        isGeoPoint(found) &&
        inRing(exterior, found) === "inside" &&
        holes.every((hole) => inRing(hole, found) === "outside");
    }
  }
}

function match(value: unknown, path: string): ValueTest {
  const variants = record(value, path, MATCHES);
  const [kind, ...others] = definedKeys(variants);
  if (kind === undefined || others.length > 0) {
    throw new InvalidFilterError(
      path,
      `needs exactly one of ${MATCHES.join(", ")}, got ${describe(definedKeys(variants).join(", "))}.`,
    );
  }
  const at = join(path, kind);
  const wanted = variants[kind];
  if (kind === "value") {
    if (typeof wanted !== "string" && typeof wanted !== "boolean" && !Number.isSafeInteger(wanted)) {
      throw wrong(at, wanted, "a string, a whole number or a boolean (compare fractions by range)");
    }
    return (found) => found === wanted;
  }
  if (kind === "any" || kind === "except") {
    const strings = Array.isArray(wanted) && wanted.every((item) => typeof item === "string");
    if (!strings && !(Array.isArray(wanted) && wanted.every(Number.isSafeInteger))) {
      throw wrong(at, wanted, "an array of strings or an array of whole numbers");
    }
    const set = new Set<unknown>(wanted as unknown[]);
    // A present null is absence: it differs from everything, but is not a value that does.
    return kind === "any" ? (found) => set.has(found) : (found) => found !== null && !set.has(found);
  }
  if (typeof wanted !== "string") throw wrong(at, wanted, "a string");
  if (kind === "prefix") return (found) => typeof found === "string" && found.startsWith(wanted);
  const sought = words(wanted);
  return (found) => {
    if (typeof found !== "string") return false;
    const held = words(found);
    if (kind === "phrase") return holdsPhrase(held, sought);
    const set = new Set(held);
    return kind === "text"
      ? sought.length > 0 && sought.every((word) => set.has(word))
      : sought.some((word) => set.has(word));
  };
}

function range(value: unknown, path: string): ValueTest {
  const isDated = isObject(value) && Object.values(value).some((bound) => typeof bound === "string");
  if (!isDated) {
    const within = bounds(value, path, Number.isFinite, "a finite number, or all bounds ISO 8601 dates");
    return (found) => typeof found === "number" && within(found);
  }
  const isInstant = (bound: unknown): boolean => typeof bound === "string" && instant(bound) !== undefined;
  const within = bounds(
    value,
    path,
    isInstant,
    "an ISO 8601 date, or all bounds finite numbers",
    (bound) => instant(bound as string)!,
  );
  return (found) => {
    const at = typeof found === "string" ? instant(found) : undefined;
    return at !== undefined && within(at);
  };
}

function bounds(
  value: unknown,
  path: string,
  isBound: (bound: unknown) => boolean,
  wanted: string,
  toNumber: (bound: unknown) => number = Number,
): (number: number) => boolean {
  const given = record(value, path, BOUNDS);
  const limit = (name: string, open: number): number => {
    if (given[name] == null) return open;
    if (!isBound(given[name])) throw wrong(join(path, name), given[name], wanted);
    return toNumber(given[name]);
  };
  const [gt, gte] = [limit("gt", Number.NEGATIVE_INFINITY), limit("gte", Number.NEGATIVE_INFINITY)];
  const [lt, lte] = [limit("lt", Number.POSITIVE_INFINITY), limit("lte", Number.POSITIVE_INFINITY)];
  if (Object.values(given).every((bound) => bound == null)) {
    throw new InvalidFilterError(path, `has no bound. Give at least one of ${BOUNDS.join(", ")}.`);
  }
  return (number) => number > gt && number >= gte && number < lt && number <= lte;
}

function geoPoint(value: unknown, path: string): GeoPoint {
  const { lat, lon } = record(value, path, ["lat", "lon"]);
  if (typeof lat !== "number" || !(Math.abs(lat) <= 90)) throw wrong(join(path, "lat"), lat, "degrees from -90 to 90");
  if (typeof lon !== "number" || !(Math.abs(lon) <= 180))
    throw wrong(join(path, "lon"), lon, "degrees from -180 to 180");
  return { lat, lon };
}

function geoLine(value: unknown, path: string): GeoPoint[] {
  const { points } = record(value, path, ["points"]);
  if (!Array.isArray(points)) throw wrong(join(path, "points"), points, "an array of points");
  const line = points.map((point, i) => geoPoint(point, `${path}.points[${i}]`));
  const [first, last] = [line[0], line.at(-1)];
  if (line.length < 4 || first?.lat !== last?.lat || first?.lon !== last?.lon) {
    throw new InvalidFilterError(
      join(path, "points"),
      `must be a closed line: at least 4 points, the last equal to the first; got ${line.length}.`,
    );
  }
  return line;
}

/** The value as an object that has no other keys than those allowed. */
function record(value: unknown, path: string, allowed: readonly string[]): Record<string, unknown> {
  if (!isObject(value)) throw wrong(path, value, `an object with ${allowed.join(", ")}`);
  for (const name of Object.keys(value)) {
    if (!allowed.includes(name)) {
      throw new InvalidFilterError(path, `has the unknown key ${describe(name)}; allowed: ${allowed.join(", ")}.`);
    }
  }
  return value;
}

function definedKeys(value: Record<string, unknown>): string[] {
  return Object.keys(value).filter((name) => value[name] !== undefined);
}

function wrong(path: string, value: unknown, wanted: string): InvalidFilterError {
  return new InvalidFilterError(path, `must be ${wanted}, got ${describe(value)}.`);
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}
