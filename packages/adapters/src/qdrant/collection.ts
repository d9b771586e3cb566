/** A collection of ours: made once, read and checked at each opening, and the requests that go to it. */
import { InvalidInputError } from "@cde-js/core";
import type { AnalyzerOptions, AutoFusion, JsonObject } from "@cde-js/retriever";
import { fusionFault } from "@cde-js/retriever/backend";
import { checkCollectionName } from "./address.js";
import {
  isRecord,
  type PointAnswer,
  type PointId,
  readCount,
  readPage,
  readPoints,
  readScored,
  readScoredBatch,
  readTrue,
  readUpdate,
  type ScoredAnswer,
} from "./answers.js";
import type { RequestName } from "./client.js";
import { type QdrantConnection, Unsound } from "./connection.js";
import { QdrantError } from "./errors.js";
import { RESERVED } from "./points.js";

/** The named vector of base vectors, from which spectral contexts are mapped. */
export const BASE = "base";
/** The named sparse vector of words. */
export const WORDS = "bm25";
/** Before the name of a vector: the key in the collection's metadata of what mixes are weighed by. */
const FUSION = `${RESERVED}.fusion.`;

/** One context's vectors. */
export interface Generation {
  /** Counts from 1 over all that the collection ever had. */
  readonly number: number;
  /** The named vector. */
  readonly vector: string;
  readonly modelId: string;
  readonly contextFingerprint: string;
  readonly dimensions: number;
}

/** How words became sparse vectors; frozen, because it is baked into every stored weight. */
export interface LexicalRecord {
  readonly analyzer: AnalyzerOptions;
  /** Names the terms that the analyzer gives. */
  readonly analyzerId: string;
  readonly k1: number;
  readonly b: number;
  /** Terms of a passage that has any, on average; null until the first write has measured it. */
  readonly averageLength: number | null;
}

/** What the collection's metadata hold under "cde". */
export interface CollectionRecord extends Omit<Generation, "number"> {
  readonly format: "cde-qdrant/2";
  readonly sdk: string;
  /** The name that ids are made from; it stays where an alias or a copy has another. */
  readonly name: string;
  /** Number of the generation that answers. */
  readonly generation: number;
  readonly baseFingerprint: string | null;
  readonly lexical: LexicalRecord | null;
  readonly tenants: boolean;
  /** Of generations that are made later: Qdrant's parameters of a vector. */
  readonly vectorParams: JsonObject;
  /** The generation that answered before, kept for a way back. */
  readonly previous: Generation | null;
  /** A generation that is being filled. */
  readonly migration: Generation | null;
}

/** Limits of the collection's strict mode; infinite where there are none. */
export interface StrictLimits {
  readonly queryLimit: number;
  readonly upsertBatch: number;
  readonly searchBatch: number;
}

export interface CollectionState {
  readonly record: CollectionRecord;
  /** What mixes are weighed by, for each vector whose passages were asked. */
  readonly fusion: ReadonlyMap<string, AutoFusion>;
  /** Dense vectors by name. */
  readonly vectors: ReadonlyMap<string, { readonly size: number; readonly distance: string }>;
  readonly sparse: ReadonlyMap<string, string | undefined>;
  readonly strict: StrictLimits;
}

export class QdrantCollection {
  readonly connection: QdrantConnection;
  readonly name: string;
  /** Ends all requests. */
  readonly #closing: AbortSignal | undefined;

  constructor(connection: QdrantConnection, name: string, closing?: AbortSignal) {
    checkCollectionName(name);
    this.connection = connection;
    this.name = name;
    this.#closing = closing;
  }

  /** What is there; undefined where there is no such collection. @throws QdrantError for one that isn't ours */
  async find(operation: string, signal?: AbortSignal): Promise<CollectionState | undefined> {
    try {
      return await this.request(operation, "getCollection", {}, (result) => this.#readState(operation, result), signal);
    } catch (error) {
      if (error instanceof QdrantError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** @throws QdrantError where there is none */
  async state(operation: string, signal?: AbortSignal): Promise<CollectionState> {
    const found = await this.find(operation, signal);
    if (found) return found;
    throw new QdrantError(
      "QDRANT_COLLECTION",
      `${operation}: ${this.connection.name} has no collection "${this.name}". Make it with QdrantIndex.create or build.`,
      { status: 404 },
    );
  }

  /** Makes it with everything that has to be there before the first write. One that somebody made meanwhile stays. */
  async create(
    record: CollectionRecord,
    options: {
      readonly parameters: JsonObject;
      readonly vectors: JsonObject;
      readonly indexes: Readonly<Record<string, string | JsonObject>>;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<void> {
    const { parameters, vectors, indexes, signal } = options;
    const body = {
      ...parameters,
      vectors,
      ...(record.lexical ? { sparse_vectors: { [WORDS]: { modifier: "idf" } } } : {}),
      metadata: { [RESERVED]: record },
    };
    try {
      await this.request("create", "createCollection", body, readTrue, signal);
    } catch (error) {
      // Of another worker, or our own, whose answer was lost.
      if (!(error instanceof QdrantError && error.status === 409)) throw error;
    }
    // Again by everyone who finds it: whoever made it may have ended before it had them all. A repetition changes nothing.
    for (const [field, schema] of Object.entries(indexes)) await this.index(field, schema, signal);
  }

  async index(field: string, schema: string | JsonObject, signal?: AbortSignal): Promise<void> {
    const args = { wait: true, field_name: field, field_schema: schema };
    await this.request("create", "createFieldIndex", args, readUpdate, signal);
  }

  /** @param dropped a vector that is about to go, with what was chosen for it */
  async writeRecord(
    operation: string,
    record: CollectionRecord,
    signal?: AbortSignal,
    dropped?: string,
  ): Promise<void> {
    const metadata = { [RESERVED]: record, ...(dropped === undefined ? {} : { [FUSION + dropped]: null }) };
    await this.request(operation, "updateCollection", { metadata }, readTrue, signal);
  }

  /** Under a key of its own for each vector: a server merges metadata by key, so nobody overwrites a record read before. */
  async writeFusion(operation: string, vector: string, fusion: AutoFusion): Promise<void> {
    await this.request(operation, "updateCollection", { metadata: { [FUSION + vector]: fusion } }, readTrue);
  }

  /** Adds an empty named vector; one that is there stays. */
  async addVector(
    operation: string,
    { vector, dimensions }: Generation,
    params: JsonObject,
    signal?: AbortSignal,
  ): Promise<void> {
    const { datatype, ...later } = params;
    const dense = { size: dimensions, distance: "Cosine", ...(datatype === undefined ? {} : { datatype }) };
    const args = { vector_name: vector, wait: true, dense };
    try {
      await this.request(operation, "createVectorName", args, readUpdate, signal);
    } catch (error) {
      if (!(await this.#refused(operation, error, vector, signal))) throw error;
    }
    if (Object.keys(later).length === 0) return;
    await this.request(operation, "updateCollection", { vectors: { [vector]: later } }, readTrue, signal);
  }

  /** Removes a named vector with all it holds; one that isn't there is no error. */
  async dropVector(operation: string, vector: string, signal?: AbortSignal): Promise<void> {
    try {
      await this.request(operation, "deleteVectorName", { vector_name: vector, wait: true }, readUpdate, signal);
    } catch (error) {
      if (await this.#refused(operation, error, vector, signal)) throw error;
    }
  }

  /** After a refused change of a vector: whether it is there. Words of refusals differ by version; the state doesn't. */
  async #refused(operation: string, error: unknown, vector: string, signal?: AbortSignal): Promise<boolean> {
    const { status = 0 } = error as Partial<QdrantError>;
    if (!(error instanceof QdrantError) || status < 400 || status >= 500) throw error;
    return (await this.state(operation, signal)).vectors.has(vector);
  }

  async count(operation: string, filter: object | undefined, signal?: AbortSignal): Promise<number> {
    const args = { exact: true, ...(filter === undefined ? {} : { filter }) };
    return await this.request(operation, "countPoints", args, readCount, signal);
  }

  /** Those of these points that are there, in no order. */
  async retrieve(
    operation: string,
    ids: readonly PointId[],
    what: { readonly with_payload: boolean | JsonObject | readonly string[]; readonly with_vector?: readonly string[] },
    signal?: AbortSignal,
  ): Promise<PointAnswer[]> {
    if (ids.length === 0) return [];
    return await this.request(operation, "getPoints", { ids, ...what }, readPoints(ids.length), signal);
  }

  /** All points that a filter keeps, page by page, by their ids. */
  async *scroll(
    operation: string,
    args: {
      readonly filter?: object;
      readonly with_payload: boolean | JsonObject | readonly string[];
      readonly with_vector?: readonly string[];
      /** Where to begin. */
      readonly offset?: PointId;
    },
    page: number,
    signal?: AbortSignal,
  ): AsyncGenerator<PointAnswer[]> {
    let { offset } = args;
    do {
      const body = { ...args, limit: page, ...(offset === undefined ? {} : { offset }) };
      const { points, next } = await this.request(operation, "scrollPoints", body, readPage(page), signal);
      yield points;
      offset = next;
    } while (offset !== undefined);
  }

  /** Searches in batches of at most `most`, which are requests of their own where that is 1. Answers in their order. */
  async queryAll<T>(
    operation: string,
    searches: readonly { readonly limit: number }[],
    most: number,
    read: (answer: ScoredAnswer[], search: number) => T,
    signal?: AbortSignal,
  ): Promise<T[]> {
    const size = Math.min(most, Math.max(1, searches.length));
    const requests: Promise<T[]>[] = [];
    for (let at = 0; at < searches.length; at += size) {
      const some = searches.slice(at, at + size);
      const [first] = some as [{ readonly limit: number }];
      const readOne = readScored(first.limit);
      const readSome = readScoredBatch(some.map(({ limit }) => limit));
      const request =
        most === 1
          ? this.request(operation, "queryPoints", first, (result) => [read(readOne(result), at)], signal)
          : this.request(
              operation,
              "queryBatchPoints",
              { searches: some },
              (result) => readSome(result).map((answer, i) => read(answer, at + i)),
              signal,
            );
      requests.push(request);
    }
    return (await Promise.all(requests)).flat();
  }

  /** A request with the collection's name in it. */
  request<T>(
    operation: string,
    request: RequestName,
    args: object,
    read: (result: unknown) => T,
    signal?: AbortSignal,
  ): Promise<T> {
    const all = { collection_name: this.name, ...args };
    return this.connection.call({ operation, request, args: all, read, signal, closing: this.#closing });
  }

  #readState(operation: string, result: unknown): CollectionState {
    const config = isRecord(result) ? result.config : undefined;
    if (!isRecord(config) || !isRecord(config.params)) throw new Unsound("a collection without configuration");
    const { vectors, sparse_vectors: sparse } = config.params;
    const dense = new Map<string, { size: number; distance: string }>();
    for (const [name, params] of Object.entries(isRecord(vectors) && !("size" in vectors) ? vectors : {})) {
      if (!isRecord(params) || !Number.isSafeInteger(params.size) || typeof params.distance !== "string") {
        throw new Unsound(`a vector "${name}" without size and distance`);
      }
      dense.set(name, { size: params.size as number, distance: params.distance });
    }
    const words = Object.entries(isRecord(sparse) ? sparse : {}).map(([name, params]) => {
      const modifier = isRecord(params) && typeof params.modifier === "string" ? params.modifier : undefined;
      return [name, modifier] as const;
    });
    const metadata = isRecord(config.metadata) ? config.metadata : {};
    return {
      record: this.#readRecord(operation, metadata[RESERVED]),
      fusion: this.#readFusion(operation, metadata),
      vectors: dense,
      sparse: new Map(words),
      strict: readStrict(config.strict_mode_config),
    };
  }

  #readFusion(operation: string, metadata: Readonly<Record<string, unknown>>): Map<string, AutoFusion> {
    const found = new Map<string, AutoFusion>();
    for (const [key, value] of Object.entries(metadata)) {
      if (!key.startsWith(FUSION) || value === null) continue;
      const fault = fusionFault(value);
      if (fault) {
        throw new QdrantError(
          "QDRANT_COLLECTION",
          `${operation}: "${key}" in the metadata of the collection "${this.name}" ${fault}. Set it to null, and it is ` +
            "measured again.",
        );
      }
      found.set(key.slice(FUSION.length), value as AutoFusion);
    }
    return found;
  }

  #readRecord(operation: string, value: unknown): CollectionRecord {
    const foreign = (what: string): QdrantError =>
      new QdrantError(
        "QDRANT_COLLECTION",
        `${operation}: the collection "${this.name}" ${what}, so nothing says which context its vectors belong to. ` +
          "Use a collection made by this adapter.",
      );
    if (!isRecord(value)) throw foreign(`has no "${RESERVED}" in its metadata`);
    const isText = (...names: string[]): boolean => names.every((name) => typeof value[name] === "string");
    if (value.format === "cde-qdrant/1") {
      throw new QdrantError(
        "QDRANT_COLLECTION",
        `${operation}: the collection "${this.name}" has the format cde-qdrant/1, whose points don't say which of them are drawn. Build it again.`,
      );
    }
    if (value.format !== "cde-qdrant/2") throw foreign(`has the format ${JSON.stringify(value.format)}`);
    const sound =
      isText("sdk", "name", "modelId", "contextFingerprint", "vector") &&
      Number.isSafeInteger(value.dimensions) &&
      Number.isSafeInteger(value.generation) &&
      typeof value.tenants === "boolean" &&
      isRecord(value.vectorParams) &&
      (value.baseFingerprint === null || isText("baseFingerprint")) &&
      isGeneration(value.previous) &&
      isGeneration(value.migration) &&
      isLexical(value.lexical);
    if (!sound) throw foreign(`has a "${RESERVED}" in its metadata that was altered`);
    return value as unknown as CollectionRecord;
  }
}

function isGeneration(value: unknown): boolean {
  if (value === null) return true;
  if (!isRecord(value)) return false;
  const { number, vector, modelId, contextFingerprint, dimensions } = value;
  const texts = [vector, modelId, contextFingerprint].every((text) => typeof text === "string");
  return texts && Number.isSafeInteger(number) && Number.isSafeInteger(dimensions);
}

function isLexical(value: unknown): boolean {
  if (value === null) return true;
  if (!isRecord(value)) return false;
  const { analyzer, analyzerId, k1, b, averageLength } = value;
  const length = averageLength === null || (typeof averageLength === "number" && averageLength > 0);
  return isRecord(analyzer) && typeof analyzerId === "string" && Number.isFinite(k1) && Number.isFinite(b) && length;
}

function readStrict(value: unknown): StrictLimits {
  const limit = (name: string): number => {
    const found = isRecord(value) && value.enabled === true ? value[name] : undefined;
    return typeof found === "number" && found >= 1 ? found : Number.POSITIVE_INFINITY;
  };
  return {
    queryLimit: limit("max_query_limit"),
    upsertBatch: limit("upsert_max_batchsize"),
    searchBatch: limit("search_max_batchsize"),
  };
}

/** The named vector of a context: equal on every machine, so that workers that start together mean the same one. */
export function vectorNameOf(contextFingerprint: string): string {
  if (contextFingerprint === "") throw new InvalidInputError("qdrant: the embedder has an empty fingerprint.");
  return `context-${contextFingerprint.slice(0, 16)}`;
}

/** The generation that answers. */
export function currentOf(record: CollectionRecord): Generation {
  const { generation: number, vector, modelId, contextFingerprint, dimensions } = record;
  return { number, vector, modelId, contextFingerprint, dimensions };
}
