/**
 * How far the documents that were added since the context was chosen have moved from those that were there, and what
 * the old context costs.
 *
 * The distance of two samples of unit base vectors is their energy distance (Székely & Rizzo 2013), with the means over
 * all pairs, a vector with itself included: E(A, B) = 2 mean |a − b| − mean |a − a'| − mean |b − b'|. It is 0 only for
 * equal samples, and grows with the distance of the distributions. Random halves of one corpus have a distance too,
 * which depends on the corpus and the size of the halves alone. So that is the unit:
 *
 *   drift = E(h of those that were there, h of those added) / E(h of those that were there, h others of them) − 1
 *
 * each a mean over random draws of the same h. Documents of the same kind give about 0. How much is much depends on the
 * corpus; with vectors of other corpora at hand it is told on their scale too, where 1 is as far as they are. Those are
 * vectors without context: where the index keeps some whose tokens have weights, its own samples are embedded without.
 */
import { setImmediate as pause } from "node:timers/promises";
import { CorpusContext, createRandom, type Embedder, InvalidInputError, type Random } from "@cde-js/core";
import { type IndexState, joined, mapOf, mapRows, storingEmbedder } from "./index-state.js";
import { livePassages } from "./live-passages.js";
import { vectorFault } from "./vector-index.js";

export interface DriftOptions {
  /** Passages drawn of each side. @default 512 */
  readonly sample?: number;
  /** Equal seeds draw equally. @default 0 */
  readonly seed?: number;
  /**
   * A context of texts from other corpora, at least 16, by the model whose vectors the index keeps (a spectral context's base):
   * gives `relative`. false for none. @default the one that comes with the model, where one does: `embedder.otherCorpora`
   */
  readonly reference?: CorpusContext | false;
  readonly signal?: AbortSignal;
}

export interface DriftReport {
  /** Documents that were there when the context was chosen and still are, and documents added or replaced since. */
  readonly documents: { readonly settled: number; readonly added: number };
  /**
   * Multiples of the split-half distance by which the added ones are farther away than a half of the corpus from its
   * other half: about 0 for more of the same. Undefined where either side has fewer than 16 passages (32 of those that
   * were there).
   */
  readonly drift: number | undefined;
  /**
   * Where there is a `reference`: 0 is the split-half distance of this corpus, 1 the distance of its texts from those of the
   * reference. Undefined without one, or where `drift` is.
   */
  readonly relative: number | undefined;
  /** Energy distance of those added from those that were there, and of two halves of those that were there. */
  readonly distance: number | undefined;
  readonly splitHalf: number | undefined;
  /** What the context costs, where it is a map of base vectors; nothing is encoded for it. */
  readonly neighbours: NeighbourChange | undefined;
}

export interface NeighbourChange {
  /**
   * Part of a passage's ten nearest that are still among its ten nearest under a fresh context, from 0 to 1: the mean
   * over passages drawn from all of the index.
   */
  readonly overlap: number;
  /** The same between two fresh contexts of other draws: what the choice alone changes. */
  readonly betweenFresh: number;
  /** `betweenFresh - overlap`, at least 0: what a new context would change beyond that. */
  readonly loss: number;
  readonly passages: number;
}

const LEAST = 16;
const DRAWS = 16;
const PROBES = 64;
const POOL = 2048;
const CONTEXT = 512;
const NEIGHBOURS = 10;

export async function measureDrift(state: IndexState, options: DriftOptions): Promise<DriftReport> {
  const { sample = 512, seed = 0, signal } = options;
  const { documents } = state;
  const { storing } = state;
  const alike = storing.tokenWeights && storing.withoutContext?.();
  const reference = (options.reference ?? (await (alike ?? storing).otherCorpora?.())) || undefined;
  const plain = reference?.identity.model === alike?.fingerprint ? alike : undefined;
  if (reference) checkReference(reference, state, plain?.fingerprint ?? state.vectorFingerprint);
  const random = createRandom(seed);
  const sides: { settled: number[]; added: number[] } = { settled: [], added: [] };
  const counts = { settled: 0, added: 0 };
  for (const number of documents.live()) {
    const side = number < state.settled ? "settled" : "added";
    counts[side]++;
    const end = documents.firstPassage(number + 1);
    for (let label = documents.firstPassage(number); label < end; label++) sides[side].push(label);
  }
  const settled = draw(sides.settled, sample, random);
  const added = draw(sides.added, sample, random);
  const others = reference && unit(reference.vectors(), reference.dimensions);
  const size = Math.min(settled.length >> 1, added.length);
  const samples = { settled, added, others, size, plain };
  const distances = size < LEAST ? undefined : await energyDistances(state, samples, { seed, signal });
  const { own, scale } = distances ?? {};
  return {
    documents: counts,
    drift: own && own.between / own.half - 1,
    relative: scale && (scale.between - scale.half) / (scale.other - scale.half),
    distance: own?.between,
    splitHalf: own?.half,
    neighbours: await neighbourChange(state, [...sides.settled, ...sides.added], random, signal),
  };
}

/** @throws FingerprintMismatchError, InvalidInputError */
function checkReference(reference: CorpusContext, { embedder }: IndexState, fingerprint: string): void {
  reference.requireModel("drift", fingerprint);
  const refuse = (what: string): never => {
    throw new InvalidInputError(`drift: the reference ${what}.`);
  };
  if (reference.stage !== "spectral") {
    // The model is the same, the space is not.
    refuse(
      `is a ${reference.stage} context, whose vectors are not of the kind that an index keeps; only a spectral one's are`,
    );
  }
  const { size, dimensions } = reference;
  if (dimensions !== embedder.dimensions) {
    refuse(`has vectors of ${dimensions} dimensions, the index of ${embedder.dimensions}`);
  }
  if (size < LEAST) refuse(`has ${size} texts, at least ${LEAST} are needed`);
  const rows = reference.vectors();
  for (let i = 0; i < size; i++) {
    const fault = vectorFault(rows.subarray(i * dimensions, (i + 1) * dimensions), dimensions);
    if (fault) refuse(`has a vector (${i}) that ${fault}`);
  }
}

interface Samples {
  readonly settled: readonly number[];
  readonly added: readonly number[];
  /** Unit vectors of other corpora, packed. */
  readonly others: Float32Array | undefined;
  /** Of each draw. */
  readonly size: number;
  /** What embeds the samples anew where `others` aren't of the vectors that the index keeps. */
  readonly plain: Embedder | undefined;
}

interface Distances {
  readonly between: number;
  readonly half: number;
  readonly other: number;
}

/** Of this corpus alone, and in samples no larger than the reference: a sample's distance depends on its size. */
async function energyDistances(
  state: IndexState,
  { settled, added, others = new Float32Array(0), size, plain }: Samples,
  { seed, signal }: { readonly seed: number; readonly signal: AbortSignal | undefined },
): Promise<{ readonly own: Distances; readonly scale: Distances | undefined }> {
  const { dimensions } = state.embedder;
  const labels = [...settled, ...added];
  const vectors = plain ? await embedAnew(state, labels, plain, signal) : unit(await read(state, labels), dimensions);
  const rows = joined([vectors, others]);
  const lengths = await pairDistances(rows, dimensions, signal);
  const from = (start: number, count: number) => Array.from({ length: count }, (_, i) => start + i);
  const known = settled.length + added.length;
  const positions = {
    settled: from(0, settled.length),
    added: from(settled.length, added.length),
    others: from(known, others.length / dimensions),
  };
  const means = async (count: number, withOthers: boolean): Promise<Distances> => {
    const random = createRandom(seed);
    let [between, half, other] = [0, 0, 0];
    for (let i = 0; i < DRAWS; i++) {
      await pause();
      signal?.throwIfAborted();
      const shuffled = random.shuffle(positions.settled);
      const [one, second] = [shuffled.slice(0, count), shuffled.slice(count, 2 * count)];
      const of = (pool: readonly number[]): number =>
        energyDistance(lengths, one, random.shuffle(pool).slice(0, count)) / DRAWS;
      half += energyDistance(lengths, one, second) / DRAWS;
      between += of(positions.added);
      if (withOthers) other += of(positions.others);
    }
    return { between, half, other };
  };
  const own = await means(size, false);
  const scale = others.length > 0 ? await means(Math.min(size, positions.others.length), true) : undefined;
  return { own, scale };
}

/** Their vectors by `embedder`, packed in the order of the labels. */
async function embedAnew(
  state: IndexState,
  labels: readonly number[],
  embedder: Embedder,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const texts = new Map<number, string>();
  for await (const { label, text } of livePassages(state, new Set(labels))) texts.set(label, text);
  const { vectors } = await embedder.embedDocuments(
    labels.map((label) => texts.get(label)!),
    signal && { signal },
  );
  return joined(vectors);
}

/** |a − b| of all pairs, [n, n]. */
async function pairDistances(rows: Float32Array, dimensions: number, signal?: AbortSignal): Promise<Float32Array> {
  const count = rows.length / dimensions;
  const lengths = new Float32Array(count * count);
  for (let i = 0; i < count; i++) {
    if (i % 64 === 63) {
      await pause();
      signal?.throwIfAborted();
    }
    for (let j = 0; j < i; j++) {
      const value = Math.sqrt(Math.max(0, 2 - 2 * dot(rows, i * dimensions, rows, j * dimensions, dimensions)));
      lengths[i * count + j] = value;
      lengths[j * count + i] = value;
    }
  }
  return lengths;
}

/** Of two sets of positions, by the distances of all pairs. */
export function energyDistance(lengths: Float32Array, a: readonly number[], b: readonly number[]): number {
  const width = Math.sqrt(lengths.length);
  const mean = (from: readonly number[], to: readonly number[]): number => {
    let sum = 0;
    for (const i of from) for (const j of to) sum += lengths[i * width + j] as number;
    return sum / (from.length * to.length);
  };
  return 2 * mean(a, b) - mean(a, a) - mean(b, b);
}

/** How the nearest of some passages change from the present context to a fresh one, and between two fresh ones. */
async function neighbourChange(
  state: IndexState,
  labels: number[],
  random: Random,
  signal: AbortSignal | undefined,
): Promise<NeighbourChange | undefined> {
  const map = state.isMapped ? mapOf(state.embedder) : undefined;
  if (!map || labels.length < 4 * LEAST) return undefined;
  const { dimensions } = state.embedder;
  const pool = await read(state, draw(labels, POOL, random));
  const passages = pool.length / dimensions;
  const probes = Math.min(PROBES, passages);
  const fresh = async (): Promise<Float32Array> => {
    const drawn = draw(labels, CONTEXT, random);
    const vectors = unit(await read(state, drawn), dimensions);
    const texts = drawn.map(String);
    const { strength } = map;
    const context = await CorpusContext.fromBaseVectors(storingEmbedder(state.embedder), texts, vectors, { strength });
    return await mapRows(pool, context.map as NonNullable<typeof context.map>, signal);
  };
  const nearest = [await mapRows(pool, map, signal), await fresh(), await fresh()].map((rows) =>
    Array.from({ length: probes }, (_, probe) => nearestOf(rows, dimensions, probe)),
  );
  const overlap = (a: Set<number>[], b: Set<number>[]): number =>
    a.reduce((sum, set, i) => sum + [...set].filter((at) => b[i]?.has(at)).length / set.size, 0) / probes;
  const [present = [], one = [], other = []] = nearest;
  const now = (overlap(present, one) + overlap(present, other)) / 2;
  const betweenFresh = overlap(one, other);
  return { overlap: now, betweenFresh, loss: Math.max(0, betweenFresh - now), passages };
}

/** The ten rows nearest to row `probe`, itself left out. */
function nearestOf(rows: Float32Array, dimensions: number, probe: number): Set<number> {
  const count = rows.length / dimensions;
  const scored: { at: number; score: number }[] = [];
  for (let at = 0; at < count; at++) {
    if (at !== probe) scored.push({ at, score: dot(rows, probe * dimensions, rows, at * dimensions, dimensions) });
  }
  scored.sort((a, b) => b.score - a.score || a.at - b.at);
  return new Set(scored.slice(0, NEIGHBOURS).map(({ at }) => at));
}

/** Each equally likely, ascending. */
function draw(labels: readonly number[], count: number, random: Random): number[] {
  if (labels.length <= count) return [...labels];
  // Floyd 1987: as many random numbers as are drawn.
  const chosen = new Set<number>();
  for (let i = labels.length - count; i < labels.length; i++) {
    const at = random.integer(i + 1);
    chosen.add(chosen.has(at) ? i : at);
  }
  return [...chosen].sort((a, b) => a - b).map((at) => labels[at] as number);
}

function read(state: IndexState, labels: readonly number[]): Promise<Float32Array> {
  return state.stored.read(Uint32Array.from(labels));
}

function unit(rows: Float32Array, dimensions: number): Float32Array {
  for (let at = 0; at < rows.length; at += dimensions) {
    const length = Math.sqrt(dot(rows, at, rows, at, dimensions));
    for (let i = at; i < at + dimensions; i++) rows[i] = (rows[i] as number) / length;
  }
  return rows;
}

function dot(a: Float32Array, i: number, b: Float32Array, j: number, length: number): number {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += (a[i + k] as number) * (b[j + k] as number);
  return sum;
}
