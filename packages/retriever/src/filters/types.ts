/** Qdrant's JSON filter language as types: the same object is sent to a server and evaluated by the embedded index. */
import { CdeError } from "@cde-js/core";

/** All clauses hold together; an absent, null or empty clause asks for nothing. A filter is itself a condition. */
export interface Filter {
  /** Every one holds. */
  readonly must?: Clause;
  /** At least one holds. */
  readonly should?: Clause;
  /** None holds. */
  readonly must_not?: Clause;
  /** At least `min_count` (1 or more) of the conditions hold. */
  readonly min_should?: { readonly conditions: readonly Condition[]; readonly min_count: number } | null | undefined;
}

type Clause = Condition | readonly Condition[] | null | undefined;

export type Condition =
  | Filter
  | MatchCondition
  | RangeCondition
  | GeoCondition
  | { readonly key: string; readonly values_count: Bounds<number> }
  | { readonly key: string; readonly is_empty: boolean }
  | { readonly key: string; readonly is_null: boolean }
  | { readonly is_empty: { readonly key: string } }
  | { readonly is_null: { readonly key: string } }
  | { readonly has_id: readonly (string | number)[] }
  | { readonly has_vector: string }
  | { readonly nested: { readonly key: string; readonly filter: Filter } };

/** `key` is a payload path: `a.b`, `a[].b` (any element), `a[0]`, `"a key with spaces".b`. */
export interface MatchCondition {
  readonly key: string;
  readonly match: Match;
}

/**
 * Exact matches compare strings, whole numbers and booleans without conversion; a fraction is compared by `range`.
 * `text` wants every word, `text_any` one, `phrase` all of them in a row. Words are runs of letters and digits,
 * compared in lower case, as on a server from 1.19.1 or on a field with a text index of any version.
 */
export type Match =
  | { readonly value: string | number | boolean }
  | { readonly any: readonly string[] | readonly number[] }
  | { readonly except: readonly string[] | readonly number[] }
  | { readonly text: string }
  | { readonly text_any: string }
  | { readonly phrase: string }
  | { readonly prefix: string };

export interface Bounds<T> {
  readonly gt?: T | null | undefined;
  readonly gte?: T | null | undefined;
  readonly lt?: T | null | undefined;
  readonly lte?: T | null | undefined;
}

/** Numbers are compared with numbers, ISO 8601 strings with date strings (UTC where no zone is given). */
export interface RangeCondition {
  readonly key: string;
  readonly range: Bounds<number> | Bounds<string>;
}

/** Degrees; a payload value is `{ lat, lon }` too. */
export interface GeoPoint {
  readonly lat: number;
  readonly lon: number;
}

/** A closed line: at least 4 points, the first and the last equal. */
export interface GeoLine {
  readonly points: readonly GeoPoint[];
}

export type GeoCondition =
  | {
      readonly key: string;
      readonly geo_bounding_box: { readonly top_left: GeoPoint; readonly bottom_right: GeoPoint };
    }
  /** `radius` in metres. */
  | { readonly key: string; readonly geo_radius: { readonly center: GeoPoint; readonly radius: number } }
  | {
      readonly key: string;
      readonly geo_polygon: { readonly exterior: GeoLine; readonly interiors?: readonly GeoLine[] | null | undefined };
    };

/** What a filter is asked about. */
export interface FilterPoint {
  readonly id: string | number;
  readonly payload: Readonly<Record<string, unknown>>;
  /** Names of the vectors that the point has; `has_vector` holds for none where absent. */
  readonly vectorNames?: readonly string[];
}

/** A filter that can't be evaluated: an unknown operator or key, or a value of the wrong kind. */
export class InvalidFilterError extends CdeError {
  /** Where in the filter, for example `must[0].match`. */
  readonly path: string;

  constructor(path: string, message: string) {
    super("INVALID_FILTER", `filter: ${path === "" ? "the filter" : path} ${message}`);
    this.path = path;
  }
}
