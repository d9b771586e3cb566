/** A run of training from its configuration to the exported model: the loop, its log, its checkpoints and its end. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ContextualEncoder, createRandom, InvalidInputError } from "@cde-js/core";
import {
  type AnySurrogate,
  type Batches,
  type BatchReport,
  type BatchSource,
  createBatches,
  type EvaluationOptions,
  type Evaluator,
  type Forgetting,
  openFileSurrogate,
  type PairSet,
  Trainer,
  TrainingDivergedError,
  type TrainingEmbedder,
  type TrainingStep,
} from "@cde-js/core/training";
import { modelDirectory } from "@cde-js/model-mini";
import { InterruptedError, type Invocation } from "../command.js";
import { loadEncoder } from "../model.js";
import { grouped } from "../printable.js";
import { surrogateOf, type TrainingPlan } from "./config.js";
import { type Dev, type DevContext, devEvaluator, prepareDev } from "./dev.js";
import { openPairs } from "./pair-sources.js";
import { renderRunReport } from "./report.js";
import { type LogLine, RunFolder, writeWhole } from "./run-folder.js";

export interface RunOptions {
  readonly resume: boolean;
  /** The command line that goes on with the run, for whoever interrupts it. */
  readonly resumeBy: string;
}

export interface RunOutcome {
  readonly steps: number;
  readonly epochs: number;
  readonly pairs: number;
  readonly devPairs: number;
  readonly seconds: number;
  /** Why it ended. */
  readonly ended: "complete" | "patience" | "time";
  /** Figures before training, of the weights that were exported, and of the last step; undefined without evaluation. */
  readonly figures:
    | {
        readonly metric: string;
        readonly before: Readonly<Record<string, number>>;
        readonly exported: Readonly<Record<string, number>> | undefined;
        readonly exportedStep: number;
        readonly last: Readonly<Record<string, number>>;
      }
    | undefined;
  readonly dev: string;
  /** Of the trainer, defaults included. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly forgetting: Forgetting | undefined;
  readonly notes: readonly string[];
  readonly output: string;
  readonly report: string;
  readonly log: string;
}

const CHECKPOINT_EVERY = 100;
/** Steps that tell how long one takes; the first also prepares the graphs. */
const TRIAL = 3;
/** Share of the time that they may take. */
const TRIAL_SHARE = 0.1;
/** Texts that are embedded between two looks at whether somebody interrupted. */
const SLICE = 64;
/** Positives of a data set that context documents are drawn from. */
const CONTEXT_POOL = 2000;

/** Trains, or goes on training. @throws InterruptedError after Ctrl-C, with what was saved and how to go on */
export async function runTraining(
  plan: TrainingPlan,
  options: RunOptions,
  invocation: Invocation,
): Promise<RunOutcome> {
  requireFree(plan.output);
  await using folder = options.resume ? await RunFolder.resume(plan) : await RunFolder.begin(plan);
  const run = new Run(plan, folder, invocation);
  try {
    return await run.all();
  } catch (error) {
    if (!invocation.signal.aborted) throw error;
    const { signal } = invocation.signal.reason as InterruptedError;
    throw new InterruptedError(signal, `${run.saved} Go on with: ${options.resumeBy}`);
  } finally {
    await run.close();
  }
}

/** @throws InvalidInputError where the output is there already */
export function requireFree(output: string): void {
  const names = existsSync(output) ? readdirSync(output) : [];
  if (names.length > 0) {
    throw new InvalidInputError(
      `the output ${output} is there already and isn't empty. Name another one, or remove it.`,
    );
  }
}

class Run {
  /** What an interruption has left, as a sentence. */
  saved = "What was prepared is kept.";
  readonly #plan: TrainingPlan;
  readonly #folder: RunFolder;
  readonly #invocation: Invocation;
  readonly #started = performance.now();
  readonly #opened: AsyncDisposable[] = [];
  readonly #notes: string[] = [];
  #earlierSeconds = 0;
  /** Figures before training, where a trial has measured them already. */
  #baseline: Record<string, number> | undefined;
  #lines: LogLine[] = [];

  constructor(plan: TrainingPlan, folder: RunFolder, invocation: Invocation) {
    this.#plan = plan;
    this.#folder = folder;
    this.#invocation = invocation;
  }

  async close(): Promise<void> {
    for (const resource of this.#opened.reverse()) await resource[Symbol.asyncDispose]();
    this.#opened.length = 0;
  }

  async all(): Promise<RunOutcome> {
    const { signal } = this.#invocation;
    const { seed = 0, faulty } = this.#plan;
    const pairs = this.#keep(
      await openPairs(join(this.#folder.path, "pairs"), this.#plan.data, this.#invocation, { faulty, seed }),
    );
    const dev = await prepareDev(pairs, this.#plan.evaluation ?? {}, seed, this.#invocation);
    const batches = await this.#batchesOf(dev.train);
    signal.throwIfAborted();

    let trainer: Trainer | undefined;
    // Evaluators are made before the trainer, whose settings say how large a context is.
    const evaluator = devEvaluator(dev, { seed, context: () => contextOf(trainer) });
    const evaluation = this.#evaluationOf(dev, evaluator);
    const checkpoint = join(this.#folder.path, "checkpoint");
    if (existsSync(join(checkpoint, "checkpoint.json"))) {
      trainer = this.#keep(await Trainer.resume(checkpoint, { ...this.#machine(), ...evaluation }));
      this.#lines = await this.#folder.openLog(trainer.step);
      this.#earlierSeconds = this.#lines.at(-1)?.seconds ?? 0;
      this.#invocation.progress.note(`going on behind step ${grouped(trainer.step)}`);
    } else {
      this.#lines = await this.#folder.openLog(-1);
      const totalSteps = this.#folder.totalSteps ?? (await this.#planSteps(dev, batches));
      trainer = this.#keep(await this.#create(dev, { totalSteps, ...evaluation }));
      await this.#before(trainer, dev, evaluator);
    }
    const { warmupSteps, totalSteps } = trainer.settings;
    if (warmupSteps > 0 && totalSteps !== null && warmupSteps >= totalSteps) {
      this.#notes.push(
        `The warm-up of ${grouped(warmupSteps)} steps is as long as the run of ${grouped(totalSteps)}: the learning rate never came to its height. Set training.warmupSteps, or train longer.`,
      );
    }
    const ended = await this.#train(trainer, { dev, batches, checkpoint });
    return await this.#finish(trainer, { dev, ended, evaluator, devPairs: pairs.size - dev.train.size, pairs });
  }

  #keep<T extends AsyncDisposable>(resource: T): T {
    this.#opened.push(resource);
    return resource;
  }

  get #seconds(): number {
    return this.#earlierSeconds + (performance.now() - this.#started) / 1000;
  }

  get #model(): string {
    return this.#plan.model ?? modelDirectory;
  }

  #machine() {
    const { threads, training = {} } = this.#plan;
    const { layerCache } = training;
    return {
      ...(threads !== undefined && { runtime: { threads } }),
      ...(layerCache && {
        layerCache: { directory: join(this.#folder.path, "layers"), ...(typeof layerCache === "object" && layerCache) },
      }),
    };
  }

  #evaluationOf(dev: Dev, evaluator: Evaluator<"dev", string>): EvaluationOptions<readonly Evaluator<"dev", string>[]> {
    if (dev.sets.length === 0) return {};
    const { every = "epoch", patience } = this.#plan.evaluation || {};
    return {
      evaluators: [evaluator],
      evaluateEvery: every,
      best: { metric: bestMetricOf(dev), ...(patience !== undefined && { patience }) },
    };
  }

  async #batchesOf(train: PairSet): Promise<Batches> {
    const { seed = 0, threads, batches: config = {} } = this.#plan;
    const { signal, progress } = this.#invocation;
    const { surrogate: _, clusterSize, clusterStarts: starts, clusterIterations: iterations, ...given } = config;
    const rest = this.#maskedByTrainer ? { ...given, falseNegatives: false as const } : given;
    const surrogate = await this.#surrogate();
    return this.#keep(
      await createBatches(train, {
        strategy: "contextual",
        ...rest,
        ...(surrogate && { surrogate }),
        clusters: {
          ...(clusterSize !== undefined && { clusterSize }),
          ...(starts !== undefined && { starts }),
          ...(iterations !== undefined && { iterations }),
        },
        seed,
        ...(threads !== undefined && { runtime: { threads } }),
        signal,
        onProgress: ({ dataset, phase, done, total }) =>
          progress.update(`${phase === "k-means" ? "clustering" : phase} ${dataset}`, { done, total, noun: "pair" }),
      }),
    );
  }

  /**
   * Whether the trainer finds false negatives: of random batches by the base, where it has the base's vectors of what it
   * reads, or nearly, in any case.
   */
  get #maskedByTrainer(): boolean {
    const { batches = {}, training = {} } = this.#plan;
    const byBase = batches.strategy === "random" && surrogateOf(batches) === "base" && batches.falseNegatives !== false;
    return byBase && Boolean(training.distillation || training.layerCache);
  }

  async #surrogate(): Promise<AnySurrogate | undefined> {
    const named = surrogateOf(this.#plan.batches ?? {});
    if (named === false || this.#maskedByTrainer) return undefined;
    const { signal } = this.#invocation;
    if (typeof named === "object") return this.#keep(await openFileSurrogate({ ...named, signal }));
    const { threads } = this.#plan;
    const path = named === "base" ? this.#model : named;
    const encoder = this.#keep(
      threads === undefined
        ? await loadEncoder(path, this.#invocation)
        : await ContextualEncoder.load(path, { signal, runtime: { threads } }),
    );
    return encoder.withoutContext();
  }

  async #create(
    { train }: Dev,
    options: { readonly totalSteps: number } & EvaluationOptions<readonly Evaluator<"dev", string>[]>,
  ): Promise<Trainer> {
    const { seed = 0, training = {}, model, batches: { falseNegatives } = {} } = this.#plan;
    const { layerCache: _, context, spectral, dequantize = model === undefined, ...rest } = training;
    const { from, ...contextRest } = context ?? {};
    const pool = spectral || from === "corpus" ? await contextPool(train, seed) : {};
    return Trainer.create(this.#model, {
      ...rest,
      seed,
      dequantize,
      ...(this.#maskedByTrainer && { falseNegatives: falseNegatives || { rule: "positive" } }),
      ...(context && {
        context: {
          ...contextRest,
          ...(from === "corpus" ? { from: pool } : from && { from }),
        },
      }),
      ...(spectral && { spectral: { ...spectral, from: pool } }),
      ...this.#machine(),
      ...options,
      signal: this.#invocation.signal,
    });
  }

  /** Steps of the whole run, kept for runs that go on. */
  async #planSteps(dev: Dev, batches: Batches): Promise<number> {
    const { signal } = this.#invocation;
    const { budget = {}, training = {} } = this.#plan;
    const { accumulate = 1 } = training;
    const { steps: most = Number.POSITIVE_INFINITY, minutes } = budget;
    const unlimited = budget.steps !== undefined || minutes !== undefined;
    const { epochs = unlimited ? Number.POSITIVE_INFINITY : 1 } = budget;
    let steps = 0;
    const fits = minutes === undefined ? most : Math.min(most, await this.#stepsWithin(60 * minutes, dev, batches));
    for (let epoch = 0; epoch < epochs && steps < fits; epoch++) {
      steps += Math.ceil((await batches.plan(epoch, { signal })).batches / accumulate);
    }
    const total = Math.max(1, Math.min(steps, fits));
    await this.#folder.setTotalSteps(total);
    return total;
  }

  /** How many steps and their evaluations fit in what is left of a time, by a trial that is thrown away. */
  async #stepsWithin(seconds: number, dev: Dev, batches: Batches): Promise<number> {
    const { signal, progress } = this.#invocation;
    const { seed = 0, training: { accumulate = 1 } = {} } = this.#plan;
    const { every = "epoch" } = this.#plan.evaluation || {};
    await using trial = await this.#create(dev, { totalSteps: TRIAL });
    const begun = performance.now();
    if (dev.sets.length > 0) {
      this.#baseline = await this.#measure(trial, dev, devEvaluator(dev, { seed, context: () => contextOf(trial) }));
    }
    const evaluation = (performance.now() - begun) / 1000;
    progress.update("timing steps", { done: 0, total: TRIAL, noun: "step" });
    const times: number[] = [];
    for await (const { step, milliseconds } of trial.steps(batches, { signal })) {
      times.push(milliseconds / 1000);
      progress.update("timing steps", { done: step, total: TRIAL, noun: "step" });
      // Where steps are slow, fewer tell enough.
      if (times.reduce((sum, time) => sum + time, 0) > TRIAL_SHARE * seconds) break;
    }
    const later = times.slice(1);
    const step = later.length > 0 ? later.reduce((sum, time) => sum + time, 0) / later.length : (times[0] ?? 0);
    const perEpoch = Math.ceil((await batches.plan(0, { signal })).batches / accumulate);
    const between = every === "epoch" ? perEpoch : every;
    // One more at the end, where no step's own is due.
    const left = seconds - this.#seconds - evaluation;
    const fits = Math.max(1, Math.floor(left / (step + evaluation / between)));
    if (left < step) {
      this.#notes.push(
        "The time was used up before the first step: only one was made. Give more minutes, or fewer pairs.",
      );
    }
    progress.note(`a step takes about ${step.toFixed(2)} s: ${grouped(fits)} fit in the time`);
    return fits;
  }

  /** Line 0 of the log: the figures before training. */
  async #before(trainer: Trainer, dev: Dev, evaluator: Evaluator<"dev", string>): Promise<void> {
    if (dev.sets.length === 0) return;
    // A trial began with the same weights.
    const metrics = this.#baseline ?? (await this.#measure(trainer, dev, evaluator));
    this.#invocation.signal.throwIfAborted();
    await this.#log({ step: 0, seconds: this.#seconds, metrics });
    const metric = bestMetricOf(dev);
    this.#invocation.progress.note(`before training: ${metric} ${(100 * metrics[metric]!).toFixed(1)}`);
  }

  /** Figures outside of the loop: in slices of texts, between which an interruption is heard. */
  async #measure(trainer: Trainer, dev: Dev, evaluator: Evaluator<"dev", string>): Promise<Record<string, number>> {
    const { signal, progress } = this.#invocation;
    const total = dev.sets.reduce((sum, set) => sum + set.queries.size + set.documents.size, 0);
    let done = 0;
    progress.update("measuring", { done, total, noun: "text" });
    const inSlices = (embed: TrainingEmbedder["embedQueries"]) => async (texts: readonly string[]) => {
      const vectors: Float32Array[] = [];
      for (let from = 0; from < texts.length; from += SLICE) {
        signal.throwIfAborted();
        const slice = texts.slice(from, from + SLICE);
        vectors.push(...(await embed(slice)));
        done += slice.length;
        progress.update("measuring", { done, total, noun: "text" });
      }
      return vectors;
    };
    const found = await evaluator.evaluate(async (options) => {
      const { dimensions, embedQueries, embedDocuments } = await trainer.embedder(options);
      return { dimensions, embedQueries: inSlices(embedQueries), embedDocuments: inSlices(embedDocuments) };
    });
    return Object.fromEntries(Object.entries(found).map(([name, value]) => [`dev/${name}`, value]));
  }

  async #log(line: LogLine): Promise<void> {
    await this.#folder.log(line);
    this.#lines.push(line);
  }

  /** The loop; a run that was broken off is saved first. */
  async #train(
    trainer: Trainer,
    { dev, batches, checkpoint }: { dev: Dev; batches: Batches; checkpoint: string },
  ): Promise<RunOutcome["ended"]> {
    const { signal, progress } = this.#invocation;
    const { budget = {}, checkpoints = {} } = this.#plan;
    const { every = CHECKPOINT_EVERY } = checkpoints;
    const { epochs = unlimitedEpochs(budget), minutes = Number.POSITIVE_INFINITY } = budget;
    const total = trainer.settings.totalSteps!;
    const earlier = trainer.step;
    const reports = new ReportedBatches(batches);
    const save = async () => {
      await this.#folder.syncLog();
      await trainer.save(checkpoint);
      this.saved = `Saved after step ${grouped(trainer.step)} of ${grouped(total)}.`;
    };
    const announce = () => progress.note("stopping when this step is done; once more ends at once, without saving");
    let ended: RunOutcome["ended"] = "complete";
    signal.throwIfAborted();
    signal.addEventListener("abort", announce, { once: true });
    progress.update("training", { done: earlier, earlier, total, noun: "step" });
    try {
      for await (const step of trainer.steps(reports, { epochs, signal })) {
        const line = this.#lineOf(step, reports);
        await this.#log(line);
        progress.update("training", {
          ...{ done: step.step, earlier, total, noun: "step" },
          details: [
            `loss ${step.loss.toFixed(3)}`,
            `rate ${step.learningRate.toExponential(1)}`,
            `${grouped(Math.round(line.pairsPerSecond!))} pairs/s`,
          ],
        });
        if (step.metrics) this.#tell(step, dev);
        if (this.#seconds > 60 * minutes && step.step < total) {
          ended = "time";
          await save();
          break;
        }
        if (step.step % every === 0 && step.step < total) {
          await save();
          await this.#writeReport(trainer, dev, `at step ${grouped(step.step)} of ${grouped(total)}`);
        }
      }
    } catch (error) {
      const diverged = error instanceof TrainingDivergedError;
      if (!diverged && signal.aborted) await this.#saveBeforeLeaving(save);
      const interrupted = `interrupted after step ${grouped(trainer.step)}`;
      const status = signal.aborted && !diverged ? interrupted : `stopped: ${(error as Error).message}`;
      // What led here is the error to raise, also where the report can't be written.
      await this.#writeReport(trainer, dev, status).catch(() => {});
      throw error;
    } finally {
      signal.removeEventListener("abort", announce);
    }
    // The steps were counted: only a lack of new bests ends them before.
    if (trainer.step < total && ended === "complete") ended = "patience";
    // Where export fails, or is interrupted, the run goes on from here.
    await save();
    return ended;
  }

  /** A disk that is full is no reason to hide the interruption; the checkpoint before stays. */
  async #saveBeforeLeaving(save: () => Promise<void>): Promise<void> {
    try {
      await save();
    } catch (error) {
      this.saved = `Nothing could be saved: ${(error as Error).message} ${this.saved}`;
    }
  }

  #lineOf(step: TrainingStep, reports: ReportedBatches): LogLine {
    const { difficulty, candidates } = reports.upTo(step);
    return {
      ...step,
      ...(difficulty !== undefined && { difficulty }),
      candidates,
      pairsPerSecond: (1000 * step.pairs) / step.milliseconds,
      seconds: this.#seconds,
    };
  }

  #tell({ step, metrics, isBest }: TrainingStep, dev: Dev): void {
    const metric = bestMetricOf(dev);
    const value = (metrics as Readonly<Record<string, number>>)[metric]!;
    this.#invocation.progress.note(
      `step ${grouped(step)}: ${metric} ${(100 * value).toFixed(1)}${isBest ? ", the best" : ""}`,
    );
  }

  async #finish(
    trainer: Trainer,
    parts: {
      readonly dev: Dev;
      readonly ended: RunOutcome["ended"];
      readonly evaluator: Evaluator<"dev", string>;
      readonly devPairs: number;
      readonly pairs: PairSet;
    },
  ): Promise<RunOutcome> {
    const { dev, ended, evaluator, devPairs, pairs } = parts;
    const { progress, signal } = this.#invocation;
    const { output, export: exported = {}, model, training = {} } = this.#plan;
    signal.throwIfAborted();
    let weights = exported.weights ?? (trainer.best ? "best" : "last");
    const metric = bestMetricOf(dev);
    let figures: RunOutcome["figures"];
    if (dev.sets.length > 0) {
      const measured = this.#lines.filter((line) => line.metrics !== undefined);
      const before = measured[0]!.metrics as Readonly<Record<string, number>>;
      let last = measured.at(-1)!.step === trainer.step ? measured.at(-1)! : undefined;
      last ??= {
        step: trainer.step,
        seconds: this.#seconds,
        metrics: await this.#measure(trainer, dev, evaluator),
      };
      const lastFigures = last.metrics as Readonly<Record<string, number>>;
      // The last step's weights may be the best, and no evaluation was due to see it.
      if (exported.weights === undefined && (!trainer.best || lastFigures[metric]! > trainer.best.value))
        weights = "last";
      if (weights === "best" && !trainer.best) weights = "last";
      const best = this.#lines.find(({ step }) => step === trainer.best?.step);
      const chosen = weights === "best" ? best : last;
      const share = exported.averageWithBase ?? 0;
      figures = {
        metric,
        before,
        exported: share === 0 ? (chosen?.metrics as Readonly<Record<string, number>>) : undefined,
        exportedStep: weights === "best" ? trainer.best!.step : trainer.step,
        last: lastFigures,
      };
      if (share > 0) {
        this.#notes.push(`The weights are averaged with the base (share ${share}); the figures are those before that.`);
      }
      if (figures.exported && figures.exported[metric]! < before[metric]!) {
        this.#notes.push(
          `The trained model is worse than its base on ${metric}: ${points(figures.exported[metric]!)} against ${points(before[metric]!)}. Keep the base, or try a smaller learning rate, fewer steps, freeze or distillation.`,
        );
      }
    }
    if (model === undefined && training.dequantize === undefined) {
      this.#notes.push(
        "Training began from the rounded values of the bundled int8 weights; float32 weights may do better.",
      );
    }
    const forgetting = await trainer.forgetting();
    progress.update("exporting", { done: 0, total: 1, noun: "model" });
    await trainer.export(output, { ...exported, weights });
    progress.update("exporting", { done: 1, total: 1, noun: "model" });
    const report = await this.#writeReport(trainer, dev, ENDED[ended], forgetting);
    const last = this.#lines.at(-1);
    return {
      steps: trainer.step,
      epochs: (last?.epoch ?? -1) + 1,
      pairs: pairs.size - devPairs,
      devPairs,
      seconds: this.#seconds,
      ended,
      figures,
      dev: dev.description,
      settings: shownSettings(trainer),
      forgetting,
      notes: this.#notes,
      output,
      report,
      log: join(this.#folder.path, "log.jsonl"),
    };
  }

  async #writeReport(trainer: Trainer, dev: Dev, status: string, forgetting?: Forgetting): Promise<string> {
    const path = join(this.#folder.path, "report.html");
    const text = renderRunReport({
      title: `Training of ${this.#plan.output.split(/[\\/]/).at(-1)}`,
      status,
      lines: this.#lines,
      metric: dev.sets.length > 0 ? bestMetricOf(dev) : undefined,
      dev: dev.description,
      facts: {
        "Steps in all": grouped(trainer.settings.totalSteps ?? 0),
        Pairs: grouped(dev.train.size),
        "Trained numbers": grouped(trainer.trainedParameters),
        ...(forgetting && {
          "Drift from the base": forgetting.drift.toFixed(4),
          "Paraphrases found": `${points(forgetting.paraphrasesFound.base)} before, ${points(forgetting.paraphrasesFound.now)} now`,
        }),
      },
      settings: { ...shownSettings(trainer), batches: this.#plan.batches ?? {}, budget: this.#plan.budget ?? {} },
      notes: this.#notes,
    });
    await writeWhole(path, text);
    return path;
  }
}

const ENDED: Readonly<Record<RunOutcome["ended"], string>> = {
  complete: "finished",
  patience: "finished early: no new best",
  time: "finished: the time is used up",
};

/** The figure by which the best weights are kept, as the trainer names it. */
function bestMetricOf({ best }: Dev): `dev/${string}` {
  return `dev/${best}`;
}

function points(value: number): string {
  return (100 * value).toFixed(1);
}

function unlimitedEpochs({ steps, minutes }: NonNullable<TrainingPlan["budget"]>): number {
  return steps === undefined && minutes === undefined ? 1 : Number.MAX_SAFE_INTEGER;
}

/** Without the texts of a context, which are the user's. */
function shownSettings({ settings }: Trainer): Record<string, unknown> {
  const { context, spectral, ...rest } = settings;
  return {
    ...rest,
    ...(context && { context: { ...context, from: context.from === "batch" ? "batch" : "corpus" } }),
    ...(spectral && { spectral: { ...spectral, from: "corpus" } }),
  };
}

/** What figures are measured within. */
function contextOf(trainer: Trainer | undefined): DevContext | undefined {
  const { context, spectral } = trainer?.settings ?? {};
  if (spectral) return { documents: spectral.documents, repeat: false };
  return context ? { documents: context.documents, repeat: true } : undefined;
}

/** Training positives of each data set, from which contexts are drawn. */
async function contextPool(train: PairSet, seed: number): Promise<Record<string, string[]>> {
  const pool: Record<string, string[]> = {};
  const random = createRandom(seed);
  for (const dataset of train.datasets) {
    const rows = train.positionsOf(dataset);
    const chosen = random.sample(rows.length, Math.min(rows.length, CONTEXT_POOL)).map((i) => rows[i]!);
    if (chosen.length === 0) continue;
    pool[dataset] = [...new Set((await train.read(chosen)).map(({ positive }) => positive))];
  }
  return pool;
}

/** Batches, whose reports are kept until the step that used them asks for them. */
class ReportedBatches implements BatchSource {
  readonly digest: string;
  readonly #batches: Batches;
  #waiting: { readonly epoch: number; readonly number: number; readonly report: BatchReport }[] = [];

  constructor(batches: Batches) {
    this.#batches = batches;
    this.digest = batches.digest;
  }

  async *epoch(epoch: number, options: { readonly from: number }) {
    for await (const batch of this.#batches.epoch(epoch, options)) {
      this.#waiting.push({ epoch, number: batch.number, report: batch.report });
      yield batch;
    }
  }

  /** Of the batches of a step: their mean difficulty, and what could have been masked in all. */
  upTo({ epoch, batches, pairs }: TrainingStep): { difficulty: number | undefined; candidates: number } {
    const used = this.#waiting.filter((entry) => entry.epoch === epoch && entry.number < batches);
    this.#waiting = this.#waiting.filter((entry) => entry.epoch > epoch || entry.number >= batches);
    // A run that goes on has read one batch more, which an earlier step used.
    const own = used.slice(-Math.round(pairs / this.#batches.batchSize));
    const found = own.flatMap(({ report: { difficulty } }) => (difficulty === undefined ? [] : [difficulty]));
    return {
      difficulty: found.length === 0 ? undefined : found.reduce((sum, value) => sum + value, 0) / found.length,
      candidates: own.reduce((sum, { report }) => sum + report.candidates, 0),
    };
  }
}
