import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CorpusIndex } from "@cde-js/retriever";
import { afterAll, expect, test } from "vitest";
import { randomVectors } from "../support/random-vectors.js";
import { stubEmbedder } from "../support/stub-embedder.js";

const kills = process.env.CDE_FULL === "1" ? 60 : 4;
const embedder = stubEmbedder();
const child = fileURLToPath(new URL("../support/save-forever.js", import.meta.url));
const directory = await mkdtemp(join(tmpdir(), "cde-kill-"));
afterAll(() => rm(directory, { recursive: true, force: true }));

test(`after kill -9 during a save, the acknowledged index is there or the next one, ${kills} times`, async () => {
  let acknowledged = -1;
  let interrupted = 0;
  for (let kill = 0; kill < kills; kill++) {
    const saver = spawn(process.execPath, [child, directory, String(acknowledged + 1)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(saver, "exit");
    const first = new Promise<void>((resolve) => {
      let text = "";
      saver.stdout.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        const lines = text.split("\n");
        text = lines.pop() as string;
        for (const line of lines) acknowledged = Number(line);
        if (lines.length > 0) resolve();
      });
    });
    await first;
    // A save takes a few milliseconds to some tens: the moment is spread over several of them.
    await new Promise((resolve) => setTimeout(resolve, ((randomVectors(1, 1, kill)[0] as number) + 1) * 60));
    saver.kill("SIGKILL");
    await exited;
    if ((await readdir(directory)).length > 4) interrupted++;
    await using index = await CorpusIndex.open(directory, embedder);
    const [best] = await index.search("document", { k: 1 });
    const n = Number(best?.id.split("-")[0]);
    // The one in flight may have been finished and not reported.
    expect([acknowledged % 8, (acknowledged + 1) % 8]).toContain(n);
    expect(index.count).toBe(200);
    for await (const { text } of index.documents()) expect(text).toMatch(new RegExp(`^index ${n} document \\d+$`));
    if (n !== acknowledged % 8) acknowledged++;
  }
  // The control: saves were indeed cut off, their lock and files left behind.
  if (kills > 50) expect(interrupted).toBeGreaterThan(5);
  // A lock of the last one killed may lie there; it is taken over, and what was left is cleared.
  await using last = await CorpusIndex.build(embedder, [{ id: "last", text: "last" }]);
  await last.save(directory);
  expect(await readdir(directory)).toHaveLength(4);
}, 300_000);
