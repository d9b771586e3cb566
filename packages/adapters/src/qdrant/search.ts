/** One search on the server: the order of steps, the fusions and the checks are those of the embedded engine. */
import { InvalidInputError, RuntimeFailureError } from "@cde-js/core";
import {
  type Analyzer,
  type Filter,
  type Fusion,
  type Hit,
  highlight,
  type JsonObject,
  maximalMarginalRelevance,
  querySparseVector,
  type Scoring,
  type SearchOptions,
  type SparseVector,
} from "@cde-js/retriever";
import {
  type AutoFusion,
  autoMix,
  type Candidate,
  hybridRanking,
  mergedRanking,
  planSearch,
  type Ranking,
  reranked,
  type SearchPlan,
  vectorFault,
  wellFormedFault,
} from "@cde-js/retriever/backend";
import { type PointId, readGroups, readScored, type ScoredAnswer } from "./answers.js";
import { type QdrantCollection, type StrictLimits, WORDS } from "./collection.js";
import { QdrantError } from "./errors.js";
import { serverFilter } from "./filters.js";
import { frequencyMass, rarityOf } from "./fusion.js";
import { jsonNumbers, metadataOf, type PassagePayload, RESERVED, readPassage } from "./points.js";
import type { GenerationEmbedder } from "./source.js";

/** Qdrant's own parameters of a search, in its own words. */
export type QdrantSearchParameters = Readonly<{
  /** Looks at every vector instead of the graph. */
  exact?: boolean;
  /** Width of the search in the graph. */
  hnsw_ef?: number;
  /** Leaves out segments that aren't indexed yet. */
  indexed_only?: boolean;
  quantization?: JsonObject;
  /** Filtered search in the graph by neighbours of neighbours. */
  acorn?: JsonObject;
}>;

/** What a search reads. */
export interface SearchParts {
  readonly collection: QdrantCollection;
  readonly generation: GenerationEmbedder;
  readonly analyzer: Analyzer | undefined;
  readonly tenant: string | undefined;
  readonly strict: StrictLimits;
  readonly parameters: QdrantSearchParameters;
  /** What the weights of mixes are chosen by; undefined where there is nothing to choose by. */
  autoFusion(): Promise<AutoFusion | undefined>;
  /** No passage weighs a word more. */
  readonly mostOfWord: number;
}

/** A point and the passage in its payload, both checked. */
interface Found {
  readonly point: ScoredAnswer;
  readonly passage: PassagePayload;
}

const withPassages = (points: readonly ScoredAnswer[]): Found[] =>
  points.map((point) => ({ point, passage: readPassage(point) }));

/** Nobody needs a document's whole text to show one passage of it. */
const SHOWN: JsonObject = { exclude: [`${RESERVED}.document`, `${RESERVED}.hash`] };
const OPERATION = "search";

/** @throws InvalidInputError, InvalidFilterError, QdrantError, RuntimeFailureError for a query vector that is none */
export async function searchServer(
  parts: SearchParts,
  query: string | Float32Array,
  options: SearchOptions,
): Promise<Hit[]> {
  const plan = planSearch(options, parts.analyzer !== undefined);
  if (typeof query === "string") {
    const textFault = wellFormedFault(query);
    if (textFault) throw new InvalidInputError(`search: the query ${textFault}.`);
    if (query.trim() === "") throw new InvalidInputError("search: the query is blank.");
  }
  plan.signal?.throwIfAborted();
  const asked = await Asked.prepare(parts, query, plan, options);
  const { offset, mmr, rerank, scoreThreshold } = plan;
  const wanted = offset + plan.k;
  // The server diversifies what it ranked itself, as long as nothing stands between.
  if (mmr && plan.mode === "dense" && !rerank && scoreThreshold === undefined && !plan.mergeByDocument) {
    if (wanted <= mmr.candidates) {
      const picked = await asked.diversified(wanted, mmr);
      return asked.hits(picked.slice(offset), plan.scoring);
    }
  }
  const pool = Math.max(wanted, rerank ? plan.rerankCandidates : (mmr?.candidates ?? 0));
  let list = await (await asked.ranking())(pool);
  let { scoring } = plan;
  if (rerank && list.length > 0) {
    list = reranked(list, await rerank(typeof query === "string" ? query : "", asked.hits(list, scoring)));
    plan.signal?.throwIfAborted();
    scoring = "rerank";
  }
  if (scoreThreshold !== undefined) list = list.filter(({ score }) => score >= scoreThreshold);
  if (mmr && list.length > 0) {
    const picked = await asked.pickDiverse(list.slice(0, mmr.candidates), {
      ...mmr,
      k: wanted,
      scale: scoring !== "cosine",
    });
    list = [...picked, ...list.slice(mmr.candidates)];
  }
  return asked.hits(list.slice(offset, wanted), scoring);
}

/** The two rankings of a hybrid search, and the frequency mass of its words where they are weighed. */
interface BothLists {
  readonly dense: Candidate[];
  readonly lexical: Candidate[];
  readonly mass: number;
}

/** A query with everything that its requests have in common, and the points that came back, by a number of each. */
class Asked {
  readonly #parts: SearchParts;
  readonly #query: string;
  readonly #plan: SearchPlan;
  readonly #filter: Filter | undefined;
  readonly #fusion: Fusion | undefined;
  /** Undefined for a search by words alone. */
  readonly #vector: number[] | undefined;
  /** Undefined for a search by meaning alone, and where the query has no words. */
  readonly #words: SparseVector | undefined;
  readonly #labels = new Map<PointId, number>();
  readonly #points: Found[] = [];
  /** Numbers of documents, for merging. */
  readonly #documents = new Map<string, number>();

  private constructor(
    parts: SearchParts,
    query: string,
    plan: SearchPlan,
    { filter, fusion }: { readonly filter: Filter | undefined; readonly fusion: Fusion | undefined },
    vector: Float32Array | undefined,
  ) {
    this.#parts = parts;
    this.#query = query;
    this.#plan = plan;
    this.#filter = filter;
    this.#fusion = fusion;
    this.#vector = vector && jsonNumbers(vector);
    const words = plan.mode === "dense" || !parts.analyzer ? undefined : querySparseVector(parts.analyzer, query);
    this.#words = words && words.indices.length > 0 ? words : undefined;
  }

  static async prepare(
    parts: SearchParts,
    query: string | Float32Array,
    plan: SearchPlan,
    options: SearchOptions,
  ): Promise<Asked> {
    const filter = serverFilter(options.filter, parts.tenant);
    const { embedder } = parts.generation;
    if (typeof query !== "string") {
      const fault = vectorFault(query, embedder.dimensions);
      if (fault) throw new InvalidInputError(`search: the query vector ${fault}.`);
      return new Asked(parts, "", plan, { filter, fusion: undefined }, query);
    }
    let vector: Float32Array | undefined;
    if (plan.mode !== "lexical") {
      vector = await embedder.embedQuery(query, plan.signal ? { signal: plan.signal } : {});
      const fault = vectorFault(vector, embedder.dimensions);
      if (fault) {
        throw new RuntimeFailureError(`search: the embedder ${embedder.modelId} gave a query vector that ${fault}.`);
      }
    }
    const fusion = options.fusion === "auto" ? undefined : options.fusion;
    return new Asked(parts, query, plan, { filter, fusion }, vector);
  }

  async ranking(): Promise<Ranking> {
    const { mode, mergeByDocument } = this.#plan;
    const dense: Ranking = (count) => this.#single("dense", count);
    const lexical: Ranking = (count) => this.#single("lexical", count);
    if (mode !== "hybrid") {
      if (!mergeByDocument) return mode === "dense" ? dense : lexical;
      // The server groups; no passage of a document but its best one travels.
      return (count) => this.#grouped(mode, count);
    }
    const ranking = this.#plan.scoring === "mix" ? await this.#mixed(dense, lexical) : this.#fused(dense);
    return mergeByDocument ? mergedRanking(ranking, (label) => this.#documentOf(label)) : ranking;
  }

  /** Maximal marginal relevance by the server: its `diversity` is 1 − lambda. */
  async diversified(
    count: number,
    { lambda, candidates }: { lambda: number; candidates: number },
  ): Promise<Candidate[]> {
    const query = { nearest: this.#vector, mmr: { diversity: 1 - lambda, candidates_limit: candidates } };
    this.#checkLimit(Math.max(count, candidates));
    return this.#candidates(await this.#send({ ...this.#dense(count), query }, count), "dense");
  }

  async pickDiverse(
    list: readonly Candidate[],
    { lambda, k, scale }: { lambda: number; k: number; scale: boolean },
  ): Promise<Candidate[]> {
    const { collection, generation } = this.#parts;
    const { vector: name } = generation;
    const ids = list.map(({ label }) => this.#points[label]!.point.id);
    const what = { with_payload: false, with_vector: [name] } as const;
    const found = await collection.retrieve(OPERATION, ids, what, this.#plan.signal);
    const vectors = new Map(found.map((point) => [point.id, point.vectors.get(name)] as const));
    const [high, low] = [list[0]?.score ?? 0, list.at(-1)?.score ?? 0];
    const relevance = (score: number): number => (!scale ? score : high > low ? (score - low) / (high - low) : 1);
    const candidates = list.flatMap(({ score }, i) => {
      const vector = vectors.get(ids[i] as PointId);
      // Deleted since it was found.
      return vector ? [{ id: i, score: relevance(score), vector }] : [];
    });
    return maximalMarginalRelevance(candidates, { lambda, k }).map(({ id }) => list[id] as Candidate);
  }

  hits(list: readonly Candidate[], scoring: Scoring): Hit[] {
    const analyzer = this.#plan.highlight ? this.#parts.analyzer : undefined;
    return list.map(({ label, score, ...scores }) => {
      const { point, passage } = this.#points[label]!;
      const { id, text, title, start, end } = passage;
      return {
        id,
        passage: { start, end },
        text,
        score,
        scoring,
        scores,
        ...(title === undefined ? {} : { title }),
        metadata: structuredClone(metadataOf(point.payload)),
        ...(analyzer ? { highlights: highlight(analyzer, this.#query, text) } : {}),
      };
    });
  }

  #dense(limit: number): { limit: number } {
    return { ...this.#common(limit, this.#filter), query: this.#vector, using: this.#parts.generation.vector } as {
      limit: number;
    };
  }

  #lexical(limit: number): { limit: number } {
    return this.#byWords(this.#words, this.#common(limit, this.#filter));
  }

  /** For each word of the query the passage that has most of it, whatever the query's filter keeps. */
  #eachWord(): { limit: number }[] {
    const { tenant } = this.#parts;
    const common = { ...this.#common(1, serverFilter(undefined, tenant)), with_payload: false, with_vector: [WORDS] };
    return (this.#words?.indices ?? []).map((index) => this.#byWords({ indices: [index], values: [1] }, common));
  }

  #byWords<Common extends object>(words: SparseVector | undefined, common: Common): Common {
    const { tenant, parameters } = this.#parts;
    // A tenant's words are weighed among its own passages, as in an index of its own.
    const corpus = { must: [{ key: `${RESERVED}.tenant`, match: { value: tenant } }] };
    const own = tenant === undefined ? {} : { params: { ...parameters, idf: { corpus } } };
    return { ...common, query: words, using: WORDS, ...own };
  }

  #common(limit: number, filter: Filter | undefined): { limit: number } {
    const { parameters } = this.#parts;
    return {
      limit,
      ...(filter === undefined ? {} : { filter }),
      ...(Object.keys(parameters).length === 0 ? {} : { params: parameters }),
    };
  }

  async #single(kind: "dense" | "lexical", count: number): Promise<Candidate[]> {
    if (kind === "lexical" && !this.#words) return [];
    const threshold = this.#threshold(kind);
    const body = kind === "dense" ? this.#dense(count) : this.#lexical(count);
    return this.#candidates(ordered(await this.#send({ ...body, ...threshold }, count)), kind);
  }

  /** For the server, a hair below what the caller asked for: it compares float32 numbers, and we compare again. */
  #threshold(kind: "dense" | "lexical"): object {
    const { scoreThreshold, rerank, mode } = this.#plan;
    if (scoreThreshold === undefined || rerank || mode !== kind) return {};
    return { score_threshold: scoreThreshold - 1e-5 * Math.max(1, Math.abs(scoreThreshold)) };
  }

  async #grouped(kind: "dense" | "lexical", count: number): Promise<Candidate[]> {
    if (kind === "lexical" && !this.#words) return [];
    this.#checkLimit(count);
    const body = kind === "dense" ? this.#dense(count) : this.#lexical(count);
    const groups = {
      ...body,
      ...this.#threshold(kind),
      group_by: `${RESERVED}.id`,
      group_size: 1,
      with_payload: SHOWN,
    };
    const { collection } = this.#parts;
    const read = readGroups(count);
    const { signal } = this.#plan;
    const found = await collection.request(
      OPERATION,
      "queryPointsGroups",
      groups,
      (result) => withPassages(read(result)),
      signal,
    );
    return this.#candidates(ordered(found), kind);
  }

  /** Both rankings, and how rare the words are, in one request; fused here by the code of the embedded engine. */
  async #mixed(dense: Ranking, lexical: Ranking): Promise<Ranking> {
    const { depth, isAuto, fuse, signal } = this.#plan;
    const choice = isAuto && this.#words ? await this.#parts.autoFusion() : undefined;
    signal?.throwIfAborted();
    let both: Promise<BothLists> | undefined;
    let mass = 0;
    const part = (which: "dense" | "lexical", alone: Ranking): Ranking => {
      return async (count) => {
        if (count > depth) return alone(count);
        both ??= this.#bothLists(depth, choice !== undefined);
        const lists = await both;
        mass = lists.mass;
        return lists[which].slice(0, count);
      };
    };
    return hybridRanking(part("dense", dense), part("lexical", lexical), {
      depth,
      fuse: choice ? (...lists) => autoMix(choice, mass)(...lists) : fuse,
    });
  }

  /** @throws QdrantError also for words that passages have and no passage has */
  async #bothLists(depth: number, weighed: boolean): Promise<BothLists> {
    const { collection, strict, mostOfWord } = this.#parts;
    if (!this.#words) return { dense: await this.#single("dense", depth), lexical: [], mass: 0 };
    this.#checkLimit(depth);
    const words = this.#words;
    const lists = [this.#dense(depth), this.#lexical(depth)].map((body) => ({ ...body, with_payload: SHOWN }));
    const searches = [...lists, ...(weighed ? this.#eachWord() : [])];
    // Again where passages went in between.
    for (let attempt = 0; ; attempt++) {
      const [first, second, ...rarities] = await collection.queryAll(
        OPERATION,
        searches,
        strict.searchBatch,
        (answer, i) =>
          i < lists.length
            ? { found: withPassages(answer), rarity: 0 }
            : { found: [], rarity: rarityOf(words.indices[i - lists.length] as number, answer, mostOfWord) },
        this.#plan.signal,
      );
      const [dense, lexical] = [ordered(first!.found), ordered(second!.found)];
      const mass = weighed
        ? frequencyMass(
            words,
            rarities.map(({ rarity }) => rarity),
          )
        : 0;
      if (!weighed || mass > 0 || lexical.length === 0) {
        return { dense: this.#candidates(dense, "dense"), lexical: this.#candidates(lexical, "lexical"), mass };
      }
      if (attempt === 0) continue;
      throw new QdrantError(
        "QDRANT_ANSWER",
        `search: ${collection.connection.name} finds ${lexical.length} passages of "${collection.name}" by the query's words, and ` +
          "none by any of them alone. Name a fusion to search without weighing words.",
      );
    }
  }

  /** Reciprocal ranks or score distributions, by the server in one request. Then, as embedded, the dense ranking. */
  #fused(dense: Ranking): Ranking {
    const { depth } = this.#plan;
    const fusion = this.#fusion;
    const head = async (limit: number): Promise<Candidate[]> => {
      this.#checkLimit(Math.max(limit, depth));
      const prefetch = [this.#dense(depth), ...(this.#words ? [this.#lexical(depth)] : [])];
      let query: object = { fusion: "dbsf" };
      if (fusion?.kind === "rrf") {
        const weights = fusion.weights?.slice(0, prefetch.length);
        query = { rrf: { k: fusion.k, ...(weights ? { weights } : {}) } };
      }
      return this.#candidates(ordered(await this.#send({ prefetch, query, limit }, limit)));
    };
    return async (count) => {
      const limit = Math.min(count, 2 * depth);
      const first = await head(limit);
      if (first.length === count) return first;
      const seen = new Set(first.map(({ label }) => label));
      const score = Math.min(0, first.at(-1)?.score ?? 0);
      const rest = (await dense(count)).filter(({ label }) => !seen.has(label));
      return [...first, ...rest.slice(0, count - first.length).map((candidate) => ({ ...candidate, score }))];
    };
  }

  /** In the server's order. */
  async #send(body: object, limit: number): Promise<Found[]> {
    this.#checkLimit(limit);
    const { collection } = this.#parts;
    const args = { ...body, limit, with_payload: SHOWN };
    const read = readScored(limit);
    const { signal } = this.#plan;
    return await collection.request(OPERATION, "queryPoints", args, (result) => withPassages(read(result)), signal);
  }

  #checkLimit(limit: number): void {
    const { queryLimit } = this.#parts.strict;
    if (limit <= queryLimit) return;
    throw new QdrantError(
      "QDRANT_LIMIT",
      `search: this search looks at ${limit} passages, and the strict mode of "${this.#parts.collection.name}" allows ` +
        `${queryLimit} (max_query_limit). Ask for fewer: k, offset, fusion.depth, mmr.candidates, rerankCandidates.`,
    );
  }

  /** Points by our own numbers, in their order. */
  #candidates(found: readonly Found[], part?: "dense" | "lexical"): Candidate[] {
    return found.map(({ point, passage }) => {
      const { score } = point;
      return { label: this.#labelOf(point, passage), score, ...(part === undefined ? {} : { [part]: score }) };
    });
  }

  #labelOf(point: ScoredAnswer, passage: PassagePayload): number {
    const known = this.#labels.get(point.id);
    if (known !== undefined) return known;
    this.#labels.set(point.id, this.#points.length);
    return this.#points.push({ point, passage }) - 1;
  }

  #documentOf(label: number): number {
    const { id } = this.#points[label]!.passage;
    const known = this.#documents.get(id) ?? this.#documents.size;
    this.#documents.set(id, known);
    return known;
  }
}

/** Best first; equal scores by document and passage, since the server leaves their order open. */
function ordered(found: readonly Found[]): Found[] {
  return [...found].sort(
    (a, b) =>
      b.point.score - a.point.score ||
      (a.passage.id < b.passage.id ? -1 : a.passage.id > b.passage.id ? 1 : a.passage.n - b.passage.n),
  );
}
