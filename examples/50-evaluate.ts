/**
 * Does context pay on your corpus? Eighteen clauses and twelve judged questions, three systems, differences with their
 * intervals, and a report to open in a browser. `cde evaluate <folder>` does the same from the command line.
 */
import { mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compareSystems, evaluate, readDataSet, writeReport, writeTrecRun } from "@cde-js/core/evaluation";
import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";

const clauses: Record<string, string> = {
  "rent-day": "The rent is due on the third working day of each month.",
  "rent-late": "Who pays late owes interest of five percent a year.",
  "rent-rise": "The rent may be raised once in fifteen months, by what the index of prices has risen.",
  "deposit-size": "The deposit is three months of rent and is kept on an account of its own.",
  "deposit-back": "The deposit is paid back within six months of the return of the keys.",
  "damage-storm": "The landlord repairs what storm, fire or flood has damaged.",
  "damage-own": "Scratches in the parquet and broken panes are repaired by the tenant.",
  "damage-pipe": "The tenant reports a leaking pipe on the day on which it is found.",
  pets: "Cats and small animals in cages are allowed; a dog needs the landlord's consent.",
  noise: "Instruments are played from nine to twelve and from three to eight.",
  notice: "Both sides may end the lease with three months of notice to the end of a quarter.",
  keys: "The keys are returned on the last day, at the latest at noon.",
  heating: "From October to April the flat is heated to at least twenty degrees by day.",
  stairs: "Each tenant in turn sweeps the stairs once a week.",
  bicycles: "Bicycles are kept in the cellar and not in the stairwell.",
  sublet: "Rooms are sublet with the landlord's written consent only.",
  garden: "The garden behind the house is used by all tenants, and watered by those on the ground floor.",
  waste: "Waste is put out on Tuesday evening, paper on the first Monday of the month.",
};
// Who writes questions should not look at the clauses' words: people who search don't know them.
const questions: [text: string, answers: string[]][] = [
  ["When do I have to transfer the money?", ["rent-day"]],
  ["What happens if I forget to pay?", ["rent-late"]],
  ["Can it become more expensive?", ["rent-rise"]],
  ["How much security do I leave with the owner?", ["deposit-size"]],
  ["When do I get my security back?", ["deposit-back"]],
  ["Who bears the cost of a tree that fell on the roof?", ["damage-storm"]],
  ["There is a puddle under the sink", ["damage-pipe", "damage-storm"]],
  ["May my son practise the trumpet after dinner?", ["noise"]],
  ["I want to move out", ["notice", "keys"]],
  ["May I adopt a puppy?", ["pets"]],
  ["A friend wants to live in one of my rooms", ["sublet"]],
  ["Where can I leave my bike?", ["bicycles"]],
];

// 1. BEIR's layout: three small files that any program can write.
const folder = await mkdtemp(join(tmpdir(), "cde-example-"));
const lines = (records: object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join("");
try {
  await mkdir(join(folder, "lease", "qrels"), { recursive: true });
  const corpus = Object.entries(clauses).map(([_id, text]) => ({ _id, title: "", text }));
  await writeFile(join(folder, "lease", "corpus.jsonl"), lines(corpus));
  const asked = questions.map(([text], i) => ({ _id: `q${i + 1}`, text }));
  await writeFile(join(folder, "lease", "queries.jsonl"), lines(asked));
  const judgements = questions.flatMap(([, answers], i) => answers.map((id) => `q${i + 1}\t${id}\t1\n`));
  await writeFile(join(folder, "lease", "qrels", "test.tsv"), `query-id\tcorpus-id\tscore\n${judgements.join("")}`);

  // 2. Three systems on the same questions. An embedder alone is searched exactly; a function can be any search.
  const dataSet = await readDataSet(join(folder, "lease"));
  await using encoder = await ContextualEncoder.load(modelDirectory);
  const embedder = encoder.withContext(await encoder.buildContext(Object.values(clauses)));
  await using index = await CorpusIndex.build(embedder, dataSet.documents);
  const metrics = ["ndcg@10", "success@1"] as const;
  const base = await evaluate(encoder.withoutContext(), dataSet, { metrics });
  const context = await evaluate(embedder, dataSet, { metrics });
  const words = await evaluate(
    (query, options) => index.search(query, { ...options, mode: "lexical", mergeByDocument: true }),
    dataSet,
    { metrics },
  );
  const comparison = compareSystems(
    [
      { name: "words", description: "BM25", result: words },
      { name: "base", description: "vectors without context", result: base },
      { name: "context", description: "vectors in context", result: context },
    ],
    { base: "base", metrics, seed: 1 },
  );
  for (const { name, result, against } of comparison.systems) {
    const { difference, interval, pValue } = against?.["ndcg@10"] ?? {};
    const compared = interval
      ? `, ${points(difference!)} against base (${interval.map(points).join(" to ")}), p = ${pValue!.toFixed(2)}`
      : "";
    console.log(`${name.padEnd(8)} nDCG@10 ${points(result.mean["ndcg@10"])}${compared}`);
  }
  console.log("Twelve questions are too few to tell base and context apart: the interval holds 0.");

  // 3. For eyes and for other tools.
  await writeReport(join(folder, "report.html"), dataSet, comparison);
  await writeTrecRun(join(folder, "context.trec"), context.run, { tag: "context" });
  console.log(`report.html: ${Math.round((await stat(join(folder, "report.html"))).size / 1024)} KiB`);
} finally {
  await rm(folder, { recursive: true });
}

function points(value: number): string {
  return (100 * value).toFixed(1);
}
