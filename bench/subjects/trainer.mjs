/** The trainer as a subject: `trainer.mjs <model directory> <threads>`. Every `step` is one of all six layers. */
import { Trainer } from "@cde-js/core/training";
import { serve, timed } from "../lib/subject.mjs";

const [directory, threads] = process.argv.slice(2);
let trainer;
let steps;

await serve({
  /** Makes the first step of a new trainer, whose rate is 0, and says its loss and gradient norm. */
  async take({ pairs, maxTokens }) {
    await trainer?.dispose();
    trainer = await Trainer.create(directory, {
      maxTokens,
      temperature: 0.05,
      schedule: "constant",
      learningRate: 1e-8,
      runtime: { threads: Number(threads) },
    });
    const batch = {
      dataset: "default",
      pairs: pairs.map(([query, positive], i) => ({ id: String(i), query, positive, negatives: [] })),
    };
    steps = trainer.steps(Array(1000).fill(batch))[Symbol.asyncIterator]();
    const { loss, gradientNorm } = (await steps.next()).value;
    return { loss, norm: gradientNorm };
  },
  async peak() {
    return { gigabytes: process.resourceUsage().maxRSS / 1e6 };
  },
  async step() {
    return timed(() => steps.next());
  },
});
