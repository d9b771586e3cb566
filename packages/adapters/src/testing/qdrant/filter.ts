/** Evaluates a filter the slow and obvious way. It shares no code with the product, so that the two can disagree. */
import { badFormat, invalid, isRecord, type Json, type JsonRecord } from "./errors.js";

export interface StoredForFilter {
  readonly id: number | string;
  readonly payload: JsonRecord;
  readonly vectors: ReadonlyMap<string, unknown>;
}

export interface FilterContext {
  /** Fields with a full-text index: words are compared there, substrings elsewhere. */
  readonly textFields: ReadonlySet<string>;
}

type Payload = { payload: JsonRecord; point: StoredForFilter | undefined };

export function matchesFilter(filter: Json | undefined, point: StoredForFilter, context: FilterContext): boolean {
  return holds(filter, { payload: point.payload, point }, context);
}

const asList = (clause: Json | undefined): Json[] =>
  clause === undefined || clause === null ? [] : Array.isArray(clause) ? clause : [clause];

function holds(filter: Json | undefined, at: Payload, context: FilterContext): boolean {
  if (filter === undefined || filter === null) return true;
  if (!isRecord(filter)) throw badFormat("invalid type: expected struct Filter");
  const { must, should, must_not, min_should } = filter;
  for (const condition of asList(must)) if (!conditionHolds(condition, at, context)) return false;
  const alternatives = asList(should);
  if (alternatives.length > 0) {
    let any = false;
    for (const condition of alternatives) any = conditionHolds(condition, at, context) || any;
    if (!any) return false;
  }
  for (const condition of asList(must_not)) if (conditionHolds(condition, at, context)) return false;
  if (isRecord(min_should)) {
    let count = 0;
    for (const condition of asList(min_should.conditions)) if (conditionHolds(condition, at, context)) count++;
    if (count < Number(min_should.min_count)) return false;
  }
  return true;
}

function conditionHolds(condition: Json, at: Payload, context: FilterContext): boolean {
  if (!isRecord(condition)) throw badFormat("data did not match any variant of untagged enum Condition");
  if (Array.isArray(condition.has_id)) {
    return at.point !== undefined && condition.has_id.some((id) => sameId(id, at.point!.id));
  }
  if (typeof condition.has_vector === "string") return at.point?.vectors.has(condition.has_vector) ?? false;
  if (isRecord(condition.nested)) {
    const path = String(condition.nested.key).replace(/\[\]$/, "");
    for (const found of reach(at.payload, path)) {
      for (const element of Array.isArray(found) ? found : []) {
        if (isRecord(element) && holds(condition.nested.filter, { payload: element, point: undefined }, context)) {
          return true;
        }
      }
    }
    return false;
  }
  if (condition.key === undefined) {
    if (isRecord(condition.is_empty)) return isEmpty(reach(at.payload, String(condition.is_empty.key)));
    if (isRecord(condition.is_null)) return isNull(reach(at.payload, String(condition.is_null.key)));
    return holds(condition, at, context);
  }
  return fieldHolds(condition, reach(at.payload, String(condition.key)), context);
}

const isEmpty = (found: Json[]): boolean =>
  found.every((value) => value === null || (Array.isArray(value) && value.length === 0));
const isNull = (found: Json[]): boolean =>
  found.some((value) => value === null || (Array.isArray(value) && value.includes(null)));

function fieldHolds(condition: JsonRecord, found: Json[], context: FilterContext): boolean {
  if (typeof condition.is_empty === "boolean") return isEmpty(found) === condition.is_empty;
  if (typeof condition.is_null === "boolean") return isNull(found) === condition.is_null;
  if (isRecord(condition.values_count)) {
    const counts = found.length === 0 ? [0] : found.map((v) => (v === null ? 0 : Array.isArray(v) ? v.length : 1));
    return counts.some((count) => between(count, condition.values_count as JsonRecord));
  }
  const scalars = found.flatMap((value) => (Array.isArray(value) ? value : [value]));
  if (isRecord(condition.match)) {
    const isText = context.textFields.has(String(condition.key));
    return scalars.some((value) => matches(value, condition.match as JsonRecord, isText));
  }
  if (isRecord(condition.range)) {
    const { range } = condition;
    const dated = Object.values(range).some((bound) => typeof bound === "string");
    return scalars.some((value) => {
      if (!dated) return typeof value === "number" && between(value, range);
      const time = typeof value === "string" ? timeOf(value) : Number.NaN;
      if (Number.isNaN(time)) return false;
      const bounds = Object.entries(range).flatMap(([name, bound]) =>
        bound === null ? [] : [[name, timeOf(String(bound))] as const],
      );
      return between(time, Object.fromEntries(bounds));
    });
  }
  if (isRecord(condition.geo_radius)) {
    const { center, radius } = condition.geo_radius;
    return scalars.some((value) => isPlace(value) && isPlace(center) && metres(value, center) < Number(radius));
  }
  if (isRecord(condition.geo_bounding_box)) {
    const { top_left: nw, bottom_right: se } = condition.geo_bounding_box;
    return scalars.some((value) => {
      if (!isPlace(value) || !isPlace(nw) || !isPlace(se)) return false;
      const inLatitude = value.lat < nw.lat && value.lat > se.lat;
      const inLongitude =
        nw.lon <= se.lon ? value.lon > nw.lon && value.lon < se.lon : value.lon > nw.lon || value.lon < se.lon;
      return inLatitude && inLongitude;
    });
  }
  if (isRecord(condition.geo_polygon)) {
    const { exterior, interiors } = condition.geo_polygon;
    return scalars.some((value) => {
      if (!isPlace(value) || !encloses(exterior, value)) return false;
      return !asList(interiors).some((hole) => encloses(hole, value));
    });
  }
  throw invalid(
    "internal.filter.must[0].__all__: Validation error: At least one field condition must be specified [{}]",
  );
}

function matches(value: Json, match: JsonRecord, isText: boolean): boolean {
  if ("value" in match) return value === match.value;
  if (Array.isArray(match.any)) return match.any.some((wanted) => wanted === value);
  if (Array.isArray(match.except)) return value !== null && !match.except.some((other) => other === value);
  if (typeof value !== "string") return false;
  if (typeof match.prefix === "string") return value.startsWith(match.prefix);
  const wordsOf = (text: string): string[] =>
    text
      .toLowerCase()
      .split(/[^\p{L}\p{N}]+/u)
      .filter((w) => w !== "");
  if (typeof match.text === "string") {
    if (!isText) return value.includes(match.text);
    const held = wordsOf(value);
    const sought = wordsOf(match.text);
    return sought.length > 0 && sought.every((word) => held.includes(word));
  }
  if (typeof match.text_any === "string") return wordsOf(match.text_any).some((word) => wordsOf(value).includes(word));
  if (typeof match.phrase === "string") {
    const sought = wordsOf(match.phrase);
    return sought.length > 0 && ` ${wordsOf(value).join(" ")} `.includes(` ${sought.join(" ")} `);
  }
  throw badFormat("data did not match any variant of untagged enum Match");
}

function between(number: number, { gt, gte, lt, lte }: JsonRecord): boolean {
  const given = (bound: Json | undefined): bound is number => typeof bound === "number";
  if (given(gt) && !(number > gt)) return false;
  if (given(gte) && !(number >= gte)) return false;
  if (given(lt) && !(number < lt)) return false;
  return !(given(lte) && !(number <= lte));
}

function timeOf(text: string): number {
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return Number.NaN;
  const dateOnly = text.length === 10;
  const zoned = dateOnly || /(z|[+-]\d\d(:?\d\d)?)$/i.test(text);
  return Date.parse(zoned ? text : `${text}Z`);
}

type Place = { lat: number; lon: number };
function isPlace(value: unknown): value is Place & JsonRecord {
  return isRecord(value) && typeof value.lat === "number" && typeof value.lon === "number";
}

function metres(a: Place, b: Place): number {
  const rad = (degrees: number): number => (degrees * Math.PI) / 180;
  const h =
    Math.sin(rad(b.lat - a.lat) / 2) ** 2 +
    Math.cos(rad(a.lat)) * Math.cos(rad(b.lat)) * Math.sin(rad(b.lon - a.lon) / 2) ** 2;
  return 2 * 6_371_008.8 * Math.asin(Math.sqrt(h));
}

/** Even-odd rule. */
function encloses(line: Json | undefined, { lat, lon }: Place): boolean {
  const points = (isRecord(line) ? asList(line.points) : []).filter(isPlace);
  let inside = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
    const [a, b] = [points[i]!, points[j]!];
    if (a.lat > lat !== b.lat > lat && lon < ((b.lon - a.lon) * (lat - a.lat)) / (b.lat - a.lat) + a.lon) {
      inside = !inside;
    }
  }
  return inside;
}

/** All values at a path. */
export function reach(payload: Json, path: string): Json[] {
  const steps = [...path.matchAll(/"([^"]+)"|\[(\d*)\]|([^.[\]"]+)/g)];
  let found: Json[] = [payload];
  for (const [, quoted, index, plain] of steps) {
    const name = quoted ?? plain;
    const next: Json[] = [];
    for (const value of found) {
      if (name !== undefined) {
        if (isRecord(value) && Object.hasOwn(value, name)) next.push(value[name] as Json);
      } else if (Array.isArray(value)) {
        if (index === "") next.push(...value);
        else if (Number(index) < value.length) next.push(value[Number(index)] as Json);
      }
    }
    found = next;
  }
  return found;
}

function sameId(a: unknown, b: number | string): boolean {
  return typeof a === "string" && typeof b === "string" ? a.toLowerCase() === b : a === b;
}

/** Refuses what Qdrant refuses, and tells every condition on a field. */
export function visitFilter(filter: Json | undefined, visit: (condition: JsonRecord) => void): void {
  if (filter === undefined || filter === null) return;
  if (!isRecord(filter)) throw badFormat("invalid type: expected struct Filter");
  for (const name of Object.keys(filter)) {
    if (!["should", "min_should", "must", "must_not"].includes(name)) {
      throw badFormat(`unknown field \`${name}\`, expected one of \`should\`, \`min_should\`, \`must\`, \`must_not\``);
    }
  }
  const minimum = isRecord(filter.min_should) ? asList(filter.min_should.conditions) : [];
  for (const clause of [filter.must, filter.should, filter.must_not, minimum]) {
    for (const condition of asList(clause)) visitCondition(condition, visit);
  }
}

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

function visitCondition(condition: Json, visit: (condition: JsonRecord) => void): void {
  if (!isRecord(condition)) throw badFormat("data did not match any variant of untagged enum Condition");
  if (typeof condition.key === "string") {
    if (!OPERATORS.some((name) => condition[name] !== undefined && condition[name] !== null)) {
      throw invalid(
        "internal.filter.must[0].__all__: Validation error: At least one field condition must be specified [{}]",
      );
    }
    visit(condition);
  } else if (isRecord(condition.nested)) {
    const prefix = String(condition.nested.key).replace(/\[\]$/, "");
    visitFilter(condition.nested.filter, (inner) => visit({ ...inner, key: `${prefix}[].${String(inner.key)}` }));
  } else if ("has_id" in condition || "has_vector" in condition || "is_empty" in condition || "is_null" in condition) {
    visit(condition);
  } else visitFilter(condition, visit);
}
