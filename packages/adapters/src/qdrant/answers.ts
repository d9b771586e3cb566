/** Takes the server's answers apart: types, ids, numbers and sizes, before anything is believed. */
import type { JsonObject, JsonValue, SparseVector } from "@cde-js/retriever";
import { Unsound } from "./connection.js";

export type PointId = string | number;

/** A point as `retrieve`, `scroll` and `query` give it. */
export interface PointAnswer {
  readonly id: PointId;
  readonly payload: JsonObject;
  /** By name; empty where no vectors were asked for. */
  readonly vectors: ReadonlyMap<string, Float32Array>;
  readonly sparse: ReadonlyMap<string, SparseVector>;
}

export interface ScoredAnswer extends PointAnswer {
  readonly score: number;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** A write that is done. `acknowledged` and `wait_timeout` aren't, and a write here can be repeated. */
export function readUpdate(result: unknown): void {
  const status = isRecord(result) ? result.status : undefined;
  if (status === "completed") return;
  throw new Unsound(`a write is ${show(status)}, expected "completed"`);
}

/** Creating and changing collections. */
export function readTrue(result: unknown): void {
  if (result !== true) throw new Unsound(`expected true, got ${show(result)}`);
}

export function readCount(result: unknown): number {
  const count = isRecord(result) ? result.count : undefined;
  if (Number.isSafeInteger(count) && (count as number) >= 0) return count as number;
  throw new Unsound(`expected a count, got ${show(count)}`);
}

/** At most `most` points, in the server's order. */
export function readScored(most: number): (result: unknown) => ScoredAnswer[] {
  return (result) => list(isRecord(result) ? result.points : undefined, most, "points").map(scored);
}

/** The answers of as many searches, each of at most so many points. */
export function readScoredBatch(most: readonly number[]): (result: unknown) => ScoredAnswer[][] {
  return (result) => {
    const answers = list(result, most.length, "answers");
    if (answers.length !== most.length) throw new Unsound(`${answers.length} answers to ${most.length} queries`);
    return answers.map((answer, i) => readScored(most[i] as number)(answer));
  };
}

/** The best point of each of at most `most` groups. */
export function readGroups(most: number): (result: unknown) => ScoredAnswer[] {
  return (result) =>
    list(isRecord(result) ? result.groups : undefined, most, "groups").flatMap((group) =>
      list(isRecord(group) ? group.hits : undefined, 1, "hits of a group").map(scored),
    );
}

export function readPoints(most: number): (result: unknown) => PointAnswer[] {
  return (result) => list(result, most, "points").map(point);
}

export function readPage(most: number): (result: unknown) => { points: PointAnswer[]; next: PointId | undefined } {
  return (result) => {
    if (!isRecord(result)) throw new Unsound("expected a page of points");
    const next = result.next_page_offset;
    return {
      points: list(result.points, most, "points").map(point),
      next: next === null || next === undefined ? undefined : pointId(next),
    };
  };
}

function scored(value: unknown): ScoredAnswer {
  const score = isRecord(value) ? value.score : undefined;
  if (!Number.isFinite(score)) throw new Unsound(`a point has the score ${show(score)}`);
  return { ...point(value), score: score as number };
}

function point(value: unknown): PointAnswer {
  if (!isRecord(value)) throw new Unsound(`expected a point, got ${show(value)}`);
  const { payload, vector } = value;
  if (payload !== undefined && payload !== null && !isRecord(payload)) {
    throw new Unsound(`a point has ${show(payload)} as payload`);
  }
  const vectors = new Map<string, Float32Array>();
  const sparse = new Map<string, SparseVector>();
  for (const [name, entry] of Object.entries(isRecord(vector) ? vector : {})) {
    if (!Array.isArray(entry)) {
      sparse.set(name, sparseVector(name, entry));
      continue;
    }
    if (!entry.every(Number.isFinite)) throw new Unsound(`the vector ${show(name)} of a point holds what is no number`);
    vectors.set(name, Float32Array.from(entry as number[]));
  }
  return { id: pointId(value.id), payload: plain(payload ?? {}) as JsonObject, vectors, sparse };
}

function sparseVector(name: string, value: unknown): SparseVector {
  const { indices, values } = isRecord(value) ? value : {};
  const isIndex = (index: unknown): boolean =>
    Number.isInteger(index) && (index as number) >= 0 && (index as number) < 2 ** 32;
  const sound =
    Array.isArray(indices) &&
    Array.isArray(values) &&
    indices.length === values.length &&
    indices.every(isIndex) &&
    values.every(Number.isFinite);
  if (sound) return { indices, values };
  throw new Unsound(`the vector ${show(name)} of a point is neither numbers nor indices with values`);
}

function pointId(id: unknown): PointId {
  if (typeof id === "string" && UUID.test(id)) return id;
  if (Number.isSafeInteger(id) && (id as number) >= 0) return id as number;
  throw new Unsound(`a point has the id ${show(id)}`);
}

function list(value: unknown, most: number, what: string): unknown[] {
  if (!Array.isArray(value)) throw new Unsound(`expected ${what}, got ${show(value)}`);
  if (value.length > most) throw new Unsound(`${value.length} ${what}, asked for ${most}`);
  return value;
}

/** Newer runtimes let the client read large whole numbers as bigint, which is no JSON value of ours. */
function plain(value: unknown): JsonValue {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (!isRecord(value)) return value as JsonValue;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]));
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  return typeof value === "object" && value !== null
    ? Array.isArray(value)
      ? "an array"
      : "an object"
    : String(value);
}
