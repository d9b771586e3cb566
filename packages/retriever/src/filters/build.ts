/** Builds Qdrant filters with functions, for people who prefer them to JSON: every call returns a plain `Filter`. */
import { compileFilter } from "./compile.js";
import type { Bounds, Condition, Filter, GeoLine, GeoPoint } from "./types.js";

/**
 * `filters.and(filters.match("source", "manual"), filters.range("year", { gte: 2020 }))` is
 * `{ must: [{ key: "source", match: { value: "manual" } }, { key: "year", range: { gte: 2020 } }] }`.
 * Wrong values raise `InvalidFilterError` at once.
 */
export const filters: FilterBuilder = {
  match: (key, value) => one({ key, match: { value } }),
  matchAny: (key, values) => one({ key, match: { any: values } }),
  matchExcept: (key, values) => one({ key, match: { except: values } }),
  text: (key, text) => one({ key, match: { text } }),
  textAny: (key, text) => one({ key, match: { text_any: text } }),
  phrase: (key, phrase) => one({ key, match: { phrase } }),
  prefix: (key, prefix) => one({ key, match: { prefix } }),
  range: (key, range) => one({ key, range }),
  geoBoundingBox: (key, topLeft, bottomRight) =>
    one({ key, geo_bounding_box: { top_left: topLeft, bottom_right: bottomRight } }),
  geoRadius: (key, center, radius) => one({ key, geo_radius: { center, radius } }),
  geoPolygon: (key, exterior, interiors = []) => one({ key, geo_polygon: { exterior, interiors } }),
  valuesCount: (key, count) => one({ key, values_count: count }),
  isEmpty: (key) => one({ is_empty: { key } }),
  isNull: (key) => one({ is_null: { key } }),
  hasId: (...ids) => one({ has_id: ids }),
  hasVector: (name) => one({ has_vector: name }),
  nested: (key, filter) => one({ nested: { key, filter } }),
  and: (...parts) => checked({ must: parts.map(unwrap) }),
  or: (...parts) => {
    // Qdrant reads an empty `should` as "no constraint"; a disjunction of nothing holds for nothing.
    if (parts.length === 0) return one({ has_id: [] });
    return checked({ should: parts.map(unwrap) });
  },
  not: (filter) => checked({ must_not: [unwrap(filter)] }),
  atLeast: (count, ...parts) => checked({ min_should: { conditions: parts.map(unwrap), min_count: count } }),
};

export interface FilterBuilder {
  /** The value, or any element of an array, equals `value`. */
  match(key: string, value: string | number | boolean): Filter;
  matchAny(key: string, values: readonly string[] | readonly number[]): Filter;
  /** Some value is present that is none of these. */
  matchExcept(key: string, values: readonly string[] | readonly number[]): Filter;
  /** Every word of `text` occurs, in any order. */
  text(key: string, text: string): Filter;
  textAny(key: string, text: string): Filter;
  phrase(key: string, phrase: string): Filter;
  prefix(key: string, prefix: string): Filter;
  range(key: string, bounds: Bounds<number> | Bounds<string>): Filter;
  geoBoundingBox(key: string, topLeft: GeoPoint, bottomRight: GeoPoint): Filter;
  /** `radius` in metres. */
  geoRadius(key: string, center: GeoPoint, radius: number): Filter;
  geoPolygon(key: string, exterior: GeoLine, interiors?: readonly GeoLine[]): Filter;
  valuesCount(key: string, bounds: Bounds<number>): Filter;
  /** Missing, null or `[]`. */
  isEmpty(key: string): Filter;
  /** Present and null, or an array that holds null. */
  isNull(key: string): Filter;
  hasId(...ids: (string | number)[]): Filter;
  hasVector(name: string): Filter;
  /** One element of the array at `key` satisfies the whole filter. */
  nested(key: string, filter: Filter): Filter;
  and(...parts: Filter[]): Filter;
  or(...parts: Filter[]): Filter;
  not(filter: Filter): Filter;
  atLeast(count: number, ...parts: Filter[]): Filter;
}

function one(condition: Condition): Filter {
  return checked({ must: [condition] });
}

function checked(filter: Filter): Filter {
  compileFilter(filter);
  return filter;
}

/** A filter of one `must` condition is that condition: keeps the JSON flat. */
function unwrap(filter: Filter): Condition {
  const { must, ...others } = filter;
  const [condition, ...more] = Array.isArray(must) ? (must as readonly Condition[]) : [];
  return condition !== undefined && more.length === 0 && Object.keys(others).length === 0 ? condition : filter;
}
