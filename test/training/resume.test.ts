/** Checkpoints: a run that is interrupted at any moment goes on as if it never was. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CorruptFileError, MissingFileError, RuntimeFailureError } from "@cde-js/core";
import { CheckpointMismatchError, type Evaluator, Trainer, type TrainerOptions } from "@cde-js/core/training";
import { describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { temporaryFolder } from "../support/vectors.js";
import { batchesOf, tinyPairs } from "./support.js";

const folder = temporaryFolder();
const tiny = writeTinyModel(join(folder, "tiny"));
const child = fileURLToPath(new URL("./child.js", import.meta.url));
const runtime = { threads: 1 };
const OPTIONS: TrainerOptions = { learningRate: 1e-3, totalSteps: 12, schedule: "cosine", runtime };
const batches = batchesOf(tinyPairs(16), 4);
let count = 0;
const place = () => join(folder, `checkpoint-${count++}`);

async function train(
  trainer: Trainer,
  { until = 99, from = batches as Parameters<Trainer["steps"]>[0] } = {},
): Promise<number[]> {
  const losses: number[] = [];
  for await (const { step, loss } of trainer.steps(from, { epochs: 3 })) {
    losses.push(loss);
    if (step === until) break;
  }
  return losses;
}

/** Bytes of the weights, of both moments, and where the run stands. */
async function bytesOf(trainer: Trainer): Promise<Record<string, string>> {
  const directory = place();
  await trainer.save(directory);
  return contentOf(directory);
}

function contentOf(directory: string): Record<string, string> {
  const { files } = JSON.parse(readFileSync(join(directory, "checkpoint.json"), "utf8")) as {
    files: Record<string, string>;
  };
  return files;
}

/** The state of a whole run, and of one that was saved and resumed at `cuts`. */
async function interrupted(cuts: readonly number[], options: TrainerOptions = OPTIONS) {
  let directory = place();
  const losses: number[] = [];
  const machine = {
    ...(options.runtime && { runtime: options.runtime }),
    ...(options.layerCache && { layerCache: options.layerCache }),
    ...(options.workers && { workers: options.workers }),
  };
  for (const [i, until] of [...cuts, 99].entries()) {
    await using trainer = i === 0 ? await Trainer.create(tiny, options) : await Trainer.resume(directory, machine);
    losses.push(...(await train(trainer, { until })));
    directory = place();
    await trainer.save(directory);
  }
  return { losses, files: contentOf(directory) };
}

describe("resuming", () => {
  test("gives the same losses, weights and moments, bit for bit, wherever the run was cut", async () => {
    const whole = await interrupted([]);
    expect(whole.losses).toHaveLength(12);
    for (const cuts of [[1], [4], [3, 4, 11]]) {
      const found = await interrupted(cuts);
      expect(found.losses).toEqual(whole.losses);
      expect(found.files).toEqual(whole.files);
    }
    // The control: another seed of the data, or a moment that is lost, is another run.
    const other = await interrupted([4], { ...OPTIONS, learningRate: 1.001e-3 });
    expect(other.files["weights.safetensors"]).not.toBe(whole.files["weights.safetensors"]);
  });

  test("holds for low-rank updates, a learned temperature, two workers, cached layers and a context that is drawn", async () => {
    const stage = { kind: "prefix", layers: 1 } as const;
    for (const options of [
      { ...OPTIONS, lora: { rank: 2 }, temperature: { initial: 0.05 } },
      { ...OPTIONS, workers: 2 as const, temperature: { initial: 0.05 } },
      { ...OPTIONS, freeze: 1, layerCache: { directory: join(folder, "states") } },
      { ...OPTIONS, secondStage: stage, context: { documents: 3 }, runtime: { threads: 2 } },
    ]) {
      const whole = await interrupted([], options);
      const found = await interrupted([5], options);
      expect(found.losses).toEqual(whole.losses);
      expect(found.files).toEqual(whole.files);
    }
  });

  test("keeps the best weights and counts on towards early stopping", async () => {
    const values = [1, 5, 2, 3, 4];
    const scorer = (): Evaluator<"own", "score"> => ({
      name: "own",
      evaluate: async () => ({ score: values.shift() ?? 0 }),
    });
    const evaluation = {
      evaluators: [scorer()],
      evaluateEvery: 1,
      best: { metric: "own/score", patience: 3 },
    } as const;
    const directory = place();
    let best: string;
    {
      await using trainer = await Trainer.create(tiny, { ...OPTIONS, ...evaluation });
      await train(trainer, { until: 3 });
      await trainer.save(directory);
      best = contentOf(directory)["best.safetensors"]!;
    }
    await using resumed = await Trainer.resume(directory, { runtime, ...evaluation });
    expect(resumed.best).toEqual({ value: 5, step: 2 });
    expect(await train(resumed)).toHaveLength(2); // 3 and 4 are no better: with the 2 before, three in a row
    expect((await bytesOf(resumed))["best.safetensors"]).toBe(best);
  });

  test("after kill -9 at several moments, goes on from the last checkpoint to the same end", async () => {
    const kills = process.env.CDE_FULL === "1" ? 10 : 2;
    const directory = place();
    const start = () => spawn(process.execPath, [child, tiny, directory], { stdio: ["ignore", "pipe", "inherit"] });
    for (let kill = 0; kill < kills; kill++) {
      const process_ = start();
      const exited = once(process_, "exit");
      // Killed at once after a step was saved: in the middle of the next step, or of its save.
      await once(process_.stdout, "data");
      process_.kill("SIGKILL");
      await exited;
    }
    const [code] = await once(start(), "exit");
    expect(code).toBe(0);
    expect(contentOf(directory)).toEqual((await interrupted([])).files);
    // What was cut off is cleared away.
    expect(readdirSync(directory)).toHaveLength(2);
  });
});

describe("a checkpoint is refused", () => {
  const saved = async (options: TrainerOptions = OPTIONS): Promise<string> => {
    await using trainer = await Trainer.create(tiny, options);
    await train(trainer, { until: 2 });
    const directory = place();
    await trainer.save(directory);
    return directory;
  };

  test("under another configuration, naming both values; the same values are taken", async () => {
    const directory = await saved();
    const ask = (options: Parameters<typeof Trainer.resume>[1]) => Trainer.resume(directory, { runtime, ...options });
    await expect(ask({ learningRate: 2e-3, totalSteps: 12 })).rejects.toThrow(CheckpointMismatchError);
    await expect(ask({ learningRate: 2e-3, totalSteps: 12 })).rejects.toThrow(
      "has learningRate 0.001, asked for is 0.002",
    );
    await expect(ask({ temperature: { initial: 0.02 } })).rejects.toThrow(
      "has temperatureLearned false, asked for is true",
    );
    await expect(ask({ freeze: 1, layerCache: { directory: join(folder, "states") } })).rejects.toThrow(
      CheckpointMismatchError,
    );
    await (await ask({ learningRate: 1e-3, totalSteps: 12, schedule: "cosine", temperature: 0.02 })).dispose();
  });

  test("with other batches, or fewer", async () => {
    const directory = await saved();
    await using trainer = await Trainer.resume(directory, { runtime });
    await expect(train(trainer, { from: batchesOf(tinyPairs(16, 9).toReversed(), 4) })).rejects.toThrow(
      "isn't the one that the run used",
    );
    await expect(train(trainer, { from: () => batches(0).slice(0, 1) })).rejects.toThrow("only 1 are given now");
    expect(trainer.step).toBe(2);
  });

  test("from a source that begins anywhere: only the batch before is given again, and another source is refused", async () => {
    const begun: [number, number][] = [];
    const source = (digest: string) => ({
      digest,
      *epoch(epoch: number, { from }: { from: number }) {
        begun.push([epoch, from]);
        yield* batches(epoch).slice(from);
      },
    });
    const directory = place();
    {
      await using trainer = await Trainer.create(tiny, OPTIONS);
      await train(trainer, { until: 7, from: source("one") });
      await trainer.save(directory);
    }
    await using resumed = await Trainer.resume(directory, { runtime });
    await expect(train(resumed, { from: source("two") })).rejects.toThrow("batches of the source one");
    await expect(train(resumed)).rejects.toThrow("none with a digest");
    begun.length = 0;
    await train(resumed, { from: source("one") });
    // Seven steps are one epoch of four and three batches.
    expect(begun).toEqual([
      [1, 2],
      [2, 0],
    ]);
    const whole = await interrupted([]);
    expect((await bytesOf(resumed))["weights.safetensors"]).toBe(whole.files["weights.safetensors"]);
  });

  test("with another base model, or none", async () => {
    const directory = await saved();
    const other = writeTinyModel(join(folder, "other"), { seed: 2 });
    await expect(Trainer.resume(directory, { runtime, model: other })).rejects.toThrow("the run began from weights");
    await expect(Trainer.resume(directory, { runtime, model: join(folder, "gone") })).rejects.toThrow(MissingFileError);
    cpSync(tiny, join(folder, "moved"), { recursive: true });
    await (await Trainer.resume(directory, { runtime, model: join(folder, "moved") })).dispose();
  });

  test("where a byte of any file was changed, or there is none", async () => {
    const directory = await saved();
    const { folder: name, files } = JSON.parse(readFileSync(join(directory, "checkpoint.json"), "utf8")) as {
      folder: string;
      files: Record<string, string>;
    };
    for (const file of Object.keys(files)) {
      const path = join(directory, name, file);
      const bytes = readFileSync(path);
      const changed = Buffer.from(bytes);
      changed[Math.floor(bytes.length / 2)]! ^= 1;
      writeFileSync(path, changed);
      await expect(Trainer.resume(directory, { runtime }), file).rejects.toThrow(CorruptFileError);
      writeFileSync(path, bytes);
    }
    await expect(Trainer.resume(join(folder, "nothing"), { runtime })).rejects.toThrow(MissingFileError);
    writeFileSync(join(directory, "checkpoint.json"), JSON.stringify({ format: 1, folder: "../tiny", files }));
    await expect(Trainer.resume(directory, { runtime })).rejects.toThrow("names no checkpoint");
  });

  test("and not written on a full disk; the one before stays, and the error is typed", async () => {
    const directory = await saved();
    const before = contentOf(directory);
    // Files of more than 40 blocks can't be written: to the program it is a disk without room.
    const limited = spawn("bash", ["-c", 'ulimit -f 40; exec "$@"', "bash", process.execPath, child, tiny, directory], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    limited.stderr.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    const [code] = await once(limited, "exit");
    expect(code).toBe(1);
    expect(output).toContain("can't write");
    expect(output).toContain("RUNTIME");
    expect(contentOf(directory)).toEqual(before);
    await (await Trainer.resume(directory, { runtime })).dispose();
    expect(readdirSync(directory)).toHaveLength(2);
  });

  test("and the one before stays where a save fails", async () => {
    const directory = await saved();
    const before = contentOf(directory);
    await using trainer = await Trainer.resume(directory, { runtime });
    await train(trainer, { until: 3 });
    const blocked = place();
    writeFileSync(blocked, "a file where the folder should be");
    await expect(trainer.save(blocked)).rejects.toThrow(RuntimeFailureError);
    expect(contentOf(directory)).toEqual(before);
    await trainer.save(directory);
    expect(contentOf(directory)).not.toEqual(before);
  });
});
