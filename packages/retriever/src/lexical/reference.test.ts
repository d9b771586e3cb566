/** BM25 on real judgements: as good as the reference's own figures (`bench/bm25-reference.mjs` runs all 21 sets). */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { evaluateRun, readCorpus, readQrels, readQueries } from "@cde-js/core/evaluation";
import { describe, expect, test } from "vitest";
import { type Analyzer, createAnalyzer } from "./analyzer.js";
import { Bm25Index } from "./bm25-index.js";

const data = fileURLToPath(new URL("../../../../../shared/data/", import.meta.url));

async function ndcg(set: string, analyzer: Analyzer): Promise<number> {
  const index = new Bm25Index({ analyzer });
  const ids: string[] = [];
  for await (const { id, title, text } of readCorpus(data + set)) index.upsert(ids.push(id) - 1, `${title} ${text}`);
  const qrels = await readQrels(data + set, "test");
  const run = new Map<string, string[]>();
  for await (const { id, text } of readQueries(data + set)) {
    if (qrels.has(id))
      run.set(
        id,
        index.search(text, { k: 10 }).map(({ row }) => ids[row]!),
      );
  }
  return 100 * evaluateRun(qrels, run, ["ndcg@10"]).mean["ndcg@10"];
}

describe.skipIf(!existsSync(data))("with the data sets of ../shared (skipped where they are absent)", () => {
  test.each(["bankfaq", "cisi", "nfcorpus", "obliqa"])("is within 0.5 points of bm25.json on %s", async (set) => {
    const { test: figures } = JSON.parse(readFileSync(`${data}${set}/bm25.json`, "utf8")) as {
      test: { ndcg10: number };
    };
    expect(Math.abs((await ndcg(set, createAnalyzer())) - 100 * figures.ndcg10)).toBeLessThan(0.5);
  });

  test("is worse without stems by more than that (the control)", async () => {
    expect(await ndcg("nfcorpus", createAnalyzer({ stem: false }))).toBeLessThan(32.04 - 0.5);
  });
});
