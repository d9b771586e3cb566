import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "cde-idle-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Exit status of a process that runs this and closes nothing; null where it had to be killed. */
function statusOf(program: string): number | null {
  const path = join(folder, "program.mjs");
  const entry = import.meta.resolve("@cde-js/retriever");
  writeFileSync(path, `import { ExactIndex } from ${JSON.stringify(entry)};\n${program}`);
  return spawnSync(process.execPath, [path], { timeout: 20_000, stdio: "ignore" }).status;
}

test.each([
  ["was never asked", "new ExactIndex(2);"],
  ["has answered", "await new ExactIndex(2).search(Float32Array.of(1, 0), 1);"],
])("an index that %s and isn't closed lets the process end", (_, program) => {
  expect(statusOf(program)).toBe(0);
});

test("an index that is asked keeps the process until it has answered", () => {
  const asked = "new ExactIndex(2).search(Float32Array.of(1, 0), 1).then(() => process.exit(7));";
  expect(statusOf(asked)).toBe(7);
});
