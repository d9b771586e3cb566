/**
 * cde-js in float32 beside sentence-transformers (Python), where it is at hand: the same documents, which it sorts by
 * length itself, in batches of 32 (its default) and 8, and queries of 60 characters. Skips visibly without it:
 *
 *   python3 -m venv <folder> && <folder>/bin/pip install torch sentence-transformers
 *   node bench/sentence-transformers.mjs --base <all-MiniLM-L6-v2> --python <folder>/bin/python [--data <BEIR sets>]
 *     [--documents 2000] [--rounds 5] [--queries 100] [--quick]
 */
import { cutQueries, readDocuments } from "./lib/documents.mjs";
import { readOptions } from "./lib/options.mjs";
import { checkEqual, line, machine, median, speedUp } from "./lib/report.mjs";
import { Subject, takeTurns } from "./lib/subject.mjs";

const CHECKED = 100;
const defaults = { python: "python3", documents: 2000, rounds: 5, queries: 100 };
const { base, data, python, documents, rounds, queries } = readOptions(defaults, {
  documents: 200,
  rounds: 3,
  queries: 40,
});

const program = new URL("sentence-transformers.py", import.meta.url).pathname;
const theirs = new Subject(python, [program, base]);
const { version, absent } = await theirs.ask({ do: "version" }).catch((error) => ({ absent: error.message }));
if (absent) {
  console.log(`SKIPPED: sentence-transformers isn't at hand (${absent}). Pass --python.`);
  process.exit(0);
}

machine();
console.log(version);
const texts = await readDocuments({ data, base, count: documents });
const ours = Subject.node("cde", base, "float32");
for (const subject of [ours, theirs]) await subject.ask({ do: "take", texts });
const positions = Array.from({ length: Math.min(CHECKED, documents) }, (_, i) => i);
const vectorsOf = async (subject) => (await subject.ask({ do: "vectors", positions })).vectors;
checkEqual("float32", await vectorsOf(theirs), await vectorsOf(ours), 0.99999);

const encode = (subject, batch) => () => subject.ask({ do: "encode", batch });
const works = { "cde-js": encode(ours), "sorted, 32": encode(theirs, 32), "sorted, 8": encode(theirs, 8) };
const figures = await takeTurns(works, rounds);
const times = (name) => figures[name].map(({ ms }) => ms);
for (const name of Object.keys(works)) {
  const rate = ((1000 * documents) / median(times(name))).toFixed(1);
  const cpu = (median(figures[name].map((figure) => figure.cpu)) / documents).toFixed(1);
  console.log(`${name.padEnd(12)} ${rate} docs/s, processor time ${cpu} ms a document`);
}
line("throughput: cde-js / sentence-transformers, 32", speedUp(times("sorted, 32"), times("cde-js")), { atLeast: 1 });
line("throughput: cde-js / sentence-transformers, 8", speedUp(times("sorted, 8"), times("cde-js")), { atLeast: 1 });

const sample = cutQueries(texts, queries);
const ask = (subject) => (round) => subject.ask({ do: "query", text: sample[round % sample.length] });
const asked = { ours: ask(ours), theirs: ask(theirs) };
await takeTurns(asked, 5);
const answers = await takeTurns(asked, sample.length);
const latency = (name) => median(answers[name].map(({ ms }) => ms));
console.log(`query, p50: ${latency("ours").toFixed(2)} ms, theirs ${latency("theirs").toFixed(2)} ms`);
line("latency of a query, p50: cde-js / sentence-transformers", { ratio: latency("ours") / latency("theirs") });
machine();
for (const subject of [ours, theirs]) subject.end();
