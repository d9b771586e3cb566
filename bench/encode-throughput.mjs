/**
 * Encode throughput on documents of mixed length, all-MiniLM-L6-v2: cde-js in float32 and int8 beside transformers.js
 * with the same weights, in its default use (batches of 32 as the texts come) and its best (sorted; the best of 8, 16
 * and 32).
 *
 *   node bench/encode-throughput.mjs --base <all-MiniLM-L6-v2> [--data <BEIR sets>] [--documents 2000] [--rounds 5] [--quick]
 */
import { readDocuments } from "./lib/documents.mjs";
import { exportOnnx } from "./lib/export-onnx.mjs";
import { readOptions, withFolder } from "./lib/options.mjs";
import { checkEqual, line, machine, median, speedUp } from "./lib/report.mjs";
import { Subject, takeTurns } from "./lib/subject.mjs";

const CHECKED = 100;
const { base, data, documents, rounds } = readOptions({ documents: 2000, rounds: 5 }, { documents: 300, rounds: 3 });

await withFolder(async (models) => {
  machine();
  await exportOnnx(base, models, "model");
  const texts = await readDocuments({ data, base, count: documents });
  const ours = {
    float32: Subject.node("cde", base, "float32"),
    int8: Subject.node("cde", base, "int8"),
    "int8-dynamic": Subject.node("cde", base, "int8-dynamic"),
  };
  const theirs = Subject.node("transformers", models, "model");
  await theirs.ask({ do: "take", texts });
  const [{ whole }] = await Promise.all(Object.values(ours).map((subject) => subject.ask({ do: "take", texts })));
  console.log(`${documents} documents, ${documents - whole.length} of them longer than the model reads`);

  // Not those that are cut: transformers.js cuts the last special token off with them, so that its vectors differ.
  const positions = whole.slice(0, CHECKED);
  const vectorsOf = async (subject) => (await subject.ask({ do: "vectors", positions })).vectors;
  const expected = await vectorsOf(theirs);
  checkEqual("float32", expected, await vectorsOf(ours.float32), 0.99999);
  checkEqual("int8", expected, await vectorsOf(ours.int8), 0.98);
  checkEqual("int8-dynamic", expected, await vectorsOf(ours["int8-dynamic"]), 0.95);

  const encode = (subject, request) => () => subject.ask({ do: "encode", ...request });
  const works = { "transformers.js, as they come, 32": encode(theirs, { sorted: false, batch: 32 }) };
  for (const batch of [8, 16, 32]) works[`transformers.js, sorted, ${batch}`] = encode(theirs, { sorted: true, batch });
  for (const [form, subject] of Object.entries(ours)) works[`cde-js, ${form}`] = encode(subject);
  const figures = await takeTurns(works, rounds, {
    onTurn: (name, { ms }) => console.error(`  ${name}: ${(ms / 1000).toFixed(1)} s`),
  });
  const times = {};
  for (const [name, list] of Object.entries(figures)) {
    times[name] = list.map(({ ms }) => ms);
    const rate = (ms) => ((1000 * documents) / ms).toFixed(1);
    const cpu = (median(list.map((figure) => figure.cpu)) / documents).toFixed(1);
    console.log(
      `${name.padEnd(34)} ${rate(median(times[name]))} docs/s (rounds: ${times[name].map(rate).join(" ")}), ` +
        `processor time ${cpu} ms a document`,
    );
  }

  const float32 = times["cde-js, float32"];
  const asTheyCome = times["transformers.js, as they come, 32"];
  const best = Object.keys(times)
    .filter((name) => name.includes("sorted"))
    .reduce((a, b) => (median(times[b]) < median(times[a]) ? b : a));
  line("float32 / transformers.js as they come", speedUp(asTheyCome, float32), { atLeast: 1.5 });
  line(`float32 / ${best}`, speedUp(times[best], float32), { atLeast: 1 });
  line("int8 / float32", speedUp(float32, times["cde-js, int8"]), { atLeast: 1.5 });
  line("int8-dynamic / float32", speedUp(float32, times["cde-js, int8-dynamic"]), { atLeast: 2 });
  machine();
  for (const subject of [...Object.values(ours), theirs]) subject.end();
});
