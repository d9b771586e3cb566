/** Makes the bundled model from the base weights: `npm run export:mini -- --base <folder of all-MiniLM-L6-v2>`. */
import { rename, rm } from "node:fs/promises";
import { parseArgs } from "node:util";
import { exportInt8 } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";

const { values } = parseArgs({ options: { base: { type: "string" } } });
if (values.base === undefined) {
  console.error("usage: npm run export:mini -- --base <folder of all-MiniLM-L6-v2>");
  process.exit(2);
}
// exportInt8 writes over nothing, and the old model stays until the new one is whole.
const fresh = `${modelDirectory}.new`;
await exportInt8(values.base, fresh);
await rm(modelDirectory, { recursive: true, force: true });
await rename(fresh, modelDirectory);
console.log(`wrote ${modelDirectory}; its sample of other corpora is made by npm run export:corpora`);
