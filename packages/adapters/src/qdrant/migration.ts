/** Moves a collection to another context while it answers: a new named vector, filled, checked, switched to. */
import { createHash } from "node:crypto";
import { remap } from "@cde-js/core";
import type { JsonObject } from "@cde-js/retriever";
import { type PointAnswer, readUpdate } from "./answers.js";
import {
  BASE,
  type CollectionRecord,
  type CollectionState,
  currentOf,
  type Generation,
  type QdrantCollection,
} from "./collection.js";
import { QdrantError } from "./errors.js";
import { batches, jsonNumbers, RESERVED, readPassage } from "./points.js";
import { checkVectors, type GenerationEmbedder } from "./source.js";

export interface MigrationProgress {
  readonly step: "filling" | "checking" | "done";
  /** Passages that have the new vector, of those that need it. */
  readonly done: number;
  readonly total: number;
}

export interface Migrating {
  readonly collection: QdrantCollection;
  readonly state: CollectionState;
  readonly next: GenerationEmbedder;
  readonly abandon: boolean;
  /** What the next generation needs beside its vectors, before it answers. */
  prepare(): Promise<void>;
  readonly signal: AbortSignal | undefined;
  readonly onProgress?: (progress: MigrationProgress) => void;
}

/** Points read, mapped and written at once. */
const PAGE = 256;
/** Passages whose new vector is computed again before the switch. */
const CHECKED = 64;
/** Below this cosine two computations of one vector are of two contexts. */
const SAME = 0.999;
const OPERATION = "recontext";

/**
 * Every step can be repeated: a vector that is there stays, points that have it are passed over.
 *
 * @returns the record after the switch, and how many passages got their vector now
 * @throws QdrantError where another change is unfinished, or the new vectors aren't those of the context
 */
export async function migrate(job: Migrating): Promise<{ readonly record: CollectionRecord; readonly filled: number }> {
  const { collection, next, abandon, signal } = job;
  const { embedder, base, vector } = next;
  let { record } = job.state;
  if (base && record.baseFingerprint !== base.embedder.fingerprint) {
    throw new QdrantError(
      "QDRANT_COLLECTION",
      `recontext: "${collection.name}" keeps ${record.baseFingerprint === null ? "no base vectors" : `base vectors of ${record.baseFingerprint}`}, ` +
        `base.embedder is ${base.embedder.fingerprint}. Leave base out: stored texts are embedded again.`,
    );
  }
  const { migration } = record;
  if (migration && migration.vector !== vector) {
    if (!abandon) {
      throw new QdrantError(
        "QDRANT_COLLECTION",
        `recontext: a change of "${collection.name}" to the context ${migration.contextFingerprint} is unfinished, and ` +
          `this one is to ${embedder.fingerprint}. Finish it first, or drop it with { abandon: true }.`,
      );
    }
    record = { ...record, migration: null };
    // What answered before stays for a way back, whoever filled it again.
    const dropped = migration.vector === record.previous?.vector ? undefined : migration.vector;
    await collection.writeRecord(OPERATION, record, signal, dropped);
    if (dropped !== undefined) await collection.dropVector(OPERATION, dropped, signal);
  }
  const isCurrent = record.vector === vector;
  const target: Generation = {
    number: record.generation + 1,
    vector,
    modelId: embedder.modelId,
    contextFingerprint: embedder.fingerprint,
    dimensions: embedder.dimensions,
  };
  if (!isCurrent) {
    record = { ...record, migration: target };
    await collection.writeRecord(OPERATION, record, signal);
    await collection.addVector(OPERATION, target, record.vectorParams, signal);
  }
  const filled = await fill(job, record);
  await check(job);
  if (isCurrent) {
    report(job, "done", 1, 1);
    return { record, filled };
  }
  await job.prepare();
  const before = record.previous?.vector;
  // One way back is kept, not a history of them.
  const older = before === vector || before === record.vector ? undefined : before;
  const { number, ...current } = target;
  const switched = { ...record, ...current, generation: number, previous: currentOf(record), migration: null };
  await collection.writeRecord(OPERATION, switched, signal, older);
  if (older !== undefined) await collection.dropVector(OPERATION, older, signal);
  report(job, "done", 1, 1);
  return { record: switched, filled };
}

/** Passages that lack the new vector; documents without passages have none of any. */
const lacking = (vector: string): { must: object[]; must_not: object[] } => ({
  must: [{ key: `${RESERVED}.of`, range: { gte: 1 } }],
  must_not: [{ has_vector: vector }],
});

async function fill(job: Migrating, record: CollectionRecord): Promise<number> {
  const { collection, next, state, signal } = job;
  const page = Math.min(PAGE, state.strict.queryLimit, state.strict.upsertBatch);
  const filter = lacking(next.vector);
  let left = await collection.count(OPERATION, filter, signal);
  const total = left;
  for (let stuck = 0; left > 0; ) {
    report(job, "filling", total - left, total);
    const what = { filter, with_payload: !next.base, ...(next.base ? { with_vector: [BASE] } : {}) };
    for await (const points of collection.scroll(OPERATION, what, page, signal)) {
      await fillPage(job, points);
      left = Math.max(0, left - points.length);
      report(job, "filling", total - left, total);
    }
    // What was written meanwhile may lack it again.
    const after = await collection.count(OPERATION, filter, signal);
    stuck = after > 0 && after >= total ? stuck + 1 : 0;
    if (stuck > 3) {
      throw new QdrantError(
        "QDRANT_ANSWER",
        `recontext: ${after} passages of "${collection.name}" still lack the vector "${next.vector}" after it was written ` +
          `to all of them (generation ${record.generation}). Is another program writing?`,
      );
    }
    left = after;
  }
  return total;
}

async function fillPage(job: Migrating, points: readonly PointAnswer[]): Promise<void> {
  const { collection, next, state, signal } = job;
  if (points.length === 0) return;
  const vectors = await vectorsOf(job, points);
  const updates = points.map(({ id }, i) => ({ id: String(id), vector: { [next.vector]: jsonNumbers(vectors[i]!) } }));
  // A passage that was written anew since it was read has its vector by now: it stays.
  const update_filter = { must_not: [{ has_vector: next.vector }] };
  for (const batch of batches(updates, state.strict.upsertBatch)) {
    await updateThoseThere(collection, batch, update_filter, signal);
  }
}

/** Of a batch with a point that isn't there Qdrant refuses all: points may go between reading and writing. */
async function updateThoseThere(
  collection: QdrantCollection,
  batch: readonly { readonly id: string; readonly vector: JsonObject }[],
  update_filter: object,
  signal: AbortSignal | undefined,
): Promise<void> {
  let points = batch;
  for (let attempt = 0; points.length > 0; attempt++) {
    try {
      const body = { wait: true, points, update_filter };
      return await collection.request(OPERATION, "updateVectors", body, readUpdate, signal);
    } catch (error) {
      if (!(error instanceof QdrantError && error.status === 404) || attempt === 5) throw error;
      const ids = points.map(({ id }) => id);
      const there = await collection.retrieve(OPERATION, ids, { with_payload: false }, signal);
      const known = new Set(there.map(({ id }) => id));
      points = points.filter(({ id }) => known.has(id));
    }
  }
}

/** By the map from base vectors, or from the texts as they were embedded. */
async function vectorsOf({ next, signal }: Migrating, points: readonly PointAnswer[]): Promise<Float32Array[]> {
  const { base, embedder } = next;
  if (base) {
    const stored = points.map(({ id, vectors }) => {
      const vector = vectors.get(BASE);
      if (vector) return vector;
      throw new QdrantError(
        "QDRANT_ANSWER",
        `recontext: the point ${id} has no base vector. Run it without base: stored texts are embedded again.`,
      );
    });
    const mapped = remap(stored, base.context);
    checkVectors(OPERATION, mapped, points.length, embedder);
    return mapped;
  }
  const texts = points.map((point) => {
    const { text, title, bare } = readPassage(point);
    const prefix = bare || title === undefined || title.trim() === "" ? "" : `${title.trim()} `;
    return (prefix + text).trimEnd();
  });
  const { vectors } = await embedder.embedDocuments(texts, signal ? { signal } : {});
  checkVectors(OPERATION, vectors, points.length, embedder);
  return [...vectors];
}

/** Some passages, drawn by their ids: what is stored has to be what the context gives. */
async function check(job: Migrating): Promise<void> {
  const { collection, next, state, signal } = job;
  report(job, "checking", 0, CHECKED);
  const limit = Math.min(CHECKED, state.strict.queryLimit);
  const filter = { must: [{ has_vector: next.vector }, { key: `${RESERVED}.of`, range: { gte: 1 } }] };
  // Point ids are hashes: to start at one of them is to draw.
  const start = createHash("sha1").update(next.vector).digest("hex");
  const from = start.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, "$1-$2-$3-$4-$5");
  const what = { filter, with_payload: true, with_vector: [next.vector, ...(next.base ? [BASE] : [])] };
  let points: PointAnswer[] = [];
  for (const offset of [{ offset: from }, {}]) {
    for await (const some of collection.scroll(OPERATION, { ...what, ...offset }, limit, signal)) {
      points = some;
      break;
    }
    if (points.length > 0) break;
  }
  if (points.length === 0) return;
  const expected = await vectorsOf(job, points);
  points.forEach(({ id, vectors }, i) => {
    const found = vectors.get(next.vector);
    const cosine = found ? cosineOf(found, expected[i]!) : Number.NaN;
    if (cosine >= SAME) return;
    throw new QdrantError(
      "QDRANT_ANSWER",
      `recontext: the vector "${next.vector}" of point ${id} isn't what its context gives (cosine ${cosine.toFixed(4)}, ` +
        `at least ${SAME} is expected). The collection still answers as before. Drop it with { abandon: true } and start again.`,
    );
  });
}

function cosineOf(a: Float32Array, b: Float32Array): number {
  let [dot, one, two] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    one += a[i]! ** 2;
    two += b[i]! ** 2;
  }
  return dot / Math.sqrt(one * two);
}

function report({ onProgress }: Migrating, step: MigrationProgress["step"], done: number, total: number): void {
  onProgress?.({ step, done, total });
}
