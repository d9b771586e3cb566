import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cde, folderOf, hasModel, modelArguments } from "./support.js";

/** Two subjects, the second one three times as often. Numbers alone would make duplicates of them. */
const subjects = { bees: "The bees of the hive carry nectar with", lease: "The tenant of the lease pays the rent to" };
const names = ["Ann", "Bob", "Cleo", "Dora", "Emil", "Faye", "Gus", "Hal", "Ida", "Jon", "Kim", "Lea"];
const nameOf = (i: number): string =>
  `${names[i % 12]} and ${names[(i * 5 + Math.floor(i / 12)) % 12]} of ${names[(i * 7 + 3) % 12]}ton`;
const line = (id: string, text: string): string => JSON.stringify({ id, text, title: `About <${id}>` });
const jsonl = Array.from({ length: 48 }, (_, i) => {
  const subject = i % 4 === 0 ? "bees" : "lease";
  return line(`${subject}-${i}`, `${subjects[subject]} ${nameOf(i)} & more.`);
}).join("\n");
const bees = Array.from({ length: 20 }, (_, i) => line(`b${i}`, `${subjects.bees} ${nameOf(i)} & more.`)).join("\n");

let folder: Awaited<ReturnType<typeof folderOf>>;
const run = (...args: string[]) => cde(args, folder.path);

beforeAll(async () => {
  folder = await folderOf({ "all.jsonl": jsonl, "bees.jsonl": bees });
  if (!hasModel) return;
  for (const args of [
    ["context", "build", "bees.jsonl", "--out", "bees.safetensors", "--strength", "0.35,0.3,0.5"],
    ["index", "all.jsonl", "--out", "whole", "--strength", "0.35,0.3,0.5"],
    ["index", "all.jsonl", "--out", "narrow", "--context", "bees.safetensors"],
    ["index", "all.jsonl", "--out", "plain", "--no-context"],
  ]) {
    const { code, stderr } = await run(...args, ...modelArguments);
    expect(code, stderr).toBe(0);
  }
}, 240_000);
afterAll(() => folder.remove());

/** Two sentences of five words and more, about one of two subjects, with marks that HTML must not take for its own. */
const told = Array.from({ length: 40 }, (_, i) => {
  const subject = subjects[i % 2 === 0 ? "bees" : "lease"];
  return line(`t${i}`, `${subject} ${nameOf(i)} & <b>more</b>. It is said that ${nameOf(i + 17)} was there as well.`);
}).join("\n");

describe.skipIf(!hasModel)("cde context report (skipped without the bundled model)", () => {
  test("explains the strength, and shows whose neighbours change, as text, JSON and a page", async () => {
    const own = await folderOf({ "told.jsonl": told });
    const report = (...args: string[]) =>
      cde(["context", "report", "told.jsonl", ...modelArguments, ...args], own.path);
    const { code, stdout, stderr } = await report("--json", "--html", "page.html", "--query", "who collects <nectar>?");
    expect(code, stderr).toBe(0);
    const answer = JSON.parse(stdout);
    expect(answer).toMatchObject({ passages: 40, why: expect.stringContaining("pseudo-queries") });
    expect(answer.queries).toHaveLength(1);
    const [{ query, without, with: after }] = answer.queries;
    expect(query).toBe("who collects <nectar>?");
    expect(without).toHaveLength(5);
    expect(after[0]).toContain("The bees of the hive");
    const sum = (of: number[]) => of.reduce((total, value) => total + value, 0) / of.length;
    expect(sum(answer.eigenvalues)).toBeCloseTo(1, 6);
    expect(sum(answer.mapped)).toBeCloseTo(1, 6);

    const page = await readFile(join(own.path, "page.html"), "utf8");
    expect(page).toContain("who collects &lt;nectar&gt;?");
    expect(page).not.toMatch(/<b>more|<script|https?:/);

    const off = await report("--strength", "off");
    expect(off.stdout).toContain('strength "off"');
    expect(off.stdout.match(/0 of 5 changed/g)).toHaveLength(10);
    const weighted = await report("--strength", "off", "--token-weights", "0.1", "--json");
    expect(weighted.code, weighted.stderr).toBe(0);
    // The map is off, and the weights alone change neighbours.
    const { queries } = JSON.parse(weighted.stdout) as { queries: { without: string[]; with: string[] }[] };
    expect(queries.some(({ without, with: after }) => without.join() !== after.join())).toBe(true);
    const mistyped = await report("--token-weights", "some");
    expect(mistyped.code).toBe(2);
    expect(mistyped.stderr).toContain('--token-weights should be auto, off or a number such as 0.3, got "some"');
    const wrong = await report("--strength", "0.3,0.3");
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("three numbers");
    await own.remove();
  }, 120_000);
});

describe.skipIf(!hasModel)("contexts (skipped without the bundled model or the reference material)", () => {
  test("inspecting an index shows clusters, examples and what of the corpus the context leaves out", async () => {
    const whole = JSON.parse((await run("context", "inspect", "whole", "--json")).stdout);
    expect(whole).toMatchObject({ size: 48, stage: "spectral", coverage: { passages: 48 } });
    const sizes = whole.clusters.map(({ size }: { size: number }) => size);
    expect(sizes.reduce((sum: number, size: number) => sum + size)).toBe(48);
    for (const { size, corpusShare, example } of whole.clusters) {
      expect(corpusShare).toBeCloseTo(size / 48, 6);
      expect(example).toMatch(/^About <.*>: The (bees|tenant) /);
    }
    // The context is the corpus: every passage is one of its documents.
    expect(whole.coverage.mean).toBeCloseTo(1, 3);
    expect(whole.coverage.imbalance).toBeCloseTo(0, 6);

    const narrow = JSON.parse((await run("context", "inspect", "narrow", "--json")).stdout);
    expect(narrow.size).toBe(20);
    expect(narrow.coverage.mean).toBeLessThan(0.8);
    expect(narrow.coverage.worst[0]).toMatchObject({
      id: expect.stringMatching(/^lease/),
      text: expect.stringContaining("tenant"),
    });
    const { stdout } = await run("context", "inspect", "narrow");
    expect(stdout).toContain("least covered");
  });

  test("draws an SVG file that holds the corpus behind the context, and nothing of a document as markup", async () => {
    const { code, stdout } = await run("context", "inspect", "narrow", "--svg", "picture.svg");
    expect(code).toBe(0);
    expect(stdout).toContain(join(folder.path, "picture.svg"));
    const svg = await readFile(join(folder.path, "picture.svg"), "utf8");
    expect(svg.match(/<circle class="corpus"/g)).toHaveLength(48);
    expect(svg.match(/r="3.5"/g)).toHaveLength(20);
    expect(svg).toContain("About &#60;lease");
    expect(svg).not.toContain("<lease");
    const refused = await run("context", "inspect", "narrow", "--svg", "no/folder/picture.svg");
    expect(refused).toMatchObject({ code: 3, stderr: expect.stringContaining("ENOENT") });
    expect(existsSync(join(folder.path, "no"))).toBe(false);
  });

  test("a context by itself holds no texts, and says so", async () => {
    const { stdout } = await run("context", "inspect", "bees.safetensors");
    expect(stdout).toContain("a context holds no texts: inspect an index");
    expect(stdout).toMatch(/^2 clusters:$/m); // round(sqrt(20 / 4))
  });

  test("tells how far two contexts are apart, in files and in indexes", async () => {
    const same = JSON.parse((await run("context", "diff", "narrow", "bees.safetensors", "--json")).stdout);
    expect(same).toMatchObject({ same: true, fields: [], texts: { shared: 20, onlyA: 0, onlyB: 0 } });
    expect(same.spectral.effect.mean).toBeCloseTo(1, 5);
    const other = JSON.parse((await run("context", "diff", "whole", "narrow", "--json")).stdout);
    expect(other).toMatchObject({ same: false, fields: ["texts"] });
    // Twelve of the corpus's texts are about bees; those with a number that both have and the same title are none.
    expect(other.texts).toMatchObject({ onlyA: 48 - other.texts.shared, onlyB: 20 - other.texts.shared });
    expect(other.spectral.effect.mean).toBeLessThan(0.99);
    const { stdout } = await run("context", "diff", "whole", "narrow");
    expect(stdout).toMatch(/other texts[\s\S]*cosine of the means[\s\S]*two halves of A/);
    const none = await run("context", "diff", "whole", "plain");
    expect(none).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("diff: the index in plain was built without context"),
    });
  });

  test("doctor finds nothing wrong where the other commands work, and what is wrong where a model is missing", async () => {
    const { code, stdout } = await run("doctor", "--json", ...modelArguments);
    const { healthy, checks } = JSON.parse(stdout);
    expect({ code, healthy }).toEqual({ code: 0, healthy: true });
    const names = checks.map(({ name }: { name: string }) => name);
    expect(names).toEqual([
      "platform",
      "Node",
      "machine",
      "ONNX Runtime",
      "model",
      "hnswlib-node",
      "cache of models",
      "without network",
    ]);
    const broken = await run("doctor", "--model", "nowhere");
    expect(broken.code).toBe(3);
    expect(broken.stdout).toMatch(/^FAULT +model: nowhere can't be used.*\n +mend it: check --model$/m);
  });
});
