/** Comparisons of vectors that NaN can't pass, and folders that vanish after a test file. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

/** The largest absolute difference between two lists of vectors. */
export function largestDifference(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  if (a.length !== b.length) throw new Error(`${a.length} vectors and ${b.length}`);
  let largest = 0;
  a.forEach((vector, i) => {
    const other = b[i]!;
    if (vector.length !== other.length) throw new Error(`vectors of ${vector.length} and of ${other.length}`);
    vector.forEach((value, k) => {
      const difference = Math.abs(value - other[k]!);
      if (!(difference <= largest)) largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    });
  });
  return largest;
}

/** A folder for the test file that calls it, removed when its tests are done. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cde-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
