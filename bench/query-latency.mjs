/**
 * One query of 60 characters, cde-js in float32 beside transformers.js with the same weights: each after a rest, turn by
 * turn, as where queries are rare; and 25 in a row, as where they come one after the other.
 *
 *   node bench/query-latency.mjs --base <all-MiniLM-L6-v2> [--data <BEIR sets>] [--queries 200] [--quick]
 */
import { cutQueries, readDocuments } from "./lib/documents.mjs";
import { exportOnnx } from "./lib/export-onnx.mjs";
import { readOptions, withFolder } from "./lib/options.mjs";
import { checkEqual, line, machine, quantile } from "./lib/report.mjs";
import { Subject, takeTurns } from "./lib/subject.mjs";

const ROW = 25;

const { base, data, queries: count } = readOptions({ queries: 200 }, { queries: 60 });

await withFolder(async (models) => {
  machine();
  await exportOnnx(base, models, "model");
  const queries = cutQueries(await readDocuments({ data, base, count: 2 * count }), count);
  const subjects = {
    "cde-js": Subject.node("cde", base, "float32"),
    "cde-js, int8": Subject.node("cde", base, "int8"),
    "transformers.js": Subject.node("transformers", models, "model"),
  };
  const ask = (subject) => (round) => subject.ask({ do: "query", text: queries[round % queries.length] });
  const works = Object.fromEntries(Object.entries(subjects).map(([name, subject]) => [name, ask(subject)]));
  await takeTurns(works, 10);
  const answers = await takeTurns(works, queries.length);
  const vectors = (name) => answers[name].map(({ vector }) => vector);
  checkEqual("float32", vectors("transformers.js"), vectors("cde-js"), 0.99999);
  report("after a rest", answers);

  const inRow = (subject) => async (turn) => {
    const row = [];
    for (let i = 0; i < ROW; i++) {
      row.push(await subject.ask({ do: "query", text: queries[(turn * ROW + i) % queries.length] }));
    }
    return row;
  };
  const rows = await takeTurns(
    Object.fromEntries(Object.entries(subjects).map(([name, subject]) => [name, inRow(subject)])),
    Math.ceil(count / ROW),
  );
  report(`${ROW} in a row`, Object.fromEntries(Object.entries(rows).map(([name, turns]) => [name, turns.flat()])));
  machine();
  for (const subject of Object.values(subjects)) subject.end();
});

/** The fastest tenth tells what a busy machine hides: who waited for a processor, and who needed one. */
function report(how, answers) {
  const at = (name, part) =>
    quantile(
      answers[name].map(({ ms }) => ms),
      part,
    );
  console.log(`\n${how}:`);
  for (const name of Object.keys(answers))
    console.log(`${name.padEnd(16)} ${[10, 50, 95].map((p) => `p${p} ${at(name, p / 100).toFixed(2)} ms`).join(", ")}`);
  for (const p of [10, 50, 95]) {
    const ratio = at("cde-js", p / 100) / at("transformers.js", p / 100);
    line(`latency of a query, p${p}: cde-js / transformers.js`, { ratio }, p === 10 ? {} : { atMost: 1 });
  }
}
