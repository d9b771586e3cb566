/** The trainer: a loop that the caller owns, over batches that the caller gives. */
import { locateModel } from "../encoder/model-source.js";
import { InvalidInputError } from "../errors.js";
import { createRandom, Random } from "../random.js";
import { Runtime } from "../runtime/runtime.js";
import { type BaseModel, readBaseModel } from "./base-model.js";
import type { TrainingBatch } from "./batch.js";
import { type BatchSource, type EpochBatches, passOver, requireSource, sourceOf } from "./batch-source.js";
import { CheckpointMismatchError, TrainingDivergedError } from "./errors.js";
import type { Evaluator, MetricOf, TrainingEmbedder, TrainingEmbedderOptions } from "./evaluation.js";
import { type ExportOptions, exportTrained } from "./export-model.js";
import { type Forgetting, forgettingOf, probeTexts } from "./forgetting.js";
import { type LargestGradient, Optimizer } from "./optimizer.js";
import { type MachineOptions, type OpenOptions, settingsOf, type TrainingSettings } from "./options.js";
import { LOG_SCALE } from "./parameters.js";
import { batchDigest, type Progress } from "./progress.js";
import { learningRateAt } from "./schedule.js";
import { openState, readTensors, restoreTensors, type SavedState, writeState } from "./state.js";
import { TrainedModel } from "./trained-model.js";
import {
  checkEvaluation,
  type EvaluationOptions,
  type ResumeOptions,
  requireSame,
  type StepsOptions,
  type TrainerOptions,
  type TrainingStep,
} from "./trainer-options.js";

/**
 * A model in training. Nothing is written before `save` or `export`. The base model's directory must stay as it is:
 * checkpoints name it. `dispose()` ends the worker thread.
 */
export class Trainer<M extends string = string> implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #model: TrainedModel;
  readonly #optimizer: Optimizer;
  readonly #evaluation: EvaluationOptions<readonly Evaluator[]>;
  readonly #opened: SavedState["opened"];
  readonly #probe: readonly Float32Array[] | undefined;
  #progress: Progress;
  #best: ReadonlyMap<string, Float32Array> | undefined;
  #largest: LargestGradient | undefined;
  #running = false;

  private constructor(parts: {
    runtime: Runtime;
    model: TrainedModel;
    optimizer: Optimizer;
    evaluation: EvaluationOptions<readonly Evaluator[]>;
    opened: SavedState["opened"];
    probe: readonly Float32Array[] | undefined;
    progress: Progress;
    best: ReadonlyMap<string, Float32Array> | undefined;
  }) {
    this.#runtime = parts.runtime;
    this.#model = parts.model;
    this.#optimizer = parts.optimizer;
    this.#evaluation = parts.evaluation;
    this.#opened = parts.opened;
    this.#probe = parts.probe;
    this.#progress = parts.progress;
    this.#best = parts.best;
  }

  /**
   * Opens a model for training, from a directory or the hub. Raises what `ContextualEncoder.load` raises, and
   * InvalidInputError for options that don't suit each other or the model.
   */
  static async create<const E extends readonly Evaluator[] = readonly []>(
    source: string,
    options: TrainerOptions<E> = {},
  ): Promise<Trainer<MetricOf<E[number]>>> {
    options.signal?.throwIfAborted();
    const { directory } = await locateModel(source, options.signal ? { signal: options.signal } : {});
    const base = await readBaseModel(directory, openOptionsOf(options));
    const settings = settingsOf(base, options);
    const progress: Progress = {
      step: 0,
      epoch: 0,
      batches: 0,
      source: null,
      lastBatch: null,
      random: createRandom(settings.seed).state(),
      best: null,
      evaluationsSinceBest: 0,
      metrics: null,
      pairs: {},
    };
    const opened = {
      path: base.path,
      kind: base.kind,
      secondStage: options.secondStage ?? null,
      pathPreset: options.pathPreset ?? null,
      tokenizer: options.tokenizer ?? null,
      pooling: options.pooling ?? null,
      dequantize: options.dequantize ?? false,
      layerCache: options.layerCache !== undefined,
    };
    return Trainer.#open<MetricOf<E[number]>>(base, settings, opened, progress, options);
  }

  /**
   * Goes on where `save` stood. Steps are the same, bit for bit, as those of a run that was never interrupted, where
   * batches, threads and processor are the same. Evaluators are given again; options that are given must be those of the
   * checkpoint. Raises MissingFileError, CorruptFileError or CheckpointMismatchError.
   */
  static async resume<const E extends readonly Evaluator[] = readonly []>(
    directory: string,
    options: ResumeOptions<E> = {},
  ): Promise<Trainer<MetricOf<E[number]>>> {
    await using saved = await openState(directory);
    const { opened, progress } = saved.state;
    const base = await readBaseModel(options.model ?? opened.path, {
      secondStage: opened.secondStage ?? undefined,
      preset: opened.pathPreset ?? undefined,
      tokenizer: opened.tokenizer ?? undefined,
      pooling: opened.pooling ?? undefined,
    });
    const settings = saved.settingsFor(base);
    requireSame(directory, settings, base, options);
    if (opened.layerCache !== (options.layerCache !== undefined)) {
      throw new CheckpointMismatchError(
        "layerCache",
        `Trainer.resume: the run in ${directory} was made ${opened.layerCache ? "with" : "without"} layerCache, which rounds the states of frozen layers; ${opened.layerCache ? "pass it again" : "leave it out"}.`,
      );
    }
    const here = { ...opened, path: base.path };
    const trainer = await Trainer.#open<MetricOf<E[number]>>(base, settings, here, progress, options);
    try {
      saved.requireBase(trainer.#model.baseDigest, base.path);
      trainer.#best = await restoreTensors(saved, trainer.#model.parameters);
      return trainer;
    } catch (error) {
      await trainer.dispose();
      throw error;
    }
  }

  static async #open<M extends string>(
    base: BaseModel,
    settings: TrainingSettings,
    opened: SavedState["opened"],
    progress: Progress,
    options: MachineOptions & EvaluationOptions<readonly Evaluator[]>,
  ): Promise<Trainer<M>> {
    const evaluation = checkEvaluation(options);
    const runtime = await Runtime.start(options.runtime);
    let model: TrainedModel | undefined;
    try {
      model = await TrainedModel.open(base, settings, runtime, { ...options, dequantize: opened.dequantize });
      const optimizer = await Optimizer.open(runtime, model.parameters, {
        kind: settings.optimizer,
        betas: settings.betas,
        epsilon: settings.epsilon,
        weightDecay: settings.weightDecay,
        gateRate: settings.gateRate,
        maxGradientNorm: settings.maxGradientNorm ?? undefined,
      });
      const probe = base.kind === "two-stage" ? undefined : await embedProbe(model);
      return new Trainer<M>({ runtime, model, optimizer, evaluation, opened, probe, progress, best: undefined });
    } catch (error) {
      await model?.[Symbol.asyncDispose]();
      await runtime.dispose();
      throw error;
    }
  }

  /** Steps of the optimiser that were made. */
  get step(): number {
    return this.#progress.step;
  }

  /** The options with all defaults. */
  get settings(): TrainingSettings {
    return this.#model.settings;
  }

  /** Numbers that are trained. */
  get trainedParameters(): number {
    return this.#model.parameters.count;
  }

  /** The best figure and its step; undefined before the first evaluation. */
  get best(): { readonly value: number; readonly step: number } | undefined {
    return this.#progress.best ?? undefined;
  }

  /**
   * Trains, one step of the optimiser at a time, whenever the next is asked for. Several epochs need a source, or a
   * function that gives each one's batches. Ends after `epochs`, at `totalSteps`, or where the best figure is `patience`
   * evaluations old. Raises TrainingDivergedError where loss or gradients aren't finite; weights are then those of the step before.
   */
  async *steps(
    batches: EpochBatches | BatchSource | ((epoch: number) => EpochBatches),
    { epochs = 1, signal }: StepsOptions = {},
  ): AsyncGenerator<TrainingStep<M>, void, undefined> {
    if (!Number.isSafeInteger(epochs) || epochs < 1) {
      throw new InvalidInputError(`steps: epochs should be a whole number from 1, got ${epochs}.`);
    }
    const source = sourceOf(batches);
    if (epochs > 1 && !source) {
      throw new InvalidInputError(
        `steps: ${epochs} epochs need a source of batches or a function (epoch) => batches; got batches of one.`,
      );
    }
    if (this.#running) throw new InvalidInputError("steps: this trainer is in a loop already. End that one first.");
    requireSource(this.#progress, source?.digest);
    this.#running = true;
    try {
      while (this.#progress.epoch < epochs) {
        const { epoch, batches: used } = this.#progress;
        // One more than are left: the last one used tells whether they are the same.
        const from = source?.begins ? Math.max(0, used - 1) : 0;
        const given = source ? source.epoch(epoch, { from }) : (batches as EpochBatches);
        const ended = yield* this.#epoch(given, from, signal);
        if (ended) return;
        if (this.#progress.epoch === epoch) this.#endEpoch(); // it held no more batches
      }
    } finally {
      this.#running = false;
    }
  }

  /** The model as it is now, for figures of one's own. Its vectors belong to no index: the next step changes them. */
  async embedder(options: TrainingEmbedderOptions = {}): Promise<TrainingEmbedder> {
    const { base } = this.#model;
    const prompts = this.#model.promptsOf(options.dataset ?? "default");
    const idsOf = async (texts: readonly string[], prompt: string) =>
      (await base.tokenizer.encodeBatch(texts, { maxTokens: base.maxTokens, prompt, operation: "embedder" })).ids;
    const documents = options.context;
    if (documents && base.contextSize !== undefined && documents.length !== base.contextSize) {
      throw new InvalidInputError(
        `embedder: the model reads exactly ${base.contextSize} context documents, got ${documents.length}.`,
      );
    }
    const contextIds = documents && (await idsOf(documents, prompts.document));
    const space = contextIds && this.settings.spectral ? await this.#model.fitSpace(contextIds) : undefined;
    const context = contextIds && !space ? await this.#model.embedContext(contextIds) : undefined;
    const embed = async (texts: readonly string[], prompt: string): Promise<Float32Array[]> => {
      if (texts.length === 0) return [];
      const ids = await idsOf(texts, prompt);
      const rows = await (space ? this.#model.embedWithin(space, ids) : this.#model.embed(ids, context));
      return rowsOf(rows, texts.length);
    };
    return {
      dimensions: base.backbone.hiddenSize,
      embedQueries: (texts) => embed(texts, prompts.query),
      embedDocuments: (texts) => embed(texts, prompts.document),
    };
  }

  /**
   * How far the model has moved from its base on a bundled probe of 36 pairs of general English sentences. Undefined for
   * two-stage models, whose vectors mean nothing without a context.
   */
  async forgetting(): Promise<Forgetting | undefined> {
    return this.#probe && forgettingOf(this.#probe, await embedProbe(this.#model));
  }

  /**
   * Writes a checkpoint: weights, optimiser, place in the batches, random state, best weights. It is there wholly or the
   * one before stays. Call it between steps. Raises RuntimeFailureError where the disk fails.
   */
  async save(directory: string): Promise<void> {
    await writeState(directory, {
      model: this.#model,
      opened: this.#opened,
      progress: this.#progress,
      best: this.#best,
    });
  }

  /**
   * Writes a model directory that `ContextualEncoder.load` and, for biencoders, sentence-transformers load, with a model
   * card. `target` must not exist or be empty.
   */
  async export(target: string, options: ExportOptions = {}): Promise<void> {
    await exportTrained(
      {
        model: this.#model,
        progress: this.#progress,
        best: this.#best,
        forgetting: await this.forgetting(),
        dequantized: this.#opened.dequantize,
      },
      target,
      options,
    );
  }

  async dispose(): Promise<void> {
    await this.#model[Symbol.asyncDispose]();
    await this.#runtime.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** One epoch from where the run stands; true where the whole run has ended. */
  async *#epoch(
    batches: EpochBatches,
    from: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<TrainingStep<M>, boolean, undefined> {
    const { accumulate, totalSteps } = this.settings;
    const progress = this.#progress;
    const iterator = Symbol.asyncIterator in batches ? batches[Symbol.asyncIterator]() : batches[Symbol.iterator]();
    try {
      await passOver(iterator, from, progress);
      let next = await iterator.next();
      while (!next.done) {
        if (totalSteps !== null && progress.step >= totalSteps) return true;
        signal?.throwIfAborted();
        const used: TrainingBatch[] = [];
        while (!next.done && used.length < accumulate) {
          used.push(next.value);
          next = await iterator.next();
        }
        const made = await this.#step(used);
        if (next.done) this.#endEpoch(); // before the caller sees the step, and may save
        yield await this.#evaluated(made, next.done === true || progress.step === totalSteps);
        const { patience } = this.#evaluation.best ?? {};
        if (patience !== undefined && progress.evaluationsSinceBest >= patience) return true;
      }
      return false;
    } finally {
      await iterator.return?.();
    }
  }

  #endEpoch(): void {
    this.#progress.epoch += 1;
    this.#progress.batches = 0;
    this.#progress.lastBatch = null;
  }

  async #step(batches: readonly TrainingBatch[]): Promise<TrainingStep<M>> {
    const started = performance.now();
    const progress = this.#progress;
    const step = progress.step + 1;
    const random = Random.fromState(progress.random);
    const pairs = batches.flatMap((batch) => batch.pairs);
    const sums = {
      loss: 0,
      distillation: 0,
      accuracy: 0,
      documents: 0,
      falseNegatives: 0,
      difficulty: 0,
      truncated: 0,
    };
    const learningRate = learningRateAt({ ...scheduleOf(this.settings) }, progress.step);
    let gradientNorm: number;
    try {
      const diverged = (largestGradient: LargestGradient | undefined) =>
        new TrainingDivergedError({ step, loss: sums.loss, pairs: pairs.map(({ id }) => id), largestGradient });
      for (const batch of batches) {
        const found = await this.#model.addBatch(batch, random);
        for (const key of Object.keys(sums) as (keyof typeof sums)[]) sums[key] += found[key];
        if (!Number.isFinite(found.loss)) throw diverged(this.#largest);
      }
      await this.#model.finishGradients();
      const { norm, largest } = await this.#optimizer.gradientNorm(batches.length);
      if (!Number.isFinite(norm)) throw diverged(largest);
      this.#largest = largest;
      gradientNorm = norm;
      await this.#optimizer.update(step, learningRate, norm, batches.length);
    } finally {
      await this.#model.clearGradients();
    }
    progress.step = step;
    progress.batches += batches.length;
    progress.lastBatch = batchDigest(batches.at(-1)!);
    progress.random = random.state();
    const counts = new Map(Object.entries(progress.pairs));
    for (const { dataset, pairs: used } of batches) counts.set(dataset, (counts.get(dataset) ?? 0) + used.length);
    progress.pairs = Object.fromEntries(counts);
    const logScale = await this.#model.parameters.weights.read(LOG_SCALE);
    return {
      step,
      epoch: progress.epoch,
      batches: progress.batches,
      datasets: [...new Set(batches.map(({ dataset }) => dataset))],
      loss: sums.loss / batches.length,
      distillation: sums.distillation / batches.length,
      accuracy: sums.accuracy / batches.length,
      learningRate,
      gradientNorm,
      temperature: Math.exp(-Number(logScale.data[0])),
      pairs: pairs.length,
      documents: sums.documents,
      falseNegatives: sums.falseNegatives,
      ...(Number.isFinite(sums.difficulty) && { difficulty: sums.difficulty / batches.length }),
      truncated: sums.truncated,
      milliseconds: performance.now() - started,
    };
  }

  /** The step with the evaluators' figures, where they are due. */
  async #evaluated(made: TrainingStep<M>, last: boolean): Promise<TrainingStep<M>> {
    const { evaluators = [], evaluateEvery = "epoch", best } = this.#evaluation;
    const due = evaluateEvery === "epoch" ? last : made.step % evaluateEvery === 0;
    if (!due || evaluators.length === 0) return made;
    const metrics: Record<string, number> = {};
    for (const evaluator of evaluators) {
      const found = await evaluator.evaluate((options) => this.embedder(options));
      for (const [metric, value] of Object.entries(found)) {
        const name = `${evaluator.name}/${metric}`;
        if (!Number.isFinite(value))
          throw new InvalidInputError(`steps: the evaluator's figure "${name}" is ${value}.`);
        metrics[name] = value;
      }
    }
    const progress = this.#progress;
    progress.metrics = metrics;
    if (!best) return { ...made, metrics: metrics as Record<M, number> };
    const value = metrics[best.metric];
    if (value === undefined) {
      throw new InvalidInputError(
        `steps: the evaluators gave no figure "${best.metric}", only ${Object.keys(metrics).join(", ")}.`,
      );
    }
    const before = progress.best?.value;
    const isBest = before === undefined || (best.lower ? value < before : value > before);
    if (isBest) {
      progress.best = { value, step: made.step };
      progress.evaluationsSinceBest = 0;
      this.#best = await readTensors(this.#model.parameters.weights, this.#model.parameters);
    } else progress.evaluationsSinceBest += 1;
    return { ...made, metrics: metrics as Record<M, number>, isBest };
  }
}

function openOptionsOf({ secondStage, pathPreset, tokenizer, pooling }: OpenOptions) {
  return { secondStage, preset: pathPreset, tokenizer, pooling };
}

function scheduleOf({ learningRate, schedule, warmupSteps, totalSteps }: TrainingSettings) {
  return { learningRate, decay: schedule, warmupSteps, totalSteps: totalSteps ?? undefined };
}

async function embedProbe(model: TrainedModel): Promise<Float32Array[]> {
  const { base } = model;
  const texts = probeTexts();
  const { ids } = await base.tokenizer.encodeBatch(texts, {
    maxTokens: base.maxTokens,
    prompt: model.promptsOf("default").document,
  });
  return rowsOf(await model.embed(ids, undefined), texts.length);
}

function rowsOf(vectors: Float32Array, rows: number): Float32Array[] {
  const width = vectors.length / rows;
  return Array.from({ length: rows }, (_, row) => vectors.slice(row * width, (row + 1) * width));
}
