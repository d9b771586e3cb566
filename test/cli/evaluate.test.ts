import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readBeirRun, readTrecRun } from "@cde-js/core/evaluation";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cde, folderOf, hasModel, modelArguments } from "./support.js";

const corpus = [
  ["flood", "Damage", "The landlord repairs what storm, fire or flood has damaged."],
  ["rent", "Rent", "The rent is due on the third working day of each month."],
  ["deposit", "Deposit", "The deposit is paid back within six months of the return of the keys."],
  ["pets", "Pets", "Cats are allowed; a dog needs the landlord's consent."],
  ["noise", "Noise", "Instruments are played from nine to twelve and from three to eight."],
  ["notice", "Notice", "Both sides may end the lease with three months of notice."],
] as const;
const queries = [
  ["q1", "who pays when the river rises?", "flood"],
  ["q2", "when do I have to pay?", "rent"],
  ["q3", "may I keep a puppy?", "pets"],
  ["q4", "<b>piano</b> practice hours", "noise"],
] as const;
const lines = (records: object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join("");
const files = {
  "lease/corpus.jsonl": lines(corpus.map(([_id, title, text]) => ({ _id, title, text }))),
  "lease/queries.jsonl": lines(queries.map(([_id, text]) => ({ _id, text }))),
  "lease/qrels/test.tsv": `query-id\tcorpus-id\tscore\n${queries.map(([q, , d]) => `${q}\t${d}\t1\n`).join("")}`,
  "lease/qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq1\tflood\t1\n",
  "bees.jsonl": lines(
    ["Bees make honey from nectar.", "A queen lays eggs.", "Drones do not sting."].map((text, i) => ({
      id: `${i}`,
      text,
    })),
  ),
  "plain/lease.txt":
    "The landlord repairs what storm or flood has damaged in the house. The tenant reports a leaking pipe on the day on which it is found.",
  "plain/rules.md":
    "Instruments are played from nine to twelve in the morning only. The stairs are swept once a week by each tenant in turn.",
  "spaced/my lease.txt":
    "A pipe that leaks is reported on the same day. The landlord repairs it within one week at most.",
  "rerank.mjs": "export default (query, hits) => hits.map(({ id }) => (id === 'deposit' ? 1 : 0));\n",
  "named.mjs": "export const rerank = async () => { throw new Error('no more coal'); };\n",
  "short.mjs": "export default () => [1];\n",
  "none.mjs": "export const other = 1;\n",
  "broken.mjs": "export default (\n",
};
let cwd: string;
let remove: () => Promise<void>;
beforeAll(async () => {
  ({ path: cwd, remove } = await folderOf(files));
});
afterAll(() => remove());
const evaluate = (...args: string[]) => cde(["evaluate", ...args, ...modelArguments], cwd);

describe("a wrong command line ends with 2 and one line", () => {
  test.each([
    [[], "the folder of a data set is missing"],
    [["plain"], "plain holds no corpus.jsonl"],
    [["lease", "--systems", "bm25,colbert"], 'there is no "colbert"; there are bm25, base, context'],
    [["lease", "--systems", "base,base"], "--systems names base twice"],
    [["lease", "--systems", "wrong-context"], "wrong-context needs --wrong-corpus"],
    [["lease", "--systems", "rerank"], "rerank needs --rerank"],
    [["lease", "--systems", "base", "--wrong-corpus", "bees.jsonl"], "--systems leaves wrong-context out"],
    [["lease", "--metrics", "map,map"], "--metrics names map twice"],
    [["lease", "--queries", "0"], '--queries should be an integer of at least 1, got "0"'],
    [["--no-qrels", "plain", "--split", "dev"], "there is no --split"],
    [["lease", "--systems", "bm25", "--against", "base"], '--against is "base", which is none of bm25'],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await cde(["evaluate", ...args], cwd);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});

describe("bad input ends with 1 and one line", () => {
  test.each([
    [["lease", "--metrics", "dcg@10"], 'unknown metric "dcg@10"'],
    [["lease", "--split", "train"], 'no split "train". It has: dev, test'],
    [["lease", "--html", "none/report.html"], "to write none/report.html to"],
    [["--no-qrels", "spaced", "--run", "out.trec"], `can't carry the id "my lease.txt"`],
    [["lease", "--rerank", "nowhere.mjs"], "no file nowhere.mjs"],
    [["lease", "--rerank", "none.mjs"], 'exports no function, by default or as "rerank"'],
    [["lease", "--rerank", "broken.mjs"], "broken.mjs can't be loaded"],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await cde(["evaluate", ...args], cwd);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain(message);
  });
});

interface Answer {
  readonly dataSet: object;
  readonly synthetic: string | null;
  readonly base: string;
  readonly context: { readonly size: number; readonly fingerprint: string } | null;
  readonly wrongContext: { readonly corpus: string; readonly size: number; readonly fingerprint: string } | null;
  readonly systems: {
    readonly name: string;
    readonly mean: Record<string, number>;
    readonly against: Record<string, { readonly difference: number; readonly interval: number[] }> | null;
    readonly perQuery: Record<string, Record<string, number>>;
  }[];
  readonly html: string | null;
  readonly runs: Record<string, string>;
}

describe.skipIf(!hasModel)("with a model (skipped without the bundled one or the reference material)", () => {
  test("compares all systems in one command, writes the report and a run of each", async () => {
    const { code, stdout, stderr } = await evaluate(
      ...["lease", "--wrong-corpus", "bees.jsonl", "--rerank", "rerank.mjs", "--metrics", "ndcg@10,success@1"],
      ...["--html", "report.html", "--run", "out.trec", "--json"],
    );
    expect(code, stderr).toBe(0);
    const answer = JSON.parse(stdout) as Answer;
    expect(answer.dataSet).toEqual({ name: "lease", split: "test", documents: 6, queries: 4, missingDocuments: [] });
    expect(answer).toMatchObject({ synthetic: null, base: "base", context: { size: 6 }, wrongContext: { size: 3 } });
    expect(answer.context!.fingerprint).not.toBe(answer.wrongContext!.fingerprint);
    expect(answer.systems.map(({ name }) => name)).toEqual([
      ...["bm25", "base", "context", "wrong-context", "hybrid", "rerank"],
    ]);
    for (const { name, mean, against, perQuery } of answer.systems) {
      expect(Object.keys(perQuery)).toEqual(["q1", "q2", "q3", "q4"]);
      const figures = Object.values(perQuery).map((row) => row["ndcg@10"]!);
      expect(mean["ndcg@10"]).toBeCloseTo(figures.reduce((sum, value) => sum + value, 0) / 4, 12);
      expect(against === null).toBe(name === "base");
    }
    // The reranker puts the same document first always, and no query asks for it.
    const mean = Object.fromEntries(answer.systems.map((system) => [system.name, system.mean["success@1"]]));
    expect(mean).toMatchObject({ base: 1, context: 1, rerank: 0 });
    expect(Object.keys(answer.runs)).toHaveLength(6);
    const run = await readTrecRun(join(cwd, "out.rerank.trec"));
    for (const results of run.values()) expect([...results.keys()][0]).toBe("deposit");
    const words = await readTrecRun(join(cwd, "out.bm25.trec"));
    // No document shares a word with q2, so that BM25 finds nothing.
    expect([...words.keys()]).not.toContain("q2");
    expect(answer.systems[0]!.perQuery.q2!["ndcg@10"]).toBe(0);
    const page = await readFile(answer.html!, "utf8");
    expect(page).toContain("&lt;b&gt;piano&lt;/b&gt; practice hours");
    expect(page).not.toContain("<b>piano");
  });

  test("the dev split, one system, its run as BEIR's JSON under its own name; equal to the byte when run again", async () => {
    const args = ["lease", "--split", "dev", "--systems", "hybrid", "--run", "one.json", "--html", "one.html"];
    const first = await evaluate(...args);
    expect(first.code, first.stderr).toBe(0);
    expect(first.stdout).toMatch(/^lease, dev: 1 query, 6 documents\n/);
    expect(first.stdout).toMatch(/\nhybrid +100\.0 /);
    const files = async () => Promise.all(["one.json", "one.html"].map((name) => readFile(join(cwd, name), "utf8")));
    const before = await files();
    expect([...(await readBeirRun(join(cwd, "one.json"))).keys()]).toEqual(["q1"]);
    expect((await evaluate(...args)).code).toBe(0);
    expect(await files()).toEqual(before);
    expect(existsSync(join(cwd, "one.hybrid.json"))).toBe(false);
  });

  test("without judgements: says so on the terminal and in the report", async () => {
    const args = [
      "--no-qrels",
      "plain",
      "--systems",
      "bm25,base,hybrid-base",
      "--against",
      "bm25",
      "--html",
      "no.html",
    ];
    const shown = await evaluate(...args);
    expect(shown.code, shown.stderr).toBe(0);
    expect(shown.stdout).toContain("NOTE: Synthetic queries: nobody judged anything.");
    expect(shown.stdout).toContain("difference to bm25");
    expect(shown.stdout).toMatch(/^plain, synthetic: 2 queries, 2 documents\n/);
    expect(await readFile(join(cwd, "no.html"), "utf8")).toContain('class="warning"');
  });

  test("a reranker that fails, or gives too few scores, is named", async () => {
    const failed = await evaluate("lease", "--systems", "rerank", "--rerank", "named.mjs");
    expect(failed.code).toBe(1);
    expect(failed.stderr).toContain("--rerank named.mjs failed: no more coal");
    const short = await evaluate("lease", "--systems", "rerank", "--rerank", "short.mjs");
    expect(short.code).toBe(1);
    expect(short.stderr).toContain("rerank gave 1 scores for 6 hits");
  });
});
