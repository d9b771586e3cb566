/**
 * Makes the file by which `index.drift()` and `cde drift` tell how far another corpus is: `npm run export:corpora -- --data <folder of BEIR sets>`.
 * It holds vectors of the bundled model and digests of texts, no text. Run it again when the bundled model changes.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ContextualEncoder, createRandom } from "@cde-js/core";
import { readCorpus } from "@cde-js/core/evaluation";
import { modelDirectory } from "@cde-js/model-mini";

/** Sets whose licences allow it; see packages/model-mini/NOTICE. */
const SETS = ["medquad", "squad", "cuad", "boolq", "scitldr", "tldr_pages", "nq", "tatqa", "covidqa"];
const OF_EACH = 15;

const { values } = parseArgs({ options: { data: { type: "string" } } });
if (values.data === undefined) {
  console.error("usage: npm run export:corpora -- --data <folder of BEIR sets>");
  process.exit(2);
}
const texts = [];
for (const set of SETS) {
  const all = [];
  for await (const { title, text } of readCorpus(join(values.data, set))) all.push(title ? `${title} ${text}` : text);
  texts.push(...createRandom(31).shuffle(all).slice(0, OF_EACH));
}
const file = join(modelDirectory, "other-corpora.safetensors");
const encoder = await ContextualEncoder.load(modelDirectory);
await (await encoder.buildContext(texts, { strength: "off" })).save(file);
await encoder.dispose();
console.log(`wrote ${file}: ${texts.length} texts of ${SETS.length} corpora`);
