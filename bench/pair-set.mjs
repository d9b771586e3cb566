/**
 * How much memory a large set of pairs needs: made-up pairs are streamed into a `PairSet`, read at random, put into random
 * batches; the peak of the process is what counts.
 *
 *   node bench/pair-set.mjs [--pairs 10000000] [--batches 200]
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRandom } from "@cde-js/core";
import { createBatches, createPairSet } from "@cde-js/core/training";
import { withFolder } from "./lib/options.mjs";
import { line, machine } from "./lib/report.mjs";

const { values } = parseArgs({
  options: { pairs: { type: "string", default: "10000000" }, batches: { type: "string", default: "200" } },
});
const [count, wanted] = [values.pairs, values.batches].map(Number);

function* madeUp() {
  const random = createRandom(1);
  for (let i = 0; i < count; i++) {
    const number = random.integer(1e9);
    yield {
      query: `what is said of number ${i}?`,
      positive: `Of number ${i}, which follows ${number}, it is said that it is ${i % 7}.`,
    };
  }
}

const peak = () => process.resourceUsage().maxRSS / 1e6;

machine();
await withFolder(async (folder) => {
  let start = performance.now();
  const seconds = () => `${((performance.now() - start) / 1000).toFixed(0)} s`;
  const pairs = await createPairSet(join(folder, "pairs"), madeUp());
  console.log(`${pairs.size.toLocaleString("en")} pairs written in ${seconds()}, peak ${peak().toFixed(2)} GB`);
  start = performance.now();
  const batches = await createBatches(pairs, { batchSize: 256, strategy: "random", surrogate: false });
  const plan = await batches.plan(0);
  console.log(`${plan.batches.toLocaleString("en")} batches planned in ${seconds()}, peak ${peak().toFixed(2)} GB`);
  start = performance.now();
  let read = 0;
  for await (const { pairs: some } of batches.epoch(0)) {
    if (some.length !== 256) throw new Error(`a batch has ${some.length} pairs.`);
    if (++read === wanted) break;
  }
  console.log(`${read} batches read in ${seconds()}, peak ${peak().toFixed(2)} GB`);
  line(`${count.toLocaleString("en")} pairs: peak of memory`, { ratio: peak() }, { atMost: 2, unit: " GB" });
});
