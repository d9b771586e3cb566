import { expect, test } from "vitest";
import { isCheckout, readText, repositoryFiles } from "./files.js";

/** Hosts that serve packages. A clone must work with whatever registry its user has. */
const registryHost = /registry[.](npm|yarn)|npm[.]pkg[.]|pyp[i][.]org|pythonhosted[.]|deb[.]debian/i;
/** A path that exists on somebody's machine only. The path of a URL doesn't count. */
const machinePath = /(?<![\w.:/~-])(\/(home|Users|root|work|farm)\/\w|[A-Z]:\\\\?Users\\)/;

function linesThatName(pattern: RegExp, path: string, text: string): string[] {
  if (text.includes("\0")) return [];
  return text.split("\n").flatMap((line, i) => (pattern.test(line) ? [`${path}:${i + 1}: ${line.trim()}`] : []));
}

test.skipIf(!isCheckout)("no file names a registry or a path of somebody's machine (needs a git checkout)", () => {
  const paths = repositoryFiles();
  expect(paths).toContain("package-lock.json");
  const found = paths.flatMap((path) => {
    const text = readText(path);
    return [...linesThatName(registryHost, path, text), ...linesThatName(machinePath, path, text)];
  });
  expect(found).toEqual([]);
});

test("hosts and machine paths are recognised", () => {
  // Put together here, or this file would be found.
  const hosts = [
    ["registry", "npmjs", "org"],
    ["registry", "yarnpkg", "com"],
    ["pypi", "org"],
  ].map((p) => p.join("."));
  for (const host of hosts) expect(`https://${host}/vitest`).toMatch(registryHost);
  for (const top of ["home", "Users", "root", "work"]) {
    const path = ["", top, "ann"].join("/");
    for (const line of [path, `cd "${path}"`, `path=${path}`, `(${path})`]) expect(line).toMatch(machinePath);
    for (const line of [`https://example.org${path}`, `src${path}`, `..${path}`, `~${path}`, `the ${top} of it`]) {
      expect(line).not.toMatch(machinePath);
      expect(line).not.toMatch(registryHost);
    }
  }
  expect(["C:", "Users", "ann"].join("\\")).toMatch(machinePath);
});

test.skipIf(!isCheckout)("nothing weakens the check of certificates (needs a git checkout)", () => {
  const weaker = /rejectUnauthorized|NODE_TLS_REJECT_UNAUTHORIZED|checkServerIdentity/;
  const sources = repositoryFiles().filter((path) => /^(packages|examples|bench|scripts)\/.*\.(m?js|ts)$/.test(path));
  expect(sources.length).toBeGreaterThan(300);
  expect(sources.flatMap((path) => linesThatName(weaker, path, readText(path)))).toEqual([]);
});
