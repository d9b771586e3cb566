import { existsSync } from "node:fs";
import { readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cde, folderOf, hasModel, modelArguments } from "./support.js";

const files = {
  "docs/lease.txt": "The landlord repairs what a burst pipe has flooded.\n",
  "docs/animals/bees.md": "Bees make honey from the nectar of flowers.\n",
  "docs/animals/dogs.txt": "A shepherd's dog keeps the flock together.\n",
  "docs/.hidden/notes.txt": "Nobody should find this.\n",
  "docs/table.csv": "not,a,text\n",
  "contracts.jsonl":
    '{"id": "notice", "title": "Notice", "text": "The lease ends after three months of notice.", "metadata": {"page": 3}}\n' +
    '\n{"_id": "rent", "title": "", "text": "The rent is due on the third working day of the month.", "url": "x"}\n',
  "escape.jsonl": '{"id": "tidy \\u001b[31m", "text": "The \\u001b[2Jlighthouse keeper trims the lamp.\\u0007"}\n',
  "repeats.jsonl": ["Page 1 of the lease.", "Page 2 of the lease.", "PAGE 1 OF THE LEASE.", "Bees make honey."]
    .map((text, i) => `${JSON.stringify({ id: `r${i}`, text })}\n`)
    .join(""),
  "bad/half.jsonl": '{"id": "a", "text": "fine"}\n{"id": "b", "text": 7}\n',
  "bad/deep.jsonl": `{"id": "a", "text": "fine"}\n{"id": "b", "text": "x", "metadata": ${"[".repeat(80)}${"]".repeat(80)}}\n`,
  "bad/twice.jsonl": '{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n{"id": "a", "text": "three"}\n',
  "bad/empty.jsonl": "\n",
  "binary/image.txt": Uint8Array.of(0x50, 0, 0x51),
  "binary/latin.md": Uint8Array.of(0x66, 0xfc, 0x72),
  "binary/right.txt": "A text that is one.",
};
let cwd: string;
let remove: () => Promise<void>;
const run = (...args: string[]) => cde(args, cwd);
const index = (...args: string[]) => cde(["index", ...args, ...modelArguments], cwd);

beforeAll(async () => {
  ({ path: cwd, remove } = await folderOf(files));
  await symlink(join(cwd, "contracts.jsonl"), join(cwd, "docs/link.txt"));
});
afterAll(() => remove());

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const control = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;

test("says its version and explains itself", async () => {
  const { version } = JSON.parse(
    await readFile(new URL("../../../packages/cli/package.json", import.meta.url), "utf8"),
  );
  expect(await run("--version")).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
  const help = await run("help");
  for (const part of ["cde index", "cde search", "cde context", "Exit codes"]) expect(help.stdout).toContain(part);
  expect((await run("help", "search")).stdout).toBe((await run("search", "--help")).stdout);
});

describe("a wrong command line ends with 2 and one line that says what is wrong", () => {
  test.each([
    [[], "no command is given"],
    [["find"], 'no command "find"'],
    [["index", "docs", "--out", "x", "--colour"], "--colour"],
    [["index", "--out", "x"], "no folder or file"],
    [
      ["index", "docs", "--out", "x", "--context-size", "many"],
      '--context-size should be an integer of at least 1, got "many"',
    ],
    [["index", "docs", "--out", "x", "--no-context", "--seed", "1"], "--no-context and --seed exclude each other"],
    [["search"], "the query is missing"],
    [["search", "x"], "the query or the index is missing: there is no cde-index here"],
    [["search", "x", "two", "words"], "in quotes"],
    [["search", "x", "query", "-k", "0"], '-k should be an integer of at least 1, got "0"'],
    [["search", "x", "query", "--mode", "sparse"], "dense, lexical, hybrid"],
    [["context", "burn"], '"build", "inspect", "diff" or "report" is missing'],
    [["context", "diff", "one"], "diff takes two"],
    [["doctor", "me"], "doctor takes no arguments"],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await run(...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});

describe.skipIf(!hasModel)("with a model (skipped without the bundled one or the reference material)", () => {
  test("indexes a folder and a JSONL file, and finds the passage that answers", async () => {
    const built = await index("docs", "contracts.jsonl", "--out", "main", "--json");
    expect(built.code, built.stderr).toBe(0);
    expect(JSON.parse(built.stdout)).toEqual({
      directory: join(cwd, "main"),
      modelId: expect.stringContaining("MiniLM"),
      model: modelArguments[1] ?? null,
      fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/),
      dimensions: 384,
      context: { size: 5, stage: "spectral", fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/) },
      documents: 5,
      passages: 5,
      withoutPassages: [],
      titlesLeftOut: [],
      resumed: 0,
      fusion: null,
      skipped: [{ path: join("docs", "link.txt"), why: expect.stringContaining("symbolic link") }],
      seconds: expect.any(Number),
    });
    expect(built.stdout.trimEnd()).not.toMatch(/\n/);
    expect(built.stderr).not.toMatch(control);

    const found = await run("search", "main", "when is the rent to be paid?", "-k", "2", "--json");
    expect(found.code, found.stderr).toBe(0);
    const answer = JSON.parse(found.stdout);
    expect(answer).toMatchObject({ query: "when is the rent to be paid?", k: 2, documents: 5, passages: 5 });
    expect(answer.hits).toHaveLength(2);
    expect(answer.hits[0]).toMatchObject({
      id: "rent",
      text: "The rent is due on the third working day of the month.",
      passage: { start: 0, end: 54 },
      metadata: {},
      score: expect.any(Number),
    });
    const dense = await run("search", "main", "insects and pollen", "-k", "1", "--mode", "dense");
    expect(dense.stdout).toMatch(/^1\. animals\/bees\.md, 0-43 {2}\[cosine 0\.\d+\]\n {3}Bees make honey/);
  });

  test("index and search find each other where no folder is named", async () => {
    const elsewhere = await folderOf({ "contracts.jsonl": files["contracts.jsonl"] });
    try {
      const built = await cde(["index", "contracts.jsonl", ...modelArguments], elsewhere.path);
      expect(built.code, built.stderr).toBe(0);
      expect(built.stdout).toContain("\nfusion 0.5 for every query: fewer than 500 passages");
      expect(await readdir(elsewhere.path)).toEqual(["cde-index", "contracts.jsonl"]);
      const found = await cde(["search", "when is the rent to be paid?"], elsewhere.path);
      expect(found.stdout, found.stderr).toMatch(/^1\. rent, /);
      expect(found.stdout).toContain("\nmeaning weighed 0.50, words 0.50\n");
    } finally {
      await elsewhere.remove();
    }
  });

  test("binds the index to its context: the same seed gives the same fingerprint, another seed or none another", async () => {
    const fingerprintOf = async (...args: string[]) => {
      const { stdout, stderr } = await index("docs", "contracts.jsonl", "--json", "--out", "again", ...args);
      return (JSON.parse(stdout || stderr) as { fingerprint: string }).fingerprint;
    };
    const first = await fingerprintOf("--context-size", "2", "--seed", "1");
    expect(await fingerprintOf("--context-size", "2", "--seed", "1")).toBe(first);
    expect(await fingerprintOf("--context-size", "2", "--seed", "2")).not.toBe(first);
    expect(await fingerprintOf("--no-context")).not.toBe(first);
    expect((await run("context", "inspect", "again")).stderr).toContain("without context");
    // No file of an earlier index is left.
    expect((await readdir(join(cwd, "again"))).filter((name) => !/-00000\d\./.test(name))).toEqual(["manifest.json"]);
    expect(await readdir(join(cwd, "again"))).toHaveLength(4);
  });

  test("leaves duplicates out of the context, and says so", async () => {
    const built = await run(
      "context",
      "build",
      "repeats.jsonl",
      "--out",
      "repeats.safetensors",
      "--json",
      ...modelArguments,
    );
    // Four passages, of which two differ in a number and one in case.
    expect(JSON.parse(built.stdout)).toMatchObject({ size: 2, differentTexts: 2 });
    expect(built.stderr).toContain("left out of the context: 2 duplicates");
    expect(built.stderr).toContain("fewer than 512 different passages: the context is all of them, 2 passages");
  });

  test("builds a context by itself, inspects it, and an index takes it over", async () => {
    const built = await run("context", "build", "docs", "--out", "own.safetensors", ...modelArguments, "--json");
    expect(built.code, built.stderr).toBe(0);
    const { clusters, coverage, ...inspected } = JSON.parse(
      (await run("context", "inspect", "own.safetensors", "--json")).stdout,
    );
    expect({ clusters, coverage }).toEqual({ clusters: [expect.objectContaining({ size: 3 })], coverage: null });
    expect(inspected).toMatchObject({ stage: "spectral", size: 3, differentTexts: 3, dimensions: 384 });
    expect(JSON.parse(built.stdout)).toMatchObject({ file: join(cwd, "own.safetensors"), ...inspected });
    const { stdout } = await index("contracts.jsonl", "--context", "own.safetensors", "--out", "foreign", "--json");
    expect(JSON.parse(stdout).context.fingerprint).toBe(inspected.fingerprint);
    expect((await run("search", "foreign", "notice", "--json")).code).toBe(0);
  });

  test("prints no control characters, whatever stands in the documents", async () => {
    const built = await index("escape.jsonl", "--no-context", "--out", "escape");
    const found = await run("search", "escape", "lighthouse");
    expect(found.stdout).toContain("lighthouse keeper");
    for (const text of [built.stdout, built.stderr, found.stdout, found.stderr]) expect(text).not.toMatch(control);
  });

  test.each([
    ["a missing file", ["nowhere.jsonl"], "no file or folder nowhere.jsonl"],
    ["a file of another kind", ["docs/table.csv"], "docs/table.csv is not a folder and not a .jsonl"],
    ["a line that is no document", ["bad/half.jsonl"], 'bad/half.jsonl, line 2: "text" is not a string'],
    ["metadata that the index refuses", ["bad/deep.jsonl"], "bad/deep.jsonl, line 2:"],
    [
      "an id that comes twice",
      ["bad/twice.jsonl"],
      'bad/twice.jsonl, line 3: the id "a" was already at bad/twice.jsonl, line 1',
    ],
    ["an input without documents", ["bad/empty.jsonl"], "no documents"],
    ["a binary file", ["binary"], "binary/image.txt is a binary file. Remove it, or pass --skip-unreadable"],
    ["a missing model", ["docs", "--model", "nowhere"], "neither a model directory"],
    ["a context that is none", ["docs", "--context", "docs/lease.txt"], "docs/lease.txt"],
  ])("refuses %s with 1, one line and no index", async (_, args, message) => {
    const { code, stdout, stderr } = await cde(["index", "--out", "none", ...modelArguments, ...args], cwd);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    const lines = stderr.trimEnd().split("\n");
    expect(lines.at(-1)).toMatch(/^cde: /);
    expect(lines.at(-1)).toContain(message);
    expect(stderr).not.toMatch(/^ +at /m);
    expect(existsSync(join(cwd, "none/manifest.json"))).toBe(false);
  });

  test("leaves unreadable files out where it is asked to, and names them", async () => {
    const { stdout } = await index("binary", "--no-context", "--skip-unreadable", "--out", "skipped", "--json");
    const { documents, skipped } = JSON.parse(stdout);
    expect(documents).toBe(1);
    expect(skipped).toEqual([
      { path: join("binary", "image.txt"), why: "is a binary file" },
      { path: join("binary", "latin.md"), why: "is not UTF-8" },
    ]);
  });

  test("refuses an index with the context of another, and a corrupt one; --verbose shows where", async () => {
    await index("docs", "--out", "damaged");
    await run("context", "build", "contracts.jsonl", "--out", "other.safetensors", ...modelArguments);
    const other = await run("search", "damaged", "bees", "--context", "other.safetensors");
    expect({ code: other.code, stdout: other.stdout }).toEqual({ code: 1, stdout: "" });
    expect(other.stderr).toContain("not comparable");

    const { files } = JSON.parse(await readFile(join(cwd, "damaged/manifest.json"), "utf8"));
    const path = join(cwd, "damaged", files.rows.name);
    const bytes = await readFile(path);
    await writeFile(path, bytes.fill(0x7f, 100, 140));
    const corrupt = await run("search", "damaged", "bees", "--verbose");
    expect(corrupt.code).toBe(1);
    expect(corrupt.stderr).toMatch(/rows-\d+\.f32/);
    expect(corrupt.stderr).toMatch(/^ +at /m);

    await rm(join(cwd, "damaged/manifest.json"));
    expect((await run("search", "damaged", "bees")).stderr).toContain("manifest.json is missing");
  });
});
