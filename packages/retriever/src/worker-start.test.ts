/** What a search's worker loads: every index starts one, and the whole encoder takes a quarter of a second. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/** Names of packages that a compiled file imports when it is loaded, through our own files too. */
function packagesOf(file: string, seen = new Set<string>()): Set<string> {
  const found = new Set<string>();
  if (seen.has(file)) return found;
  seen.add(file);
  for (const [, name = ""] of readFileSync(file, "utf8").matchAll(/^(?:import|export) .*?from "([^"]+)";$/gms)) {
    if (!name.startsWith(".")) found.add(name);
    else for (const of of packagesOf(fileURLToPath(new URL(name, `file://${file}`)), seen)) found.add(of);
  }
  return found;
}

const ours = (script: string): string[] => {
  const file = fileURLToPath(new URL(script, import.meta.url));
  return [...packagesOf(file)].filter((name) => !name.startsWith("node:"));
};

test.each(["./exact/worker.js", "./hnsw/worker.js"])("%s loads errors, and nothing of the encoder", (script) => {
  expect(ours(script)).toEqual(["@cde-js/core/errors"]);
});

test("the index itself does load the encoder's package: the reading of imports sees it", () => {
  expect(ours("./corpus-index.js")).toContain("@cde-js/core");
});
