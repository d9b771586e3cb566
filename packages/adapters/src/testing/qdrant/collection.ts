/** One collection of the double: its configuration, its points, and what the REST API does to them. */
import {
  badFormat,
  badRequest,
  invalid,
  isRecord,
  type Json,
  type JsonRecord,
  notFound,
  type ServerError,
  wrongInput,
} from "./errors.js";
import { matchesFilter, reach, visitFilter } from "./filter.js";
import {
  byScore,
  compareIds,
  type Distance,
  dbsf,
  mmr,
  normalised,
  rrf,
  type Scored,
  type Sparse,
  similarity,
  sparseDot,
  withIdf,
} from "./ranking.js";

interface Point {
  readonly id: number | string;
  payload: JsonRecord;
  readonly vectors: Map<string, number[] | Sparse>;
  version: number;
}

const UUID = /^(?:urn:uuid:)?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;
const DISTANCES = ["Cosine", "Euclid", "Dot", "Manhattan"];
const VECTORS_CONFIG = "data did not match any variant of untagged enum VectorsConfig";
const VECTOR_STRUCT = "data did not match any variant of untagged enum VectorStruct";

export class Collection {
  readonly #points = new Map<number | string, Point>();
  readonly #dense = new Map<string, JsonRecord>();
  readonly #sparse = new Map<string, JsonRecord>();
  readonly #indexes = new Map<string, JsonRecord>();
  readonly #given: JsonRecord;
  #metadata: JsonRecord | undefined;
  #strict: JsonRecord;
  /** The next operation's number. Changes of the schema take two. */
  #operation = 0;

  constructor(body: JsonRecord) {
    this.#given = body;
    for (const [name, params] of Object.entries(namedVectors(body.vectors))) this.#dense.set(name, params);
    for (const [name, params] of Object.entries(isRecord(body.sparse_vectors) ? body.sparse_vectors : {})) {
      this.#sparse.set(name, isRecord(params) ? params : {});
    }
    this.#metadata = isRecord(body.metadata) ? body.metadata : undefined;
    this.#strict = isRecord(body.strict_mode_config) ? body.strict_mode_config : {};
  }

  get size(): number {
    return this.#points.size;
  }

  /** The points as they are stored, by id: for tests that compare two collections. */
  dump(): { id: number | string; payload: JsonRecord; vectors: Record<string, number[] | Sparse> }[] {
    return this.#sorted().map(({ id, payload, vectors }) => ({ id, payload, vectors: Object.fromEntries(vectors) }));
  }

  info(): JsonRecord {
    const given = this.#given;
    const params: JsonRecord = {
      vectors: this.#unnamed() ?? Object.fromEntries(this.#dense),
      shard_number: given.shard_number ?? 1,
      replication_factor: given.replication_factor ?? 1,
      write_consistency_factor: given.write_consistency_factor ?? 1,
      on_disk_payload: given.on_disk_payload ?? true,
      ...(this.#sparse.size > 0 ? { sparse_vectors: Object.fromEntries(this.#sparse) } : {}),
    };
    const merged = (defaults: JsonRecord, own: Json | undefined): JsonRecord => {
      return { ...defaults, ...(isRecord(own) ? own : {}) };
    };
    return {
      status: "green",
      optimizer_status: "ok",
      indexed_vectors_count: 0,
      points_count: this.#points.size,
      segments_count: 2,
      config: {
        params,
        hnsw_config: merged(
          { m: 16, ef_construct: 100, full_scan_threshold: 10000, max_indexing_threads: 0, on_disk: false },
          given.hnsw_config,
        ),
        optimizer_config: merged(
          {
            deleted_threshold: 0.2,
            vacuum_min_vector_number: 1000,
            default_segment_number: 0,
            max_segment_size: null,
            memmap_threshold: null,
            indexing_threshold: 10000,
            flush_interval_sec: 5,
            max_optimization_threads: null,
            prevent_unoptimized: null,
          },
          given.optimizers_config,
        ),
        wal_config: merged({ wal_capacity_mb: 32, wal_segments_ahead: 0, wal_retain_closed: 1 }, given.wal_config),
        quantization_config: given.quantization_config ?? null,
        ...(Object.keys(this.#strict).length > 0 ? { strict_mode_config: this.#strict } : {}),
        ...(this.#metadata ? { metadata: this.#metadata } : {}),
      },
      payload_schema: Object.fromEntries(
        [...this.#indexes].map(([field, params]) => {
          const points = [...this.#points.values()].filter(({ payload }) => reach(payload, field).length > 0).length;
          return [field, { data_type: params.type as string, params, points }];
        }),
      ),
      update_queue: { length: 0 },
    };
  }

  update(body: JsonRecord): boolean {
    // Keys are replaced one by one, at the top level only; null removes one.
    if (isRecord(body.metadata)) {
      const merged = Object.entries({ ...this.#metadata, ...body.metadata });
      this.#metadata = Object.fromEntries(merged.filter(([, value]) => value !== null));
    }
    for (const [name, params] of Object.entries(isRecord(body.vectors) ? body.vectors : {})) {
      const before = this.#dense.get(name);
      if (!before) throw wrongInput(`Not existing vector name error: ${name}`);
      this.#dense.set(name, { ...before, ...(isRecord(params) ? params : {}) });
    }
    if (isRecord(body.strict_mode_config)) this.#strict = { ...this.#strict, ...body.strict_mode_config };
    return true;
  }

  createVector(name: string, body: JsonRecord): number {
    if (this.#dense.has(name) || this.#sparse.has(name)) throw wrongInput(`Vector with name ${name} already exists`);
    if (isRecord(body.dense)) this.#dense.set(name, checkedParams(body.dense));
    else if (isRecord(body.sparse)) this.#sparse.set(name, body.sparse);
    else throw badFormat("data did not match any variant of untagged enum VectorNameConfig");
    return this.#schemaOperation();
  }

  deleteVector(name: string): number {
    if (!this.#dense.delete(name) && !this.#sparse.delete(name))
      throw wrongInput(`Not existing vector name error: ${name}`);
    for (const point of this.#points.values()) point.vectors.delete(name);
    return this.#schemaOperation();
  }

  createIndex({ field_name, field_schema }: JsonRecord): number {
    if (typeof field_name !== "string") throw badFormat("missing field `field_name`");
    const params = isRecord(field_schema) ? field_schema : { type: (field_schema as string | undefined) ?? "keyword" };
    this.#indexes.set(field_name, params);
    return this.#schemaOperation();
  }

  deleteIndex(field: string): number {
    this.#indexes.delete(field);
    return this.#schemaOperation();
  }

  upsert(body: JsonRecord): number {
    if (isRecord(body.batch)) throw badRequest("this double takes points, not batch");
    if (!Array.isArray(body.points))
      throw badFormat("data did not match any variant of untagged enum PointInsertOperations");
    const points = body.points.map((point) => this.#parsePoint(point));
    if (points.length === 0) throw badRequest("Empty update request");
    this.#limit(points.length, this.#strict.upsert_max_batchsize, "upsert limit");
    for (const { vectors } of points) this.#requireNames(vectors.keys());
    // From here on the request is in the log and has a number, even where it is refused.
    const operation = ++this.#operation;
    const stored = points.map(({ id, payload, vectors }) => {
      const kept = new Map([...vectors].map(([name, vector]) => [name, this.#stored(name, vector)] as const));
      return { id, payload, vectors: kept, version: operation };
    });
    const mode = body.update_mode ?? "upsert";
    for (const point of stored) {
      const before = this.#points.get(point.id);
      if (before && mode === "insert_only") continue;
      if (!before && mode === "update_only") continue;
      if (before && body.update_filter !== undefined && !this.#matches(body.update_filter, before)) continue;
      this.#points.set(point.id, point);
    }
    return operation;
  }

  updateVectors(body: JsonRecord): number {
    if (!Array.isArray(body.points)) throw badFormat("missing field `points`");
    if (body.points.length === 0) throw badRequest("Empty update request");
    this.#limit(body.points.length, this.#strict.upsert_max_batchsize, "update limit");
    const points = body.points.map((point) => this.#parsePoint(point));
    for (const { vectors } of points) this.#requireNames(vectors.keys());
    const operation = ++this.#operation;
    for (const { id } of points) if (!this.#points.has(id)) throw notFound(`No point with id ${id} found`);
    for (const { id, vectors } of points) {
      const point = this.#points.get(id)!;
      if (body.update_filter !== undefined && !this.#matches(body.update_filter, point)) continue;
      for (const [name, vector] of vectors) point.vectors.set(name, this.#stored(name, vector));
      point.version = operation;
    }
    return operation;
  }

  deleteVectors(body: JsonRecord): number {
    const names = Array.isArray(body.vector) ? body.vector : Array.isArray(body.vectors) ? body.vectors : [];
    this.#requireNames(names.map(String));
    return this.#change(body, (point) => {
      for (const name of names) point.vectors.delete(String(name));
    });
  }

  deletePoints(body: JsonRecord): number {
    return this.#change(body, ({ id }) => this.#points.delete(id));
  }

  setPayload(body: JsonRecord): number {
    const { payload, key } = body;
    if (!isRecord(payload)) throw badFormat("missing field `payload`");
    return this.#change(body, (point) => {
      if (typeof key !== "string") point.payload = { ...point.payload, ...structuredClone(payload) };
      else point.payload = setAt(point.payload, key.split("."), payload) as JsonRecord;
    });
  }

  overwritePayload(body: JsonRecord): number {
    const { payload, key } = body;
    if (!isRecord(payload)) throw badFormat("missing field `payload`");
    if (typeof key === "string") throw badRequest("this double overwrites whole payloads only");
    return this.#change(body, (point) => {
      point.payload = structuredClone(payload);
    });
  }

  deletePayload(body: JsonRecord): number {
    const { keys } = body;
    if (!Array.isArray(keys)) throw badFormat("missing field `keys`");
    const names = keys.map((key) => {
      // A path of one step: a plain name, or any other in quotes.
      const path = /^(?:"([^"\\]+)"|([\p{L}\p{N}_-]+))$/su.exec(String(key));
      if (!path) throw badFormat(`Invalid json path: '${String(key)}'`);
      return path[1] ?? path[2]!;
    });
    return this.#change(body, (point) => {
      point.payload = Object.fromEntries(Object.entries(point.payload).filter(([name]) => !names.includes(name)));
    });
  }

  retrieve(body: JsonRecord): JsonRecord[] {
    if (!Array.isArray(body.ids)) throw badFormat("missing field `ids`");
    const found = body.ids.flatMap((id) => this.#points.get(checkedId(id)) ?? []);
    return found.map((point) => this.#record(point, { with_payload: true, ...body }));
  }

  scroll(body: JsonRecord): JsonRecord {
    const limit = this.#pageLimit(body.limit);
    this.#requireIndexes(body.filter, "unindexed_filtering_retrieve");
    const { offset } = body;
    const from = offset === undefined || offset === null ? undefined : checkedId(offset);
    const found = this.#sorted().filter(
      (point) => (from === undefined || compareIds(point.id, from) >= 0) && this.#matches(body.filter, point),
    );
    return {
      points: found.slice(0, limit).map((point) => this.#record(point, { with_payload: true, ...body })),
      next_page_offset: found[limit]?.id ?? null,
    };
  }

  count(body: JsonRecord): JsonRecord {
    this.#requireIndexes(body.filter, "unindexed_filtering_retrieve");
    return { count: [...this.#points.values()].filter((point) => this.#matches(body.filter, point)).length };
  }

  query(body: JsonRecord): JsonRecord {
    const limit = this.#pageLimit(body.limit);
    return { points: this.#search(body, limit).map((scored) => this.#scored(scored, body)) };
  }

  queryBatch(body: JsonRecord): JsonRecord[] {
    const searches = Array.isArray(body.searches) ? body.searches : [];
    this.#limit(searches.length, this.#strict.search_max_batchsize, "search batch size");
    return searches.map((search) => this.query(isRecord(search) ? search : {}));
  }

  queryGroups(body: JsonRecord): JsonRecord {
    const { group_by } = body;
    if (typeof group_by !== "string") throw badFormat("missing field `group_by`");
    const limit = this.#pageLimit(body.limit);
    const size = typeof body.group_size === "number" ? body.group_size : 3;
    const groups = new Map<Json, Scored[]>();
    for (const scored of this.#search({ ...body, offset: 0 }, Number.POSITIVE_INFINITY)) {
      for (const value of reach(this.#points.get(scored.id)!.payload, group_by).flat()) {
        if (typeof value !== "string" && typeof value !== "number") continue;
        const group = groups.get(value);
        if (group) {
          if (group.length < size) group.push(scored);
        } else if (groups.size < limit) groups.set(value, [scored]);
      }
    }
    return {
      groups: [...groups].map(([id, hits]) => ({ id, hits: hits.map((scored) => this.#scored(scored, body)) })),
    };
  }

  #search(body: JsonRecord, limit: number): Scored[] {
    const offset = typeof body.offset === "number" ? body.offset : 0;
    this.#requireIndexes(body.filter, "unindexed_filtering_retrieve");
    const { score_threshold: threshold, query } = body;
    const prefetches = body.prefetch === undefined || body.prefetch === null ? [] : [body.prefetch].flat();
    const lists = prefetches.map((prefetch) => {
      if (!isRecord(prefetch)) throw badFormat("data did not match any variant of Prefetch");
      return this.#search(prefetch, this.#pageLimit(prefetch.limit));
    });
    let ranked: Scored[];
    if (isRecord(query) && ("fusion" in query || "rrf" in query)) {
      if (lists.length === 0) throw badRequest("Fusion query requires at least one prefetch");
      if ("rrf" in query || query.fusion === "rrf") {
        const { k, weights } = isRecord(query.rrf) ? query.rrf : {};
        ranked = rrf(lists, typeof k === "number" ? k : 2, Array.isArray(weights) ? weights.map(Number) : undefined);
      } else if (query.fusion === "dbsf") ranked = dbsf(lists);
      else throw badFormat(`unknown variant \`${String(query.fusion)}\`, expected \`rrf\` or \`dbsf\``);
      ranked = ranked.filter(({ id }) => this.#matches(body.filter, this.#points.get(id)!));
    } else {
      const pool = lists.length > 0 ? new Set(lists.flat().map(({ id }) => id)) : undefined;
      ranked = this.#nearest(body, pool, offset + limit);
    }
    if (typeof threshold === "number") ranked = ranked.filter(({ score }) => score >= threshold);
    return ranked.slice(offset, offset + limit);
  }

  #nearest(body: JsonRecord, pool: Set<number | string> | undefined, wanted: number): Scored[] {
    const { using, filter, query } = body;
    const name = typeof using === "string" ? using : "";
    const nearest = isRecord(query) && "nearest" in query ? query.nearest : query;
    const among = [...this.#points.values()].filter(
      (point) => (pool === undefined || pool.has(point.id)) && this.#matches(filter, point),
    );
    if (nearest === undefined || nearest === null)
      return among.map(({ id }) => ({ id, score: 0 })).sort((a, b) => compareIds(a.id, b.id));
    if (this.#sparse.has(name)) {
      let sparse = checkedSparse(nearest as Json);
      if (this.#sparse.get(name)?.modifier === "idf") sparse = withIdf(sparse, this.#idfPopulation(name, body.params));
      return byScore(
        among.flatMap(({ id, vectors }) => {
          const vector = vectors.get(name) as Sparse | undefined;
          const score = vector && sparseDot(sparse, vector);
          return score === undefined ? [] : [{ id, score: Math.fround(score) }];
        }),
      );
    }
    const params = this.#dense.get(name);
    if (!params) throw wrongInput(`Not existing vector name error: ${name}`);
    if (!Array.isArray(nearest) || !nearest.every((x) => typeof x === "number")) {
      throw badFormat("data did not match any variant of untagged enum VectorInput");
    }
    if (nearest.length !== params.size) {
      throw wrongInput(`Vector dimension error: expected dim: ${params.size as number}, got ${nearest.length}`);
    }
    const distance = params.distance as Distance;
    const vector = distance === "Cosine" ? normalised(nearest as number[]) : (nearest as number[]);
    const ranked = byScore(
      among.flatMap(({ id, vectors }) => {
        const own = vectors.get(name) as number[] | undefined;
        return own === undefined ? [] : [{ id, score: Math.fround(similarity(distance, vector, own)) }];
      }),
      distance === "Cosine" || distance === "Dot",
    );
    if (!isRecord(query) || !isRecord(query.mmr)) return ranked;
    const { diversity, candidates_limit: candidates } = query.mmr;
    return mmr(ranked.slice(0, typeof candidates === "number" ? candidates : wanted), {
      diversity: typeof diversity === "number" ? diversity : 0.5,
      limit: wanted,
      similarityOf: (a, b) => {
        const vectorOf = (id: number | string): number[] => this.#points.get(id)!.vectors.get(name) as number[];
        return similarity(distance, vectorOf(a), vectorOf(b));
      },
    });
  }

  #idfPopulation(name: string, params: Json | undefined): Sparse[] {
    const idf = isRecord(params) ? params.idf : undefined;
    const corpus = isRecord(idf) ? idf.corpus : undefined;
    return [...this.#points.values()].flatMap((point) => {
      const vector = point.vectors.get(name) as Sparse | undefined;
      return vector && this.#matches(corpus, point) ? [vector] : [];
    });
  }

  #change(body: JsonRecord, change: (point: Point) => void): number {
    const { points, filter } = body;
    let selected: Point[];
    if (Array.isArray(points)) selected = points.flatMap((id) => this.#points.get(checkedId(id)) ?? []);
    else if (isRecord(filter)) {
      this.#requireIndexes(filter, "unindexed_filtering_update");
      selected = [...this.#points.values()].filter((point) => this.#matches(filter, point));
    } else throw badFormat("data did not match any variant of untagged enum PointsSelector");
    const operation = ++this.#operation;
    for (const point of selected) {
      change(point);
      point.version = operation;
    }
    return operation;
  }

  #schemaOperation(): number {
    this.#operation += 2;
    return this.#operation;
  }

  #matches(filter: Json | undefined, point: Point): boolean {
    if (filter === undefined || filter === null) return true;
    const textFields = new Set([...this.#indexes].filter(([, { type }]) => type === "text").map(([field]) => field));
    return matchesFilter(filter, point, { textFields });
  }

  #sorted(): Point[] {
    return [...this.#points.values()].sort((a, b) => compareIds(a.id, b.id));
  }

  #unnamed(): JsonRecord | undefined {
    return this.#dense.size === 1 ? this.#dense.get("") : undefined;
  }

  #parsePoint(value: Json): { id: number | string; payload: JsonRecord; vectors: Map<string, number[] | Sparse> } {
    if (!isRecord(value)) throw badFormat("invalid type: expected struct PointStruct");
    const id = checkedId(value.id as Json);
    const { vector, payload } = value;
    const vectors = new Map<string, number[] | Sparse>();
    if (Array.isArray(vector)) vectors.set("", numbers(vector));
    else if (isRecord(vector)) {
      for (const [name, entry] of Object.entries(vector)) {
        vectors.set(name, Array.isArray(entry) ? numbers(entry) : checkedSparse(entry));
      }
    } else throw badFormat(VECTOR_STRUCT);
    return { id, payload: isRecord(payload) ? payload : {}, vectors };
  }

  #requireNames(names: Iterable<string>): void {
    for (const name of names) {
      if (!this.#dense.has(name) && !this.#sparse.has(name))
        throw wrongInput(`Not existing vector name error: ${name}`);
    }
  }

  #stored(name: string, vector: number[] | Sparse): number[] | Sparse {
    const params = this.#dense.get(name);
    if (!params) {
      if (Array.isArray(vector)) throw wrongInput(`Wrong vector type for ${name}`);
      return vector;
    }
    if (!Array.isArray(vector)) throw wrongInput(`Wrong vector type for ${name}`);
    if (vector.length !== params.size) {
      const expected = `expected dim: ${params.size as number}, got ${vector.length}`;
      throw wrongInput(`Vector dimension error: ${expected}${name === "" ? "" : ` for vector '${name}'`}`);
    }
    return params.distance === "Cosine" ? normalised(vector) : vector.map(Math.fround);
  }

  #record(point: Point, body: JsonRecord): JsonRecord {
    const { with_payload: payload, with_vector: vector } = body;
    const names = vector === true ? [...point.vectors.keys()] : Array.isArray(vector) ? vector.map(String) : [];
    const vectors: JsonRecord = {};
    for (const name of names) {
      const own = point.vectors.get(name);
      if (own !== undefined) vectors[name] = structuredClone(own) as Json;
    }
    const shown =
      names.length === 0 ? undefined : vectors[""] !== undefined && names.length === 1 ? vectors[""] : vectors;
    return {
      id: point.id,
      ...(payload === true || Array.isArray(payload) || isRecord(payload)
        ? { payload: selectPayload(point.payload, payload) }
        : {}),
      ...(shown === undefined ? {} : { vector: shown }),
    };
  }

  #scored({ id, score }: Scored, body: JsonRecord): JsonRecord {
    const point = this.#points.get(id)!;
    const { id: _, ...rest } = this.#record(point, body);
    return { id, version: point.version, score: Math.fround(score), ...rest };
  }

  #pageLimit(limit: Json | undefined): number {
    const wanted = limit === undefined || limit === null ? 10 : limit;
    if (typeof wanted !== "number" || !Number.isSafeInteger(wanted)) throw badFormat("invalid type: expected usize");
    if (wanted < 1) throw invalid(`internal.limit: value ${wanted} invalid, must be 1 or larger`);
    this.#limit(wanted, this.#strict.max_query_limit, "limit");
    return wanted;
  }

  #limit(given: number, limit: Json | undefined, name: string): void {
    if (this.#strict.enabled !== true || typeof limit !== "number" || given <= limit) return;
    throw badRequest(
      `Limit exceeded ${given} > ${limit} for "${name}". Help: Reduce the "${name}" parameter to or below ${limit}.`,
    );
  }

  #requireIndexes(filter: Json | undefined, rule: string): void {
    let conditions = 0;
    let missing: ServerError | undefined;
    const mustIndex = this.#strict.enabled === true && this.#strict[rule] === false;
    visitFilter(filter, (condition) => {
      conditions++;
      if (!mustIndex || missing || typeof condition.key !== "string" || this.#indexes.has(condition.key)) return;
      missing = badRequest(
        `Index required but not found for "${condition.key}" of one of the following types: [${typesFor(condition)}]. ` +
          "Help: Create an index for this key or use a different filter.",
      );
    });
    const most = this.#strict.filter_max_conditions;
    if (this.#strict.enabled === true && typeof most === "number" && conditions > most) {
      throw badRequest(
        `Filter condition limit reached (${conditions} > ${most}). Help: Reduce the amount of conditions of your filter.`,
      );
    }
    if (missing) throw missing;
  }
}

function typesFor({ match, range }: JsonRecord): string {
  if (isRecord(range))
    return Object.values(range).some((bound) => typeof bound === "string") ? "datetime" : "float, integer";
  if (!isRecord(match)) return "keyword";
  const value = "value" in match ? match.value : Array.isArray(match.any) ? match.any[0] : "";
  return typeof value === "number"
    ? "integer"
    : typeof value === "boolean"
      ? "bool"
      : "text" in match
        ? "text"
        : "keyword";
}

function namedVectors(vectors: Json | undefined): Record<string, JsonRecord> {
  if (vectors === undefined || vectors === null) return {};
  if (!isRecord(vectors)) throw badFormat(VECTORS_CONFIG);
  if ("size" in vectors || "distance" in vectors) return { "": checkedParams(vectors) };
  return Object.fromEntries(Object.entries(vectors).map(([name, params]) => [name, checkedParams(params)]));
}

function checkedParams(params: Json): JsonRecord {
  if (!isRecord(params)) throw badFormat(VECTORS_CONFIG);
  const { size, distance } = params;
  const isSize = typeof size === "number" && Number.isSafeInteger(size) && size >= 1;
  if (!isSize || !DISTANCES.includes(distance as string)) throw badFormat(VECTORS_CONFIG);
  if (size > 65536) throw invalid(`vectors.size: value ${size} invalid, must be from 1 to 65536`);
  return params;
}

function checkedId(id: Json): number | string {
  if (typeof id === "number" && Number.isInteger(id) && id >= 0) return id;
  if (typeof id === "string" && UUID.test(id)) return id.toLowerCase();
  throw badFormat(
    `value ${typeof id === "string" ? id : JSON.stringify(id)} is not a valid point ID, valid values are either an unsigned integer or a UUID`,
  );
}

function numbers(vector: Json[]): number[] {
  if (!vector.every((x) => typeof x === "number")) throw badFormat(VECTOR_STRUCT);
  return vector as number[];
}

function checkedSparse(value: Json): Sparse {
  if (!isRecord(value) || !Array.isArray(value.indices) || !Array.isArray(value.values)) throw badFormat(VECTOR_STRUCT);
  const { indices, values } = value;
  const unsigned = (x: Json): boolean => typeof x === "number" && Number.isInteger(x) && x >= 0 && x < 2 ** 32;
  if (!indices.every(unsigned) || !values.every((x) => typeof x === "number")) throw badFormat(VECTOR_STRUCT);
  if (new Set(indices).size !== indices.length) {
    throw invalid("points[0].vector.?.indices: Validation error: must be unique [{}]");
  }
  if (indices.length !== values.length) {
    throw invalid("points[0].vector.?.values: Validation error: must be the same length as indices [{}]");
  }
  return { indices: indices as number[], values: (values as number[]).map(Math.fround) };
}

function setAt(target: Json | undefined, [name, ...rest]: string[], value: JsonRecord): Json {
  if (name === undefined) return { ...(isRecord(target) ? target : {}), ...structuredClone(value) };
  const own = isRecord(target) ? target : {};
  return { ...own, [name]: setAt(own[name], rest, value) };
}

function selectPayload(payload: JsonRecord, selector: Json): JsonRecord {
  const copy = structuredClone(payload);
  if (selector === true) return copy;
  const include = Array.isArray(selector) ? selector : isRecord(selector) ? selector.include : undefined;
  if (Array.isArray(include)) {
    let found: JsonRecord = {};
    for (const path of include.map(String)) {
      const [value] = reach(copy, path);
      const steps = path.split(".");
      const last = steps.pop()!;
      if (value !== undefined) found = setAt(found, steps, { [last]: value }) as JsonRecord;
    }
    return found;
  }
  const exclude = isRecord(selector) && Array.isArray(selector.exclude) ? selector.exclude.map(String) : [];
  for (const path of exclude) {
    const steps = path.split(".");
    const last = steps.pop()!;
    const [parent] = steps.length === 0 ? [copy] : reach(copy, steps.join("."));
    if (isRecord(parent)) delete parent[last];
  }
  return copy;
}
