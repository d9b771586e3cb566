import { describe, expect, test } from "vitest";
import { readText } from "./files.js";

interface LockedPackage {
  readonly resolved?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Optional dependencies that a locked package names and the lock file lacks. */
function unlocked(packages: Readonly<Record<string, LockedPackage>>): string[] {
  const names = new Set(Object.keys(packages).map((path) => path.replace(/^.*node_modules\//, "")));
  const wanted = Object.values(packages).flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}));
  return wanted.filter((name) => !names.has(name)).sort();
}

describe.each(["package-lock.json", "bench/package-lock.json"])("%s", (path) => {
  const { packages } = JSON.parse(readText(path)) as { packages: Record<string, LockedPackage> };

  test("fetches nothing from a named place", () => {
    const places = Object.values(packages).flatMap(({ resolved }) => resolved ?? []);
    expect(places.filter((place) => !place.startsWith("packages/"))).toEqual([]);
  });

  // npm leaves out, without a word, a platform's binary that its registry doesn't serve, and `npm ci` then refuses the
  // lock file on every platform. Pin a release that is served whole, and make the file anew without node_modules.
  test("holds the binaries of every platform", () => {
    expect(Object.keys(packages).length).toBeGreaterThan(10);
    expect(unlocked(packages)).toEqual([]);
  });
});

test("a platform that was left out is found", () => {
  const whole = { "node_modules/a": { optionalDependencies: { "a-linux": "1.0.0" } }, "node_modules/a-linux": {} };
  expect(unlocked(whole)).toEqual([]);
  expect(unlocked({ ...whole, "node_modules/b/node_modules/a-linux": {} })).toEqual([]);
  expect(unlocked({ "node_modules/a": whole["node_modules/a"] })).toEqual(["a-linux"]);
});
