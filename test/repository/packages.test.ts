import { describe, expect, test } from "vitest";
import { readManifest, readText } from "./files.js";

const root = readManifest("package.json");
const folders = ["core", "retriever", "adapters", "cli", "model-mini"];
const versions = new Map(
  folders.map((folder) => {
    const { name, version } = readManifest(`packages/${folder}/package.json`);
    return [name, version];
  }),
);

describe.each(folders)("packages/%s", (folder) => {
  const manifest = readManifest(`packages/${folder}/package.json`);

  test("carries the licence, the Node version and the number of the whole", () => {
    expect(manifest.license).toBe(root.license);
    expect(manifest.engines).toEqual(root.engines);
    expect(manifest.version).toBe(versions.get("cde-js"));
    expect(readText(`packages/${folder}/LICENSE`)).toBe(readText("LICENSE"));
    expect(readText(`packages/${folder}/README.md`)).toContain(`# ${manifest.name}`);
  });

  test("names its siblings by the version that they have", () => {
    for (const [name, version] of Object.entries(manifest.dependencies ?? {})) {
      if (versions.has(name)) expect([name, version]).toEqual([name, versions.get(name)]);
    }
  });

  test("asks for peers only as optional ones", () => {
    const peers = Object.keys(manifest.peerDependencies ?? {});
    expect(peers.filter((name) => manifest.peerDependenciesMeta?.[name]?.optional !== true)).toEqual([]);
  });

  test("has no install script, which npm 12 would block", () => {
    const scripts = Object.keys((manifest as { scripts?: object }).scripts ?? {});
    expect(scripts.filter((name) => /install/.test(name))).toEqual([]);
  });
});

test("the bundled weights name their origin wherever they are shipped", () => {
  const notice = readText("NOTICE");
  expect(notice).toContain("sentence-transformers/all-MiniLM-L6-v2, Apache License 2.0");
  expect(notice).toContain("bert-base-uncased, Apache License 2.0");
  for (const folder of ["model-mini", "cli"]) expect(readText(`packages/${folder}/NOTICE`)).toBe(notice);
});
