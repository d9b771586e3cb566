/**
 * Under which fingerprint a vector was made, remembered beside it: a plain array can't say so itself, and no check of
 * dimensions tells two contexts apart. Copies, and vectors from files, aren't known.
 */
import { FingerprintMismatchError } from "../errors.js";

const fingerprints = new WeakMap<Float32Array, string>();

/** Notes that `vectors` were made under `fingerprint`; returns them. */
export function madeUnder(fingerprint: string, vectors: Float32Array[]): Float32Array[] {
  for (const vector of vectors) fingerprints.set(vector, fingerprint);
  return vectors;
}

/**
 * The fingerprint of the embedder that returned this very array; undefined for copies, for vectors that were read from
 * somewhere, and for arrays that no embedder returned.
 */
export function fingerprintOf(vector: Float32Array): string | undefined {
  return fingerprints.get(vector);
}

/** Raises FingerprintMismatchError for a vector that is known to have been made under another fingerprint. */
export function requireMadeUnder(operation: string, fingerprint: string, vector: Float32Array): void {
  const actual = fingerprintOf(vector);
  if (actual === undefined || actual === fingerprint) return;
  throw new FingerprintMismatchError(
    fingerprint,
    actual,
    `${operation}: a vector was made under ${actual.slice(0, 12)}, this embedder holds ${fingerprint.slice(0, 12)}. They are not comparable; embed both texts with one embedder.`,
  );
}
