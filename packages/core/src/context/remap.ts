/** Stored base vectors under a context: what embedding their texts afresh would give, without encoding anything. */
import { InvalidInputError } from "../errors.js";
import type { CorpusContext } from "./corpus-context.js";
import type { SpectralMap } from "./spectral-map.js";

/** Vectors of a stream that are mapped together. */
const SLICE = 1024;

/**
 * `vector` at unit length, as float32, whatever numbers it holds.
 *
 * @throws InvalidInputError with the position for one that isn't of `dimensions` finite numbers, or is zero
 */
export function toUnitVector(
  operation: string,
  vector: ArrayLike<number>,
  dimensions: number,
  position: number,
): Float32Array {
  const fail = (what: string): never => {
    throw new InvalidInputError(`${operation}: vector ${position} ${what}.`, { position });
  };
  const length = (vector as ArrayLike<number> | undefined)?.length;
  if (length !== dimensions) fail(`has ${length ?? "no"} dimensions, expected ${dimensions}`);
  let largest = 0;
  for (let i = 0; i < dimensions; i++) {
    const value = vector[i];
    if (typeof value !== "number" || !Number.isFinite(value)) {
      fail(
        `has ${typeof value === "number" ? value : `a value of type ${typeof value}`} in dimension ${i}, expected a finite number`,
      );
    }
    largest = Math.max(largest, Math.abs(value!));
  }
  if (largest === 0) fail("is zero and has no direction. An empty text or a failed request gives such a vector");
  // Divided by the largest first, so that no square overflows or vanishes.
  let squares = 0;
  for (let i = 0; i < dimensions; i++) squares += (vector[i]! / largest) ** 2;
  const scale = Math.sqrt(squares);
  return Float32Array.from({ length: dimensions }, (_, i) => vector[i]! / largest / scale);
}

/**
 * Maps base vectors to those of a context. Base vectors are what the model gave; only their direction counts, so they
 * are brought to unit length first, and int8 rows may be given as they are. Keep the base vectors: a new context or
 * strength is mapped from them again, never from mapped ones.
 *
 * @throws InvalidInputError with the position for a vector of another dimension, zero, or not finite
 */
export function remap(vectors: readonly ArrayLike<number>[], map: SpectralMap | CorpusContext): Float32Array[];
/** The same for a stream, in bounded memory. */
export function remap(
  vectors: AsyncIterable<ArrayLike<number>>,
  map: SpectralMap | CorpusContext,
): AsyncGenerator<Float32Array, void, undefined>;
export function remap(
  vectors: readonly ArrayLike<number>[] | AsyncIterable<ArrayLike<number>>,
  map: SpectralMap | CorpusContext,
): Float32Array[] | AsyncGenerator<Float32Array, void, undefined> {
  const spectral = "apply" in map ? map : map.map;
  if (!spectral) throw new InvalidInputError("remap: this context isn't spectral; its vectors come from the encoder.");
  if (Symbol.asyncIterator in vectors) return remapStream(vectors, spectral);
  return mapSlice(vectors, spectral, 0);
}

async function* remapStream(
  vectors: AsyncIterable<ArrayLike<number>>,
  map: SpectralMap,
): AsyncGenerator<Float32Array, void, undefined> {
  let first = 0;
  let slice: ArrayLike<number>[] = [];
  for await (const vector of vectors) {
    slice.push(vector);
    if (slice.length < SLICE) continue;
    yield* mapSlice(slice, map, first);
    first += slice.length;
    slice = [];
  }
  yield* mapSlice(slice, map, first);
}

function mapSlice(vectors: readonly ArrayLike<number>[], map: SpectralMap, first: number): Float32Array[] {
  return map.apply(vectors.map((vector, i) => toUnitVector("remap", vector, map.dimensions, first + i)));
}
