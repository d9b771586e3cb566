/** Reads the golden figures of `test/parity/golden` (its README is the index). */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The path of a golden file or folder. */
export function goldenPath(relative: string): string {
  return fileURLToPath(new URL(`../../parity/golden/${relative}`, import.meta.url));
}

/** A golden JSON file; the caller names the shape it expects. */
export function goldenJson<T>(relative: string): T {
  return JSON.parse(readFileSync(goldenPath(relative), "utf8")) as T;
}
