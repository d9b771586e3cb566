/**
 * Gradient caching (Gao et al. 2021) through one stage or two (Morris & Rush 2024, §4.2; SPEC §7): vectors in
 * micro-batches, the loss on the whole batch, then the micro-batches again with the gradients of their vectors. Memory
 * is that of one micro-batch, whatever the batch.
 */
import { type MicroBatch, planBatches } from "../encoder/batches.js";
import type { StoredName } from "../runtime/protocol.js";
import type { TensorData, TensorStore } from "../runtime/runtime.js";
import { float32Tensor } from "./parameters.js";
import type { Replica } from "./replica.js";
import { CONTEXT_GRADIENT, type Stage } from "./stage.js";
import type { TextSource } from "./text-source.js";

export interface MicroBatchLimits {
  /** Tokens of a micro-batch, padding and a context's places included. */
  readonly tokens: number;
  /** Texts of a micro-batch. */
  readonly texts: number;
}

/** The context of a step. */
export interface ContextStep {
  /** Where its vectors, and their gradient, are kept during the step. */
  readonly state: TensorStore;
  /** The same in the worker of a replica, where the texts' stage has one. */
  readonly beside?: TensorStore | undefined;
  /** Places that it takes before each text. */
  readonly places: number;
  /** What made it, where the gradient goes on into the first stage. */
  readonly from?: { readonly stage: Stage; readonly texts: TextSource } | undefined;
}

/** A stage with all that one step feeds it. */
export interface TextStep {
  readonly stage: Stage;
  readonly texts: TextSource;
  readonly limits: MicroBatchLimits;
  readonly context?: ContextStep | undefined;
  /** 1 where a text's context vector is dropped, [texts, context documents]; for models that read such a mask. */
  readonly dropped?: Float32Array | undefined;
}

/** The name of the context vectors in the state's store, and of the stages' input. */
const CONTEXT = "context";

/** Puts context vectors [documents, width] where the texts' stage reads them, in each of its workers. */
export async function writeContext(
  { state, beside }: Pick<ContextStep, "state" | "beside">,
  vectors: Float32Array,
  width: number,
): Promise<void> {
  const context = { [CONTEXT]: float32Tensor([vectors.length / width, width], vectors) };
  await state.write(context);
  await beside?.write(context);
}

/** Vectors of all texts, row by row in their order; behind what `writeContext` wrote, where the step has a context. */
export async function embedTexts(step: TextStep): Promise<Float32Array> {
  return forward(step.stage, step.texts, plan(step.stage, step.texts, step.limits, step.context?.places ?? 0), step);
}

/** Adds up the gradients of all weights, given those of the texts' vectors. */
export async function addGradients(step: TextStep, dVectors: Float32Array): Promise<void> {
  const { stage, texts, context, limits } = step;
  const first = context?.from;
  if (context && first) {
    const { shape, data } = await context.state.read(CONTEXT);
    const zeros = { [CONTEXT_GRADIENT]: float32Tensor(shape, new Float32Array(data.length)) };
    await context.state.write(zeros);
    await context.beside?.write(zeros);
  }
  if (stage.isTrained) await backward(stage, texts, plan(stage, texts, limits, context?.places ?? 0), dVectors, step);
  if (!context || !first?.stage.isTrained) return;
  await backward(first.stage, first.texts, plan(first.stage, first.texts, limits, 0), await contextGradient(context));
}

/** The gradient of the context vectors: the sums of all workers, in their order. */
export async function contextGradient({ state, beside }: Pick<ContextStep, "state" | "beside">): Promise<Float32Array> {
  const sum = (await state.read(CONTEXT_GRADIENT)).data as Float32Array;
  const other = beside && ((await beside.read(CONTEXT_GRADIENT)).data as Float32Array);
  return other ? sum.map((entry, i) => entry + other[i]!) : sum;
}

/** Up to how many micro-batches a worker they are made equally large: of many, one more or less is little. */
const FEW = 4;

/**
 * Micro-batches within the limits. Two workers have half the tokens each, so that memory stays that of the limit, and of
 * a batch that is soon over about as many each.
 */
function plan({ beside }: Stage, { lengths }: TextSource, limits: MicroBatchLimits, prefix: number): MicroBatch[] {
  if (!beside) return planBatches(lengths, { ...limits, prefix });
  const all = lengths.reduce((sum, length) => sum + length + prefix, 0);
  const half = Math.ceil(limits.tokens / 2);
  const each = Math.max(1, Math.ceil(all / (2 * half)));
  return planBatches(lengths, { ...limits, tokens: each > FEW ? half : Math.ceil(all / (2 * each)), prefix });
}

async function forward(
  stage: Stage,
  texts: TextSource,
  batches: readonly MicroBatch[],
  step?: TextStep,
): Promise<Float32Array> {
  let vectors: Float32Array | undefined;
  let width = 0;
  await inOrder(
    await workersOf(stage, batches, step?.context),
    batches,
    (batch) => feedsOf(texts, batch, step),
    (_, feeds, { stage, state }) => stage.forward(feeds, storedOf(state)),
    (batch, rows) => {
      width = rows.length / batch.positions.length;
      vectors ??= new Float32Array(texts.lengths.length * width);
      batch.positions.forEach((position, row) => {
        vectors!.set(rows.subarray(row * width, (row + 1) * width), position * width);
      });
    },
  );
  return vectors ?? new Float32Array();
}

async function backward(
  stage: Stage,
  texts: TextSource,
  batches: readonly MicroBatch[],
  dVectors: Float32Array,
  step?: TextStep,
): Promise<void> {
  const width = dVectors.length / texts.lengths.length;
  await inOrder(
    await workersOf(stage, batches, step?.context),
    batches,
    (batch) => feedsOf(texts, batch, step),
    ({ positions }, feeds, { stage, state, replica }) => {
      const rows = new Float32Array(positions.length * width);
      positions.forEach((position, row) => {
        rows.set(dVectors.subarray(position * width, (position + 1) * width), row * width);
      });
      const seed = float32Tensor([positions.length, width], rows);
      replica?.touch();
      return stage.backward(feeds, seed, storedOf(state));
    },
    (_, addRows) => addRows(),
  );
}

/** What is fed to each run of a stage. */
async function feedsOf(texts: TextSource, batch: MicroBatch, step?: TextStep): Promise<Record<string, TensorData>> {
  const feeds = await texts.feeds(batch);
  if (!step?.dropped) return feeds;
  const places = step.dropped.length / texts.lengths.length;
  const dropped = new Float32Array(batch.positions.length * places);
  batch.positions.forEach((position, row) => {
    dropped.set(step.dropped!.subarray(position * places, (position + 1) * places), row * places);
  });
  return { ...feeds, dropped: float32Tensor([batch.positions.length, places], dropped) };
}

function storedOf(state: TensorStore | undefined): Readonly<Record<string, StoredName>> {
  return state ? { [CONTEXT]: state.at(CONTEXT) } : {};
}

/** A stage in one worker, and where that one keeps the context. */
interface StageWorker {
  readonly stage: Stage;
  readonly state: TensorStore | undefined;
  readonly replica?: Replica;
}

/** The workers that share micro-batches: a replica is brought up to date only where it gets any. */
async function workersOf(
  stage: Stage,
  batches: readonly MicroBatch[],
  context: ContextStep | undefined,
): Promise<readonly StageWorker[]> {
  const first = { stage, state: context?.state };
  const { beside } = stage;
  if (!beside || batches.length < 2) return [first];
  await beside.replica.refresh();
  return [first, { ...beside, state: context?.beside }];
}

/**
 * Gives items to the workers in turn, two each before the first is finished, so that none idles. Items are started, and
 * their results taken, in their order, and each has its worker whatever takes how long: sums of floats depend on it.
 */
async function inOrder<W, T, F, R>(
  workers: readonly W[],
  items: readonly T[],
  prepare: (item: T) => Promise<F>,
  start: (item: T, prepared: F, worker: W) => Promise<R>,
  take: (item: T, result: R) => void,
): Promise<void> {
  const running: { item: T; result: Promise<R> }[] = [];
  const takeNext = async () => {
    const { item, result } = running.shift()!;
    take(item, await result);
  };
  try {
    for (const [i, item] of items.entries()) {
      const prepared = await prepare(item);
      const result = start(item, prepared, workers[i % workers.length]!);
      result.catch(() => undefined); // awaited below, after those before it
      running.push({ item, result });
      if (running.length === 2 * workers.length) await takeNext();
    }
    while (running.length > 0) await takeNext();
  } finally {
    await Promise.allSettled(running.map(({ result }) => result)); // nothing may be written after the step has failed
  }
}
