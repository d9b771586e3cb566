/** A folder for one test file, removed afterwards. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

let count = 0;

/** A path in a fresh folder; nothing lies there yet. */
export function temporaryPath(name: string): string {
  return join(folder(), `${count++}-${name}`);
}

let made: string | undefined;

function folder(): string {
  made ??= mkdtempSync(join(tmpdir(), "cde-training-"));
  return made;
}

afterAll(() => {
  if (made) rmSync(made, { recursive: true });
});
