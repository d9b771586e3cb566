/**
 * A model that was trained here, loaded elsewhere: the exported directory in sentence-transformers (Python, where it is at
 * hand) and its ONNX form in transformers.js must give our vectors, and the base's must differ from them.
 *
 *   node bench/export-check.mjs --base <all-MiniLM-L6-v2> --python <interpreter> [--data <BEIR sets>] [--texts 64]
 */
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ContextualEncoder } from "@cde-js/core";
import { exportOnnx, Trainer } from "@cde-js/core/training";
import { readDocuments } from "./lib/documents.mjs";
import { readOptions, withFolder } from "./lib/options.mjs";
import { checkEqual, leastCosine } from "./lib/report.mjs";
import { Subject } from "./lib/subject.mjs";

const { base, data, python, texts: count } = readOptions({ python: "python3", texts: 64 });
// Whole ones only: libraries cut a text that is too long at different places.
const plain = await ContextualEncoder.load(base);
const whole = (await readDocuments({ data, base, count: 4 * count }))
  .map((text) => text.split(/\s+/).slice(0, 60).join(" "))
  .filter((text) => plain.withoutContext().countTokens(text) <= 128);
const texts = whole.slice(0, count);
await plain.dispose();

await withFolder(async (folder) => {
  const trained = join(folder, "trained");
  const trainer = await Trainer.create(base, { learningRate: 1e-4, schedule: "constant", warmupSteps: 0 });
  const half = count / 2;
  const pairs = texts
    .slice(0, half)
    .map((query, i) => ({ id: `${i}`, query, positive: texts[half + i], negatives: [] }));
  for await (const _ of trainer.steps(Array(3).fill({ dataset: "default", pairs })));
  await trainer.export(trained, { card: { name: "Check", licence: "apache-2.0" } });
  await trainer.dispose();
  await mkdir(join(folder, "models"));
  await cp(trained, join(folder, "models", "trained"), { recursive: true });
  await exportOnnx(trained, join(folder, "models", "trained", "onnx", "model.onnx"));

  const [own, before] = await Promise.all([trained, base].map(vectorsOf));
  console.log(`trained and base: least cosine ${leastCosine(own, before).toFixed(4)}`);
  if (leastCosine(own, before) > 0.999) throw new Error("Training changed nothing: the comparison would show nothing.");
  const others = {
    "transformers.js": Subject.node("transformers", join(folder, "models"), "trained"),
    "sentence-transformers": new Subject(python, [
      new URL("sentence-transformers.py", import.meta.url).pathname,
      trained,
    ]),
  };
  for (const [name, subject] of Object.entries(others)) {
    try {
      await subject.ask({ do: "take", texts });
    } catch (error) {
      console.log(`SKIPPED: ${name} isn't at hand (${error.message}).`);
      continue;
    }
    const { vectors } = await subject.ask({ do: "vectors", positions: [...texts.keys()] });
    checkEqual(name, own, vectors, 0.99999);
    subject.end();
  }
});

async function vectorsOf(model) {
  const encoder = await ContextualEncoder.load(model);
  const { vectors } = await encoder.withoutContext().embedDocuments(texts);
  await encoder.dispose();
  return vectors.map((vector) => [...vector]);
}
