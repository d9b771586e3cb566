/**
 * Gradient caching (Gao et al. 2021) through one stage or two (Morris & Rush 2024, §4.2; SPEC §7): vectors in
 * micro-batches, the loss on the whole batch, then the micro-batches again with the gradients of their vectors. Memory
 * is that of one micro-batch, whatever the batch.
 */
import { type MicroBatch, planBatches } from "../encoder/batches.js";
import type { StoredName } from "../runtime/protocol.js";
import type { TensorData, TensorStore } from "../runtime/runtime.js";
import { float32Tensor } from "./parameters.js";
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

/** Puts context vectors [documents, width] where the texts' stage reads them. */
export async function writeContext(state: TensorStore, vectors: Float32Array, width: number): Promise<void> {
  await state.write({ [CONTEXT]: float32Tensor([vectors.length / width, width], vectors) });
}

/** Vectors of all texts, row by row in their order; behind what `writeContext` wrote, where the step has a context. */
export async function embedTexts(step: TextStep): Promise<Float32Array> {
  return forward(step.stage, step.texts, plan(step.texts, step.limits, step.context?.places ?? 0), step);
}

/** Adds up the gradients of all weights, given those of the texts' vectors. */
export async function addGradients(step: TextStep, dVectors: Float32Array): Promise<void> {
  const { stage, texts, context, limits } = step;
  const first = context?.from;
  if (context && first) {
    const { shape, data } = await context.state.read(CONTEXT);
    await context.state.write({ [CONTEXT_GRADIENT]: float32Tensor(shape, new Float32Array(data.length)) });
  }
  if (stage.isTrained) await backward(stage, texts, plan(texts, limits, context?.places ?? 0), dVectors, step);
  if (!context || !first?.stage.isTrained) return;
  const { data } = await context.state.read(CONTEXT_GRADIENT);
  await backward(first.stage, first.texts, plan(first.texts, limits, 0), data as Float32Array);
}

function plan({ lengths }: TextSource, limits: MicroBatchLimits, prefix: number): MicroBatch[] {
  return planBatches(lengths, { ...limits, prefix });
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
    batches,
    (batch) => feedsOf(texts, batch, step),
    (_, feeds) => stage.forward(feeds, storedOf(step)),
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
    batches,
    (batch) => feedsOf(texts, batch, step),
    ({ positions }, feeds) => {
      const rows = new Float32Array(positions.length * width);
      positions.forEach((position, row) => {
        rows.set(dVectors.subarray(position * width, (position + 1) * width), row * width);
      });
      const seed = float32Tensor([positions.length, width], rows);
      return stage.backward(feeds, seed, storedOf(step));
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

function storedOf(step: TextStep | undefined): Readonly<Record<string, StoredName>> {
  return step?.context ? { [CONTEXT]: step.context.state.at(CONTEXT) } : {};
}

/**
 * Starts each item before the one before it is finished, so that the worker never idles. Items are started, and their
 * results taken, in their order: sums of floats depend on it.
 */
async function inOrder<T, F, R>(
  items: readonly T[],
  prepare: (item: T) => Promise<F>,
  start: (item: T, prepared: F) => Promise<R>,
  take: (item: T, result: R) => void,
): Promise<void> {
  let running: Promise<void> = Promise.resolve();
  for (const item of items) {
    const started = start(item, await prepare(item));
    started.catch(() => undefined); // awaited below, after the one before it
    await running;
    running = started.then((result) => take(item, result));
    running.catch(() => undefined);
  }
  await running;
}
