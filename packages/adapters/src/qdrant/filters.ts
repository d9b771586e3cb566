/** Filters over documents as filters over a collection's points: the same object for both engines. */
import { type Condition, compileFilter, type Filter, InvalidFilterError } from "@cde-js/retriever";
import { RESERVED } from "./points.js";

/** Holds for no point. */
const NOTHING: Condition = { has_id: [] };

/**
 * Keys stay, because metadata lie at the top of the payload. `has_id` asks for documents, and `has_vector` holds for
 * none, as in the embedded index.
 *
 * @throws InvalidFilterError as the embedded index does, and for the reserved key
 */
export function serverFilter(filter: Filter | undefined, tenant: string | undefined): Filter | undefined {
  const own: Condition[] = tenant === undefined ? [] : [{ key: `${RESERVED}.tenant`, match: { value: tenant } }];
  if (filter === undefined) return own.length === 0 ? undefined : { must: own };
  compileFilter(filter);
  const translated = translateFilter(filter, "");
  if (own.length === 0) return translated;
  return { must: Object.keys(translated).length === 0 ? own : [...own, translated] };
}

function translateFilter(filter: Filter, path: string): Filter {
  const clause = (conditions: Filter["must"], name: string): Condition[] =>
    conditions == null
      ? []
      : (Array.isArray(conditions) ? (conditions as readonly Condition[]) : [conditions as Condition]).map(
          (condition, i) => translate(condition, `${path}${name}[${i}]`),
        );
  const { min_should: atLeast } = filter;
  const clauses = {
    must: clause(filter.must, "must"),
    should: clause(filter.should, "should"),
    must_not: clause(filter.must_not, "must_not"),
  };
  return {
    ...Object.fromEntries(Object.entries(clauses).filter(([, conditions]) => conditions.length > 0)),
    ...(atLeast == null
      ? {}
      : {
          min_should: {
            min_count: atLeast.min_count,
            conditions: atLeast.conditions.map((condition, i) => translate(condition, `${path}min_should[${i}]`)),
          },
        }),
  };
}

function translate(condition: Condition, path: string): Condition {
  if ("key" in condition) {
    refuseReserved(condition.key, `${path}.key`);
    return condition;
  }
  if ("has_vector" in condition) return NOTHING;
  if ("has_id" in condition) {
    // Documents have string ids; a number is nobody's, as in the embedded index.
    const ids = condition.has_id.filter((id): id is string => typeof id === "string");
    return ids.length === 0 ? NOTHING : { key: `${RESERVED}.id`, match: { any: ids } };
  }
  if ("nested" in condition) {
    refuseReserved(condition.nested.key, `${path}.nested.key`);
    return condition;
  }
  for (const name of ["is_empty", "is_null"] as const) {
    const asked = (condition as Record<string, { readonly key: string } | undefined>)[name];
    if (asked === undefined) continue;
    refuseReserved(asked.key, `${path}.${name}.key`);
    return condition;
  }
  return translateFilter(condition as Filter, `${path}.`);
}

function refuseReserved(key: string, path: string): void {
  if (!new RegExp(`^"?${RESERVED}"?(?:[.[]|$)`).test(key)) return;
  throw new InvalidFilterError(path, `is ${JSON.stringify(key)}, and "${RESERVED}" is reserved in Qdrant.`);
}
