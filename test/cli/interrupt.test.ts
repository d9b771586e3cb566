import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { cde, contentsOf, folderOf, hasModel, modelArguments, start } from "./support.js";

const small =
  '{"id": "old", "text": "The ferry leaves at noon."}\n{"id": "older", "text": "Tickets are sold on board."}\n';
const large = Array.from({ length: 900 }, (_, i) =>
  JSON.stringify({
    id: `new ${i}`,
    text: `Passage ${i}: ${"the harbour master writes the log of the day. ".repeat(20)}`,
  }),
).join("\n");

test.skipIf(!hasModel).each(["SIGINT", "SIGKILL"] as const)(
  "%s in the middle of indexing leaves the old index whole (skipped without a model)",
  async (signal) => {
    const { path: cwd, remove } = await folderOf({ "small.jsonl": small, "large.jsonl": large });
    try {
      const args = ["--out", "my index", ...modelArguments];
      expect((await cde(["index", "small.jsonl", ...args], cwd)).code).toBe(0);
      const before = await contentsOf(join(cwd, "my index"));

      const { child, finished, said } = start(["index", "large.jsonl", ...args, "--no-context"], cwd);
      // This phase ends when the first passages are embedded; several hundred are to come.
      await said("reading: 900 documents");
      if (signal === "SIGINT") {
        // Another writer is turned away, and takes nothing of this one's with it.
        const other = await cde(["index", "small.jsonl", ...args], cwd);
        expect({ code: other.code, stderr: other.stderr }).toMatchObject({
          code: 3,
          stderr: expect.stringContaining("is writing this index"),
        });
      }
      child.kill(signal);
      const { code, stdout, stderr } = await finished;
      expect(stdout).toBe("");
      if (signal === "SIGINT") {
        expect(code).toBe(130);
        const lines = stderr.trimEnd().split("\n");
        expect(lines.at(-1)).toMatch(
          /^cde: interrupted\. An index that was there is whole.* cde index large\.jsonl --out 'my index'/,
        );
        // Nothing of the old index is touched; of the new one only what was embedded is there.
        const after = await contentsOf(join(cwd, "my index"));
        expect(after).toMatchObject(before);
        const added = Object.keys(after).filter((name) => before[name] === undefined);
        expect(added.filter((name) => !name.startsWith("build-"))).toEqual([]);
      } else {
        expect(code).toBe(null);
        expect(await contentsOf(join(cwd, "my index"))).toMatchObject(before);
      }
      const found = await cde(["search", "my index", "when does the ship sail?", "--json"], cwd);
      expect(JSON.parse(found.stdout || found.stderr)).toMatchObject({ documents: 2, hits: [{ id: "old" }, {}] });

      // What a killed process left is gone after the next index.
      expect((await cde(["index", "small.jsonl", ...args], cwd)).code).toBe(0);
      expect((await readdir(join(cwd, "my index"))).length).toBe(Object.keys(before).length);
    } finally {
      await remove();
    }
  },
  // Six processes, each of which loads the model: on a busy machine that takes a while.
  240_000,
);
