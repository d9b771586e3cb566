/** A child process that trains the tiny model and saves after every step, until it is done or killed. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Trainer } from "@cde-js/core/training";
import { batchesOf, tinyPairs } from "./support.js";

const [model, directory] = process.argv.slice(2) as [string, string];
const options = { runtime: { threads: 1 } };
const trainer = existsSync(join(directory, "checkpoint.json"))
  ? await Trainer.resume(directory, options)
  : await Trainer.create(model, { learningRate: 1e-3, totalSteps: 12, schedule: "cosine", ...options });
for await (const { step } of trainer.steps(batchesOf(tinyPairs(16), 4), { epochs: 3 })) {
  await trainer.save(directory);
  process.stdout.write(`${step}\n`);
}
await trainer.dispose();
