import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { ContextualEmbeddings, CorpusVectorStore } from "@cde-js/adapters/langchain";
import { createRandom } from "@cde-js/core";
import { expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";
import { newFolder } from "./support.js";

const kills = process.env.CDE_FULL === "1" ? 30 : 3;
const child = fileURLToPath(new URL("./save-store-forever.js", import.meta.url));

test(`after kill -9 during a save, one of the stores saved is there whole, ${kills} times`, async () => {
  const embeddings = new ContextualEmbeddings(stubEmbedder());
  const directory = newFolder();
  const random = createRandom(1);
  let interrupted = 0;
  for (let kill = 0; kill < kills; kill++) {
    const saver = spawn(process.execPath, [child, directory], { stdio: ["ignore", "pipe", "inherit"] });
    const exited = once(saver, "exit");
    await once(saver.stdout, "data");
    await new Promise((resolve) => setTimeout(resolve, random.integer(60)));
    saver.kill("SIGKILL");
    await exited;
    // A whole store is a manifest, documents, vectors and words.
    if ((await readdir(directory)).length > 4) interrupted++;
    await using store = await CorpusVectorStore.load(directory, embeddings);
    const [best] = await store.similaritySearch("document 7", 1);
    const [, n] = best?.pageContent.match(/^store ([01]) document/) ?? [];
    const all = await store.similaritySearch("document", 1500);
    expect(all.filter(({ pageContent }) => pageContent.startsWith(`store ${n} document`))).toHaveLength(1500);
  }
  // The control: some saves were cut off, and what they had written lies beside.
  if (kills > 20) expect(interrupted).toBeGreaterThan(2);
}, 300_000);
