/** Classification of texts by their vectors: nearest neighbours, or a linear probe (logistic regression). */
import { setImmediate as pause } from "node:timers/promises";
import type { Embedder } from "../encoder/embedder.js";
import { InvalidInputError } from "../errors.js";
import { exactSearch } from "./exact-search.js";
import { minimise } from "./lbfgs.js";

/** A text with the class that it belongs to. */
export interface LabelledText {
  readonly text: string;
  readonly label: string;
}

export interface ClassificationScores {
  readonly queries: number;
  /** Part of the labels that are right, from 0 to 1. */
  readonly accuracy: number;
  /** Mean over all labels, given or predicted, of the harmonic mean of precision and recall; 0 where a label is never right. */
  readonly macroF1: number;
  /** In the order of the test texts. */
  readonly predicted: readonly string[];
}

export interface EvaluateClassificationOptions {
  /** @default "probe" */
  readonly method?: "probe" | "knn";
  /** Neighbours of "knn". @default 5 */
  readonly k?: number;
  /** Inverse strength of the probe's L2 penalty. @default 1 */
  readonly c?: number;
  readonly signal?: AbortSignal;
}

/** Embeds both parts as documents, learns from `train` and predicts the labels of `test`. */
export async function evaluateClassification(
  embedder: Embedder,
  { train, test }: { readonly train: readonly LabelledText[]; readonly test: readonly LabelledText[] },
  options: EvaluateClassificationOptions = {},
): Promise<ClassificationScores> {
  const { method = "probe", k = 5, c = 1, signal } = options;
  if (method !== "probe" && method !== "knn")
    throw new InvalidInputError(
      `evaluateClassification: method should be "probe" or "knn", got ${JSON.stringify(method)}.`,
    );
  const embed = async (part: readonly LabelledText[]) =>
    (
      await embedder.embedDocuments(
        part.map(({ text }) => text),
        signal ? { signal } : {},
      )
    ).vectors;
  const labels = train.map(({ label }) => label);
  const [learned, asked] = [await embed(train), await embed(test)];
  const predicted =
    method === "knn"
      ? await nearestLabels(learned, labels, asked, { k, signal })
      : (await LinearProbe.fit(learned, labels, { c, signal })).predict(asked);
  return {
    ...classificationScores(
      test.map(({ label }) => label),
      predicted,
    ),
    predicted,
  };
}

/** Accuracy and macro F1. Raises InvalidInputError for lists of different length, and for empty ones. */
export function classificationScores(
  labels: readonly string[],
  predicted: readonly string[],
): Omit<ClassificationScores, "predicted"> {
  if (labels.length !== predicted.length || labels.length === 0)
    throw new InvalidInputError(
      `classificationScores: ${labels.length} labels and ${predicted.length} predictions; give one a text, and at least one.`,
    );
  const classes = [...new Set([...labels, ...predicted])];
  const f1 = classes.map((name) => {
    let [both, given, said] = [0, 0, 0];
    labels.forEach((label, i) => {
      if (label === name) given++;
      if (predicted[i] === name) said++;
      if (label === name && predicted[i] === name) both++;
    });
    return (2 * both) / (given + said);
  });
  return {
    queries: labels.length,
    accuracy: labels.filter((label, i) => label === predicted[i]).length / labels.length,
    macroF1: f1.reduce((sum, value) => sum + value, 0) / f1.length,
  };
}

/**
 * The label that most of the `k` nearest training vectors have, by cosine of unit vectors. Of equally frequent ones, the
 * label that is first in the order of code units, as scikit-learn decides.
 */
export async function nearestLabels(
  train: readonly Float32Array[],
  labels: readonly string[],
  asked: readonly Float32Array[],
  { k = 5, signal }: { readonly k?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<string[]> {
  checkTraining("nearestLabels", train, labels);
  const nearest = await exactSearch(asked, train, { k, signal });
  return nearest.map(({ positions }) => {
    const votes = new Map<string, number>();
    for (const position of positions) votes.set(labels[position]!, (votes.get(labels[position]!) ?? 0) + 1);
    return [...votes].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))[0]![0];
  });
}

export interface LinearProbeOptions {
  /** Inverse strength of the penalty: the loss is c · Σ cross-entropy + |weights|² / 2. @default 1 */
  readonly c?: number;
  /** Largest entry of the loss's gradient at the end. @default 1e-4 */
  readonly tolerance?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Multinomial logistic regression with an L2 penalty on the weights and none on the intercepts: convex, so that any
 * solver finds the same probe. Immutable.
 */
export class LinearProbe {
  /** In the order of code units. */
  readonly classes: readonly string[];
  readonly dimensions: number;
  /** [classes, dimensions] */
  readonly weights: Float64Array;
  /** One a class; they sum to about 0. */
  readonly intercepts: Float64Array;

  private constructor(classes: readonly string[], dimensions: number, parameters: Float64Array) {
    this.classes = classes;
    this.dimensions = dimensions;
    this.weights = parameters.slice(0, classes.length * dimensions);
    this.intercepts = parameters.slice(classes.length * dimensions);
  }

  /** @throws InvalidInputError for fewer than two classes, a label a vector missing, or a `c` that isn't above 0 */
  static async fit(
    vectors: readonly Float32Array[],
    labels: readonly string[],
    { c = 1, tolerance = 1e-4, signal }: LinearProbeOptions = {},
  ): Promise<LinearProbe> {
    checkTraining("LinearProbe.fit", vectors, labels);
    if (!(c > 0 && Number.isFinite(c)))
      throw new InvalidInputError(`LinearProbe.fit: c should be a number above 0, got ${c}.`);
    const classes = [...new Set(labels)].sort();
    if (classes.length < 2)
      throw new InvalidInputError(`LinearProbe.fit: all labels are "${classes[0]}"; a probe tells two or more apart.`);
    const dimensions = vectors[0]!.length;
    const targets = labels.map((label) => classes.indexOf(label));
    const [count, width] = [vectors.length, classes.length];

    const objective = (parameters: Float64Array, gradient: Float64Array): number => {
      gradient.fill(0);
      let loss = 0;
      const logits = new Float64Array(width);
      for (let n = 0; n < count; n++) {
        const vector = vectors[n]!;
        score(parameters, vector, logits);
        const [most, total] = softmaxOf(logits);
        loss += most + Math.log(total) - logits[targets[n]!]!;
        for (let j = 0; j < width; j++) {
          const residual = c * (Math.exp(logits[j]! - most) / total - (j === targets[n] ? 1 : 0));
          const at = j * dimensions;
          for (let i = 0; i < dimensions; i++) gradient[at + i] = gradient[at + i]! + residual * vector[i]!;
          gradient[width * dimensions + j] = gradient[width * dimensions + j]! + residual;
        }
      }
      let penalty = 0;
      for (let i = 0; i < width * dimensions; i++) {
        penalty += parameters[i]! ** 2;
        gradient[i] = gradient[i]! + parameters[i]!;
      }
      return c * loss + penalty / 2;
    };
    const score = (parameters: Float64Array, vector: Float32Array, logits: Float64Array): void => {
      for (let j = 0; j < width; j++) {
        let sum = parameters[width * dimensions + j]!;
        for (let i = 0, at = j * dimensions; i < dimensions; i++) sum += parameters[at + i]! * vector[i]!;
        logits[j] = sum;
      }
    };
    const start = new Float64Array(width * (dimensions + 1));
    const { x } = await minimise(objective, start, {
      tolerance,
      onEvaluation: async () => {
        await pause();
        signal?.throwIfAborted();
      },
    });
    return new LinearProbe(classes, dimensions, x);
  }

  /** One probability a class, in the order of `classes`, for each vector. */
  probabilities(vectors: readonly Float32Array[]): Float64Array[] {
    return vectors.map((vector, position) => {
      if (vector.length !== this.dimensions)
        throw new InvalidInputError(
          `LinearProbe.predict: vector ${position} has ${vector.length} dimensions, the probe was fitted to ${this.dimensions}.`,
          { position },
        );
      const logits = Float64Array.from(this.classes, (_, j) => {
        let sum = this.intercepts[j]!;
        for (let i = 0; i < this.dimensions; i++) sum += this.weights[j * this.dimensions + i]! * vector[i]!;
        return sum;
      });
      const [most, total] = softmaxOf(logits);
      return logits.map((logit) => Math.exp(logit - most) / total);
    });
  }

  /** The most probable class of each vector; of equally probable ones the first. */
  predict(vectors: readonly Float32Array[]): string[] {
    return this.probabilities(vectors).map((row) => this.classes[row.indexOf(Math.max(...row))]!);
  }
}

/** The largest logit, and Σ exp(logit − largest). */
function softmaxOf(logits: Float64Array): [most: number, total: number] {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) most = Math.max(most, logit);
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - most);
  return [most, total];
}

function checkTraining(operation: string, vectors: readonly Float32Array[], labels: readonly string[]): void {
  if (vectors.length !== labels.length || vectors.length === 0)
    throw new InvalidInputError(
      `${operation}: ${vectors.length} training vectors and ${labels.length} labels; give one a vector, and at least one.`,
    );
  const dimensions = vectors[0]!.length;
  const position = vectors.findIndex((vector) => vector.length !== dimensions || !vector.every(Number.isFinite));
  if (position >= 0)
    throw new InvalidInputError(`${operation}: vector ${position} isn't of ${dimensions} finite numbers.`, {
      position,
    });
}
