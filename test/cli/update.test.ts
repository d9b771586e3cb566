import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { cde, folderOf, hasModel, modelArguments, start } from "./support.js";

const files = {
  "docs/lease.txt": "The landlord repairs what a burst pipe has flooded.\n",
  "docs/bees.md": "Bees make honey from the nectar of flowers.\n",
  "docs/dogs.txt": "A shepherd's dog keeps the flock together.\n",
  "judged.jsonl": '{"query": "who makes honey", "relevant": {"bees.md": 1}}\n',
  "bad.jsonl": '{"query": "who makes honey"}\n',
};

describe.skipIf(!hasModel)("an index over time (skipped without a model)", () => {
  test("is updated, drifts, gets another context and returns to the old one", async () => {
    const { path: cwd, remove } = await folderOf(files);
    const json = async (...args: string[]) => {
      const { code, stdout, stderr } = await cde([...args, "--json"], cwd);
      expect(code, stderr).toBe(0);
      return JSON.parse(stdout);
    };
    try {
      const built = await json("index", "docs", "--out", "index", ...modelArguments);
      await writeFile(join(cwd, "docs/bees.md"), "Wasps make paper from wood.\n");
      await writeFile(join(cwd, "docs/ships.txt"), "The ferry leaves the harbour at noon.\n");
      await rm(join(cwd, "docs/dogs.txt"));
      // The model is the one that the index was built with: it needs not be named again.
      const kept = await json("index", "docs", "--out", "index", "--update");
      expect(kept).toMatchObject({
        added: 1,
        replaced: 1,
        unchanged: 1,
        embedded: 2,
        deleted: 0,
        missing: 1,
        documents: 4,
      });
      const pruned = await json("index", "docs", "--out", "index", "--update", "--delete-missing");
      expect(pruned).toMatchObject({
        added: 0,
        replaced: 0,
        unchanged: 3,
        embedded: 0,
        deleted: 1,
        missing: 0,
        documents: 3,
      });
      const found = await json("search", "index", "when does the ferry sail?", "-k", "1");
      expect(found.hits).toMatchObject([{ id: "ships.txt" }]);
      expect(await json("drift", "index")).toMatchObject({ documents: { settled: 1, added: 2 } });

      const recontext = await json("recontext", "index", "--judged", "judged.jsonl");
      expect(recontext).toMatchObject({ before: { fingerprint: built.fingerprint }, embedded: false, contextSize: 3 });
      expect(recontext.before.ndcg10).toEqual(expect.any(Number));
      expect(recontext.after.fingerprint).not.toBe(built.fingerprint);
      expect((await json("context", "inspect", "index")).fingerprint).toBe(recontext.after.fingerprint);
      expect((await json("search", "index", "ferry", "-k", "1")).hits).toMatchObject([{ id: "ships.txt" }]);
      const back = await cde(["recontext", "index", "--rollback"], cwd);
      expect(back.stdout).toContain(`context ${built.fingerprint.slice(0, 12)} now`);
      expect(back.stdout).toContain("nothing was embedded");

      const bad = await cde(["recontext", "index", "--judged", "bad.jsonl"], cwd);
      expect({ code: bad.code, stdout: bad.stdout }).toEqual({ code: 1, stdout: "" });
      expect(bad.stderr).toContain("bad.jsonl, line 1: expected");
    } finally {
      await remove();
    }
  }, 240_000);

  test("an interrupted run is gone on with by the same command", async () => {
    const lines = Array.from({ length: 1400 }, (_, i) => JSON.stringify({ id: `d${i}`, text: `The log of day ${i}.` }));
    const { path: cwd, remove } = await folderOf({ "large.jsonl": lines.join("\n") });
    try {
      const args = ["index", "large.jsonl", "--out", "index", "--no-context", ...modelArguments];
      const { child, finished } = start(args, cwd);
      const isKept = async (): Promise<boolean> =>
        (await readdir(join(cwd, "index")).catch(() => [])).some((name) => name.startsWith("build-"));
      while (!(await isKept())) await new Promise((resolve) => setTimeout(resolve, 20));
      child.kill("SIGINT");
      const { code, stderr } = await finished;
      expect(code).toBe(130);
      expect(stderr).toContain("what was embedded is kept: the same command goes on with it");
      expect((await cde(["search", "index", "log"], cwd)).stderr).toContain("holds no index");
      const again = await cde([...args, "--json"], cwd);
      expect(again.code, again.stderr).toBe(0);
      const { documents, resumed } = JSON.parse(again.stdout);
      expect(documents).toBe(1400);
      expect(resumed).toBeGreaterThanOrEqual(512);
    } finally {
      await remove();
    }
  }, 240_000);
});

test.each([
  [["drift"], "drift takes the folder of one index"],
  [["recontext", "a", "b"], "recontext takes the folder of one index"],
  [["recontext", "a", "--rollback", "--seed", "1"], "--rollback and --seed exclude each other"],
  [["recontext", "a", "--rollback", "--strength", "off"], "--rollback and --strength exclude each other"],
  [["recontext", "a", "--strength", "much"], "--strength should be auto, off or three numbers"],
  [["index", "docs", "--out", "x", "--delete-missing"], "--delete-missing is for --update"],
  [["index", "docs", "--out", "x", "--update", "--fresh"], "--update and --fresh exclude each other"],
])("%j is a wrong command line", async (args, message) => {
  const { code, stdout, stderr } = await cde(args, ".");
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toContain(message);
});
