import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CorpusIndex } from "@cde-js/retriever";
import { afterAll, expect, test } from "vitest";
import { randomVectors } from "../support/random-vectors.js";
import { stubEmbedder } from "../support/stub-embedder.js";

const full = process.env.CDE_FULL === "1";
const kills = full ? 200 : 6;
const embedder = stubEmbedder();
const child = fileURLToPath(new URL("../support/update-forever.js", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "cde-kill-updates-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A number from 0 to 1, the same in every run. */
const random = (seed: number): number => ((randomVectors(1, 1, seed)[0] as number) + 1) / 2;

/** Starts the child, kills it `after` milliseconds behind its first line, and gives the lines it wrote. */
async function killed(args: readonly string[], after: number): Promise<string[]> {
  const process_ = spawn(process.execPath, [child, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(process_, "close");
  let text = "";
  await new Promise<void>((resolve) => {
    process_.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes("\n")) resolve();
    });
  });
  await new Promise((resolve) => setTimeout(resolve, after));
  process_.kill("SIGKILL");
  await exited;
  return text.split("\n").slice(0, -1);
}

test(`after kill -9 during updates and compactions, all acknowledged ones are there, ${kills} times`, async () => {
  const directory = join(folder, "updates");
  await (await CorpusIndex.build(embedder, [{ id: "first", text: "the first" }], { directory })).close();
  let acknowledged = -1;
  let unfinished = 0;
  for (let kill = 0; kill < kills; kill++) {
    const lines = await killed([directory, String(acknowledged + 1)], random(kill) * 120);
    acknowledged = Number(lines.at(-1));
    await using index = await CorpusIndex.open(directory, embedder);
    // Of the slot of update n: what the last update of that slot wrote, all three parts of one update.
    const numbers = new Map<number, Set<number>>();
    for await (const { id, text } of index.documents()) {
      const [, slot, part] = /^u(\d+)-(\d)$/.exec(id) ?? [];
      if (slot === undefined) continue;
      const [, n, own] = /^update n(\d+) part p(\d)$/.exec(text) ?? [];
      expect(own).toBe(part);
      numbers.set(Number(slot), (numbers.get(Number(slot)) ?? new Set()).add(Number(n)));
    }
    for (let n = Math.max(0, acknowledged - 39); n <= acknowledged; n++) {
      const found = [...(numbers.get(n % 40) ?? [])];
      // The one in flight may have taken the place of the oldest, wholly.
      expect(n === acknowledged - 39 ? [n, acknowledged + 1] : [n]).toContain(found[0]);
      expect(found).toHaveLength(1);
    }
    const inFlight = numbers.get((acknowledged + 1) % 40);
    if (inFlight?.has(acknowledged + 1)) acknowledged++;
    const [best] = await index.search(`update n${acknowledged} part p1`, { k: 1, mode: "lexical" });
    expect(best?.text).toBe(`update n${acknowledged} part p1`);
    if ((await readdir(directory)).some((name) => name.endsWith(".tmp") || name === "lock")) unfinished++;
  }
  // The control: processes were indeed cut off, not ended.
  expect(unfinished).toBe(kills);
}, 1_800_000);

test("a build that is killed again and again ends with the same vectors as one that is not", async () => {
  const [directory, whole] = [join(folder, "build"), join(folder, "whole")];
  let built = false;
  let resumed = 0;
  for (let kill = 0; !built && kill < 60; kill++) {
    const lines = await killed([directory, "0", "build"], 150 + 450 * kill * random(kill));
    built = lines.includes("built");
    if (!built && (await readdir(directory)).some((name) => name.startsWith("build-"))) resumed++;
  }
  expect(built).toBe(true);
  const documents = Array.from({ length: 6000 }, (_, i) => ({ id: `b${i}`, text: `document ${i}` }));
  await (await CorpusIndex.build(embedder, documents, { directory: whole, split: false, lexical: false })).close();
  const vectorsOf = async (path: string): Promise<Buffer> =>
    readFile(join(path, (await readdir(path)).find((name) => name.startsWith("vectors-")) as string));
  expect((await vectorsOf(directory)).equals(await vectorsOf(whole))).toBe(true);
  if (full) expect(resumed).toBeGreaterThan(0);
}, 300_000);
