/** Adam, AdamW and the schedules against PyTorch's and transformers' own figures (`golden/train-optim`). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { goldenJson } from "../model/golden.test.support.js";
import { Runtime } from "../runtime/runtime.js";
import { decays, Optimizer, type OptimizerSettings } from "./optimizer.js";
import { float32Tensor, Parameters } from "./parameters.js";
import { type Decay, learningRateAt } from "./schedule.js";

type Tensor = readonly number[] | readonly (readonly number[])[];

interface OptimizerCase {
  readonly optimizer: string;
  readonly schedule: string;
  readonly warmup_steps: number;
  readonly training_steps: number;
  readonly base_lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly max_grad_norm: number | null;
  readonly weight_decay: Readonly<Record<string, number>>;
  readonly start: Readonly<Record<string, Tensor>>;
  readonly steps: readonly {
    readonly lr_used: number;
    readonly gradient: Readonly<Record<string, Tensor>>;
    readonly gradient_norm_before_clipping: number | null;
    readonly after: Readonly<Record<string, Tensor>>;
  }[];
}

const golden = goldenJson<{
  tolerance_abs: number;
  schedules: readonly {
    kind: string;
    warmup_steps: number;
    training_steps: number;
    base_lr: number;
    lr_used_by_optimizer_step_k_counted_from_0: Readonly<Record<string, number>>;
  }[];
  cases: readonly OptimizerCase[];
  no_decay_parameters: Readonly<Record<string, readonly string[]>>;
}>("train-optim/optim.json");

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
});
afterAll(() => runtime.dispose());

const shapeOf = (tensor: Tensor) =>
  typeof tensor[0] === "number" ? [tensor.length] : [tensor.length, (tensor[0] as readonly number[]).length];
const tensorOf = (tensor: Tensor) => float32Tensor(shapeOf(tensor), Float32Array.from(tensor.flat() as number[]));

function decayOf(kind: string): Decay {
  return kind.startsWith("constant") ? "constant" : (kind as Decay);
}

/** Runs a case and returns the largest distance from the stored values, and the norms. */
async function replay(example: OptimizerCase, changes: Partial<OptimizerSettings> = {}) {
  const shapes = Object.entries(example.start).map(([name, tensor]) => ({ name, shape: shapeOf(tensor) }));
  const parameters = await Parameters.create(runtime, shapes);
  await parameters.weights.write(
    Object.fromEntries(Object.entries(example.start).map(([name, tensor]) => [name, tensorOf(tensor)])),
  );
  const settings: OptimizerSettings = {
    kind: example.optimizer.startsWith("AdamW") ? "adamw" : "adam",
    betas: example.betas,
    epsilon: example.eps,
    weightDecay: Math.max(...Object.values(example.weight_decay)),
    maxGradientNorm: example.max_grad_norm ?? undefined,
    ...changes,
  };
  const optimizer = await Optimizer.open(runtime, parameters, settings);
  let distance = 0;
  const norms: number[] = [];
  for (const [i, step] of example.steps.entries()) {
    await parameters.gradients.write(
      Object.fromEntries(Object.entries(step.gradient).map(([name, tensor]) => [name, tensorOf(tensor)])),
    );
    const { norm } = await optimizer.gradientNorm();
    norms.push(norm);
    await optimizer.update(i + 1, step.lr_used, norm);
    for (const [name, tensor] of Object.entries(step.after)) {
      const { data } = await parameters.weights.read(name);
      tensor.flat().forEach((value, j) => {
        distance = Math.max(distance, Math.abs(Number(data[j]) - (value as number)));
      });
    }
  }
  return { distance, norms };
}

describe("the optimiser", () => {
  test.each(golden.cases.map((example) => [`${example.optimizer}, ${example.schedule}`, example] as const))(
    "is the reference's: %s",
    async (_, example) => {
      const { distance, norms } = await replay(example);
      expect(distance).toBeLessThan(golden.tolerance_abs);
      example.steps.forEach((step, i) => {
        if (step.gradient_norm_before_clipping === null) return;
        expect(norms[i]).toBeCloseTo(step.gradient_norm_before_clipping, 5);
      });
    },
  );

  test("differs with other betas, without decay, and without clipping", async () => {
    const [plain, clipped] = golden.cases as [OptimizerCase, OptimizerCase];
    expect(clipped.max_grad_norm).toBe(1);
    for (const [example, changes] of [
      [plain, { betas: [0.8, 0.999] }],
      [plain, { weightDecay: 0 }],
      [clipped, { maxGradientNorm: undefined }],
    ] as const) {
      expect((await replay(example, changes)).distance).toBeGreaterThan(20 * golden.tolerance_abs);
    }
  });

  test("moves the gates of a prefix stage faster than all else", async () => {
    const names = ["prefix.layer.4.gate", "encoder.layer.4.gate", "prefix.projection.bias"];
    const parameters = await Parameters.create(
      runtime,
      names.map((name) => ({ name, shape: [2] })),
    );
    const settings = { kind: "adamw", betas: [0.9, 0.999], epsilon: 1e-8, weightDecay: 0, maxGradientNorm: 1 } as const;
    const optimizer = await Optimizer.open(runtime, parameters, { ...settings, gateRate: 50 });
    for (const name of names) {
      await parameters.weights.write({ [name]: float32Tensor([2], new Float32Array(2)) });
      await parameters.gradients.write({ [name]: float32Tensor([2], Float32Array.of(0.2, -0.3)) });
    }
    await optimizer.update(1, 0.001, (await optimizer.gradientNorm()).norm);
    // Adam's first step is as long as the rate, whatever the gradient.
    for (const [name, length] of [
      ["prefix.layer.4.gate", 0.05],
      ["encoder.layer.4.gate", 0.001],
      ["prefix.projection.bias", 0.001],
    ] as const) {
      const [first, second] = (await parameters.weights.read(name)).data as Float32Array;
      expect(first, name).toBeCloseTo(-length, 6);
      expect(second, name).toBeCloseTo(length, 6);
    }
  });

  test("names the parameter with the largest gradient, and the first that isn't finite", async () => {
    const shapes = ["a", "b", "c"].map((name) => ({ name, shape: [2] }));
    const parameters = await Parameters.create(runtime, shapes);
    const settings = { kind: "adamw", betas: [0.9, 0.999], epsilon: 1e-8, weightDecay: 0, maxGradientNorm: 1 } as const;
    const optimizer = await Optimizer.open(runtime, parameters, settings);
    const write = (name: string, ...values: number[]) =>
      parameters.gradients.write({ [name]: float32Tensor([2], Float32Array.from(values)) });
    await write("a", 3, 0);
    await write("b", 0, -4);
    await write("c", 0, 0);
    expect(await optimizer.gradientNorm()).toEqual({ norm: 5, largest: { parameter: "b", value: 4 } });
    await write("c", Number.NaN, 1);
    const { norm, largest } = await optimizer.gradientNorm();
    expect(norm).toBeNaN();
    expect(largest).toEqual({ parameter: "c", value: Number.NaN });
  });

  test.each(Object.entries(golden.no_decay_parameters))("decays nothing of %s", (_, names) => {
    for (const name of names) expect(decays({ name, shape: [4] }), name).toBe(false);
    expect(decays({ name: "second_stage_model.sequence_dropout_null_embedding", shape: [4] })).toBe(true);
    expect(decays({ name: "embeddings.word_embeddings.weight", shape: [4, 4] })).toBe(true);
  });
});

describe("learning rates", () => {
  test.each(golden.schedules.map((schedule) => [`${schedule.kind}, ${schedule.warmup_steps}`, schedule] as const))(
    "are transformers': %s",
    (_, { kind, warmup_steps: warmupSteps, training_steps: totalSteps, base_lr: learningRate, ...rest }) => {
      for (const [step, rate] of Object.entries(rest.lr_used_by_optimizer_step_k_counted_from_0)) {
        const found = learningRateAt({ learningRate, decay: decayOf(kind), warmupSteps, totalSteps }, Number(step));
        expect(Math.abs(found - rate)).toBeLessThan(1e-15);
      }
    },
  );

  test("of a cosine fall to half in the middle, a quarter in more than a quarter of the way, and 0 at the end", () => {
    const schedule = { learningRate: 1, decay: "cosine", warmupSteps: 10, totalSteps: 110 } as const;
    expect(learningRateAt(schedule, 10)).toBe(1);
    expect(learningRateAt(schedule, 60)).toBeCloseTo(0.5, 12); // (1 + cos 90°) / 2
    expect(learningRateAt(schedule, 35)).toBeCloseTo((1 + Math.SQRT1_2) / 2, 12); // (1 + cos 45°) / 2
    expect(learningRateAt(schedule, 110)).toBeCloseTo(0, 12);
    expect(learningRateAt(schedule, 200)).toBeCloseTo(0, 12);
  });

  test("that decay need to know the end", () => {
    const schedule = { learningRate: 1, decay: "linear", warmupSteps: 0, totalSteps: undefined } as const;
    expect(() => learningRateAt(schedule, 1)).toThrow("a linear decay needs the number of steps");
    expect(learningRateAt({ ...schedule, decay: "constant" }, 1)).toBe(1);
  });
});
