/** Training of the real all-MiniLM-L6-v2, shortly: the loss falls, memory is bounded, the export loads to equal vectors. */
import { join } from "node:path";
import { ContextualEncoder } from "@cde-js/core";
import { exportOnnx, Trainer } from "@cde-js/core/training";
import { expect, test } from "vitest";
import { sharedPath } from "../support/shared.js";
import { largestDifference, temporaryFolder } from "../support/vectors.js";

const model = sharedPath("models/all-MiniLM-L6-v2");
const folder = temporaryFolder();

const pairs = [
  ["who pays for flood damage?", "Costs of repairs after a flood are borne by the landlord."],
  ["can the tenant keep a dog?", "Animals may be kept with the written consent of the owner."],
  ["when is the rent due?", "Payment is to be made by the third working day of each month."],
  ["how is the lease ended?", "Either side may give notice three months ahead."],
].map(([query = "", positive = ""], i) => ({ id: String(i), query, positive, negatives: [] }));

test.skipIf(!model)(
  "all-MiniLM-L6-v2 trains and exports (skipped without the base weights)",
  async () => {
    const target = join(folder, "trained");
    const options = { freeze: 5, learningRate: 1e-4, temperature: 0.1, warmupSteps: 0 };
    const losses: number[] = [];
    let expected: Float32Array[];
    {
      await using trainer = await Trainer.create(model!, options);
      const batches = Array.from({ length: 6 }, () => ({ dataset: "lease", pairs }));
      for await (const { loss } of trainer.steps(batches)) losses.push(loss);
      expected = await (await trainer.embedder()).embedQueries(pairs.map(({ query }) => query));
      expect((await trainer.forgetting())!.paraphrasesFound.base).toBeGreaterThan(0.9);
      await trainer.export(target);
    }
    expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.02);
    await using encoder = await ContextualEncoder.load(target);
    const { vectors } = await encoder.withoutContext().embedQueries(pairs.map(({ query }) => query));
    expect(largestDifference(vectors, expected)).toBeLessThan(1e-6);
    await using base = await ContextualEncoder.load(model!);
    const before = await base.withoutContext().embedQueries(pairs.map(({ query }) => query));
    expect(largestDifference(before.vectors, expected)).toBeGreaterThan(1e-3);
    await exportOnnx(target, join(target, "onnx", "model.onnx"));
    expect(process.resourceUsage().maxRSS / 1024).toBeLessThan(1500);
  },
  240_000,
);
