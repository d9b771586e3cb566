import { expect, test } from "vitest";
import { isCheckout, readManifest, readText, repositoryFiles } from "./files.js";

interface Direct {
  readonly name: string;
  readonly version: string;
  readonly manifest: string;
}

/** Direct dependencies of every package.json; peers apart, whose ranges are their point. */
function directDependencies(): Direct[] {
  const manifests = repositoryFiles().filter((path) => /(^|\/)package\.json$/.test(path));
  return manifests.flatMap((manifest) => {
    const { dependencies, devDependencies, optionalDependencies } = readManifest(manifest);
    const all = [dependencies, devDependencies, optionalDependencies].flatMap((group) => Object.entries(group ?? {}));
    return all.map(([name, version]) => ({ name, version, manifest }));
  });
}

const isOurs = (name: string): boolean => name === "cde-js" || name.startsWith("@cde-js/");
const isExact = (version: string): boolean => /^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version);

test.skipIf(!isCheckout)("every direct dependency is pinned to one version (needs a git checkout)", () => {
  const all = directDependencies();
  expect(all.map(({ name }) => name)).toContain("onnxruntime-node");
  expect(all.filter(({ version }) => !isExact(version))).toEqual([]);
});

test("a range, a tag and a folder are not one version", () => {
  expect(["1.30.0", "1.20.0-1"].every(isExact)).toBe(true);
  expect(["^1.30.0", "~1.30.0", ">=1", "1.x", "1.30", "latest", "*", "file:../core"].filter(isExact)).toEqual([]);
});

test.skipIf(!isCheckout)(
  "docs/decisions/dependencies.md gives a reason for every direct dependency, and for no other (needs a git checkout)",
  () => {
    const used = directDependencies().flatMap(({ name }) => (isOurs(name) ? [] : [name]));
    const rows = readText("docs/decisions/dependencies.md").matchAll(/^\| `([^`]+)` \|/gm);
    expect([...rows].map((row) => row[1]).sort()).toEqual([...new Set(used)].sort());
  },
);
