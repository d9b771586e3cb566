/** What the page of `cde serve` asks: an index, on demand the same corpus without context, and the map. Knows no HTTP. */
import { type ContextualEncoder, type CorpusContext, InvalidInputError, NoNullContextError } from "@cde-js/core";
import { CorpusIndex, type Filter, type Hit, type SearchMode, type SearchOptions } from "@cde-js/retriever";
import { type ListedIndex, openListed } from "../listed-rows.js";
import { passageTokens } from "../survey.js";
import { CorpusMap, type MapPoints } from "./corpus-map.js";

export interface PlaygroundOptions {
  readonly directory: string;
  readonly encoder: ContextualEncoder;
  readonly context: CorpusContext | undefined;
  readonly signal: AbortSignal;
}

/** Whether there is a second index to compare with. */
export type Comparison =
  | { readonly state: "unavailable"; readonly reason: string }
  | { readonly state: "possible" }
  | { readonly state: "building"; readonly done: number; readonly total: number }
  | { readonly state: "ready" }
  | { readonly state: "failed"; readonly reason: string };

export interface IndexDescription {
  readonly directory: string;
  readonly documents: number;
  readonly passages: number;
  readonly modelId: string;
  readonly dimensions: number;
  readonly fingerprint: string;
  readonly context: Pick<CorpusContext, "size" | "stage" | "fingerprint"> | null;
  readonly modes: readonly SearchMode[];
  readonly comparison: Comparison;
}

export interface Query {
  readonly query: string;
  readonly k: number;
  readonly mode: SearchMode | undefined;
  readonly filter: Filter | undefined;
  /** Search the index without context as well, where it is there. */
  readonly compare: boolean;
}

interface Side {
  readonly milliseconds: number;
  readonly hits: readonly object[];
}

/** UTF-16 units of a passage that go to the page. */
const SHOWN_UNITS = 2000;
const MODES: readonly SearchMode[] = ["dense", "lexical", "hybrid"];

export class Playground implements AsyncDisposable {
  readonly #options: PlaygroundOptions;
  readonly #listed: ListedIndex;
  #comparison: Comparison;
  #plain: CorpusIndex | undefined;
  #building: Promise<void> | undefined;
  #map: Promise<CorpusMap | undefined> | undefined;
  #drawn: CorpusMap | undefined;

  private constructor(options: PlaygroundOptions, listed: ListedIndex) {
    this.#options = options;
    this.#listed = listed;
    this.#comparison = comparisonOf(options);
  }

  static async open(options: PlaygroundOptions): Promise<Playground> {
    const { directory, encoder, context, signal } = options;
    const embedder = context ? encoder.withContext(context) : encoder.withoutContext();
    return new Playground(options, await openListed(directory, embedder, { signal }));
  }

  describe(): IndexDescription {
    const { index } = this.#listed;
    const { context, directory } = this.#options;
    return {
      directory,
      documents: index.count,
      passages: index.passageCount,
      modelId: index.modelId,
      dimensions: index.dimensions,
      fingerprint: index.fingerprint,
      context: context ? { size: context.size, stage: context.stage, fingerprint: context.fingerprint } : null,
      modes: index.hasLexicalPart ? MODES : (["dense"] as const),
      comparison: this.#comparison,
    };
  }

  /** @throws InvalidInputError, InvalidFilterError */
  async search(asked: Query, signal: AbortSignal): Promise<{ readonly with: Side; readonly without: Side | null }> {
    const { query, k, mode, filter, compare } = asked;
    const options: SearchOptions = {
      k,
      signal,
      highlight: this.#listed.index.hasLexicalPart,
      ...(mode === undefined ? {} : { mode }),
      ...(filter === undefined ? {} : { filter }),
    };
    // One after the other, so that neither takes the other's time.
    const own = await this.#side(this.#listed.index, query, options);
    const plain = compare ? this.#plain : undefined;
    return { with: own, without: plain ? await this.#side(plain, query, options) : null };
  }

  /** Begins to embed the corpus without context, where that is possible and not begun yet. */
  compare(): Comparison {
    if (this.#comparison.state === "possible" || this.#comparison.state === "failed") {
      this.#comparison = { state: "building", done: 0, total: this.#listed.index.passageCount };
      this.#building = this.#buildPlain();
    }
    return this.#comparison;
  }

  /** Drawn at the first call. */
  async map(): Promise<MapPoints | null> {
    this.#map ??= CorpusMap.draw(this.#listed, this.#options.signal);
    this.#drawn = await this.#map;
    return this.#drawn?.drawn ?? null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#building;
    await this.#map?.catch(() => {});
    await this.#plain?.close();
    await this.#listed.index.close();
  }

  async #side(index: CorpusIndex, query: string, options: SearchOptions): Promise<Side> {
    const start = performance.now();
    const hits = await index.search(query, options);
    return { milliseconds: performance.now() - start, hits: hits.map((hit) => this.#shown(hit)) };
  }

  #shown(hit: Hit): object {
    const text = hit.text.length > SHOWN_UNITS ? `${hit.text.slice(0, SHOWN_UNITS).toWellFormed()}…` : hit.text;
    const highlights = hit.highlights?.filter(({ end }) => end <= text.length) ?? [];
    return { ...hit, text, highlights, point: this.#drawn?.pointOf(hit) ?? null };
  }

  async #buildPlain(): Promise<void> {
    const { encoder, signal } = this.#options;
    const { index } = this.#listed;
    try {
      const embedder = encoder.withoutContext();
      this.#plain = await CorpusIndex.build(embedder, index.documents(), {
        split: { maxTokens: passageTokens(embedder) },
        ...(index.hasLexicalPart ? {} : { lexical: false as const }),
        signal,
        onProgress: ({ embedded }) => {
          const total = Math.max(index.passageCount, embedded);
          this.#comparison = { state: "building", done: embedded, total };
        },
      });
      this.#comparison = { state: "ready" };
    } catch (error) {
      this.#comparison = { state: "failed", reason: (error as Error).message };
    }
  }
}

function comparisonOf({ context, encoder }: PlaygroundOptions): Comparison {
  if (!context)
    return { state: "unavailable", reason: "This index was built without context: there is one side only." };
  try {
    encoder.withoutContext();
    return { state: "possible" };
  } catch (error) {
    if (!(error instanceof NoNullContextError)) throw error;
    return {
      state: "unavailable",
      reason: `${encoder.modelId} was trained without a null context and can't do without one.`,
    };
  }
}

const MOST_HITS = 100;
const MOST_UNITS = 10_000;

/** A query as it comes from outside. @throws InvalidInputError */
export function readQuery(body: unknown): Query {
  const fail = (what: string): never => {
    throw new InvalidInputError(`search: ${what}.`);
  };
  if (typeof body !== "object" || body === null || Array.isArray(body)) fail("the body must be a JSON object");
  const { query, k = 10, mode, filter, compare = false, ...others } = body as Readonly<Record<string, unknown>>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined)
    fail(`there is no field ${JSON.stringify(unknown)}; there are query, k, mode, filter, compare`);
  if (typeof query !== "string" || query.trim() === "") return fail("query must be a text that isn't blank");
  if (query.length > MOST_UNITS) fail(`query has ${query.length} UTF-16 units, at most ${MOST_UNITS} are taken`);
  if (!Number.isSafeInteger(k) || (k as number) < 1 || (k as number) > MOST_HITS) {
    fail(`k must be an integer from 1 to ${MOST_HITS}, got ${JSON.stringify(k)}`);
  }
  if (mode !== undefined && !MODES.includes(mode as SearchMode)) fail(`mode must be one of ${MODES.join(", ")}`);
  if (typeof compare !== "boolean") fail("compare must be true or false");
  // The index checks filters by itself.
  return {
    query,
    k: k as number,
    mode: mode as SearchMode | undefined,
    filter: filter as Filter | undefined,
    compare: compare as boolean,
  };
}
