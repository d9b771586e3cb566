import { readFileSync } from "node:fs";
import { parseSync } from "oxc-parser";
import { expect, test } from "vitest";

/** The names that a package's index.ts exports, types included. */
function exportsOf(folder: string): string[] {
  const path = new URL(`../../../packages/${folder}/src/index.ts`, import.meta.url);
  const { module } = parseSync("index.ts", readFileSync(path, "utf8"));
  return module.staticExports.flatMap(({ entries }) => entries.map(({ exportName }) => exportName.name ?? "*")).sort();
}

test("cde-js exports all of core, retriever and the bundled model, by name", () => {
  const all = ["core", "retriever", "model-mini"].flatMap(exportsOf);
  expect(all).toContain("modelDirectory");
  // For our own packages only: it marks defects of ours.
  expect(exportsOf("cli")).toEqual(all.filter((name) => name !== "internal").sort());
});
