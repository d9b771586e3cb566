/** LangChain's structured queries (self-query retrievers) as the filters of our stores and indexes. */
import { InvalidInputError } from "@cde-js/core";
import { type Condition, compileFilter, type Filter } from "@cde-js/retriever";
import {
  BaseTranslator,
  type Comparator,
  Comparators,
  type Comparison,
  type Operation,
  type Operator,
  Operators,
  type StructuredQuery,
} from "@langchain/core/structured_query";
import type { VectorStore } from "@langchain/core/vectorstores";
import type { CorpusVectorStore } from "./corpus-vector-store.js";

export interface CorpusTranslatorOptions {
  /**
   * The attributes that may be asked about, as they are given to the model in `attributeInfo`. Others are refused: a key
   * that a model made up holds for no document, and the empty answer would look like one. @default any
   */
  readonly attributes?: readonly string[];
}

/** A store whose filters are ours. */
type FilteredStore = VectorStore & { FilterType: Filter };

const DATE = /^\d{4}-\d{2}-\d{2}([T ]|$)/;

/**
 * The `structuredQueryTranslator` of a `SelfQueryRetriever`. Attributes are payload paths (`part.name`). A number that a
 * model wrote as a string equals both; `gt`, `gte`, `lt` and `lte` order numbers and ISO 8601 dates.
 *
 * Unlike LangChain's own translators it keeps the default filter where the model asks for none, so that a filter which
 * guards something (a tenant) never falls away. `mergeFiltersOperator: "replace"` is the way to give it up.
 */
export class CorpusTranslator<Store extends FilteredStore = CorpusVectorStore> extends BaseTranslator<Store> {
  declare VisitOperationOutput: Filter;
  declare VisitComparisonOutput: Filter;
  declare VisitStructuredQueryOutput: { filter?: Store["FilterType"] };
  allowedOperators: Operator[] = Object.values(Operators);
  allowedComparators: Comparator[] = Object.values(Comparators);
  readonly #attributes: ReadonlySet<string> | undefined;

  constructor(options: CorpusTranslatorOptions = {}) {
    super();
    this.#attributes = options.attributes && new Set(options.attributes);
  }

  /** The clause or operator of Qdrant's language that stands for the function. */
  override formatFunction(func: Operator | Comparator): string {
    switch (func) {
      case "and":
        return "must";
      case "or":
        return "should";
      case "not":
      case "ne":
        return "must_not";
      case "eq":
        return "match";
      default:
        return "range";
    }
  }

  override visitOperation({ operator, args = [] }: Operation): Filter {
    const clause = this.formatFunction(known("operator", operator, this.allowedOperators));
    if (args.length === 0 || (operator === "not" && args.length > 1)) {
      throw new InvalidInputError(
        `self-query: ${operator} was given ${args.length} conditions, expected ${operator === "not" ? "1" : "at least 1"}.`,
      );
    }
    return { [clause]: args.map((arg) => arg.accept(this) as Filter).map(unwrap) };
  }

  override visitComparison({ comparator, attribute, value }: Comparison): Filter {
    known("comparator", comparator, this.allowedComparators);
    if (this.#attributes && !this.#attributes.has(attribute)) {
      throw new InvalidInputError(
        `self-query: the filter asks about ${JSON.stringify(attribute)}, which is none of the attributes ` +
          `${[...this.#attributes].map((name) => JSON.stringify(name)).join(", ")}.`,
      );
    }
    const filter: Filter =
      comparator === "eq"
        ? { must: [equal(attribute, value)] }
        : comparator === "ne"
          ? { must_not: [equal(attribute, value)] }
          : { must: [{ key: attribute, range: { [comparator]: ordered(comparator, attribute, value) } }] };
    compileFilter(filter);
    return filter;
  }

  override visitStructuredQuery(query: StructuredQuery): { filter?: Store["FilterType"] } {
    return query.filter ? { filter: query.filter.accept(this) as Filter } : {};
  }

  override mergeFilters(
    defaultFilter: Filter | undefined,
    generatedFilter: Filter | undefined,
    mergeType: "and" | "or" | "replace" = "and",
    forceDefaultFilter = false,
  ): Filter | undefined {
    const [own, generated] = [defaultFilter, generatedFilter].map((filter) => (isEmpty(filter) ? undefined : filter));
    switch (mergeType) {
      case "and":
        return own && generated ? { must: [own, generated] } : (own ?? generated);
      case "or":
        // A model that asks for no filter widens nothing.
        return own && generated ? { should: [own, generated] } : (own ?? generated);
      case "replace":
        return generated ?? (forceDefaultFilter ? own : undefined);
      default:
        throw new InvalidInputError(`self-query: filters are merged by and, or, replace, got ${String(mergeType)}.`);
    }
  }
}

function equal(key: string, value: unknown): Condition {
  switch (typeof value) {
    case "boolean":
      return { key, match: { value } };
    case "number":
      return Number.isSafeInteger(value) ? { key, match: { value } } : { key, range: { gte: value, lte: value } };
    case "string": {
      const number = numberOf(value);
      const match = { key, match: { value } };
      return number === undefined ? match : { should: [match, equal(key, number)] };
    }
    default:
      throw unusable(key, value);
  }
}

function ordered(comparator: string, key: string, value: unknown): number | string {
  if (typeof value === "number") return value;
  if (typeof value !== "string") throw unusable(key, value);
  const number = numberOf(value);
  if (number !== undefined) return number;
  if (DATE.test(value)) return value;
  throw new InvalidInputError(
    `self-query: ${comparator} compares ${JSON.stringify(key)} with ${JSON.stringify(value)}. Numbers and ISO 8601 dates ` +
      "have an order here, other texts have none.",
  );
}

/** The number that the text writes out in full, or undefined. */
function numberOf(text: string): number | undefined {
  const number = Number(text);
  return Number.isFinite(number) && String(number) === text ? number : undefined;
}

function unusable(key: string, value: unknown): InvalidInputError {
  const kind = Array.isArray(value) ? "an array" : typeof value;
  return new InvalidInputError(
    `self-query: ${JSON.stringify(key)} is compared with ${kind}, expected a text, a number or a boolean.`,
  );
}

function known<Name extends string>(what: string, name: Name, allowed: readonly Name[]): Name {
  if (allowed.includes(name)) return name;
  throw new InvalidInputError(
    `self-query: ${what} ${JSON.stringify(name)} is not allowed. Allowed: ${allowed.join(", ")}.`,
  );
}

/** A `must` of one condition is that condition. */
function unwrap(filter: Filter): Condition {
  const { must, ...others } = filter;
  const [condition, ...more] = Array.isArray(must) ? (must as readonly Condition[]) : [];
  return condition !== undefined && more.length === 0 && Object.keys(others).length === 0 ? condition : filter;
}

/** Whether it asks for nothing: no clause, or only empty ones. */
function isEmpty(filter: Filter | undefined): boolean {
  return Object.values(filter ?? {}).every(
    (clause) => clause == null || (Array.isArray(clause) && clause.length === 0),
  );
}
