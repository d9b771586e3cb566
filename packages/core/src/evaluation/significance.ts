/** Whether two runs differ by more than the choice of queries explains: paired bootstrap and paired randomisation. */
import { InvalidInputError } from "../errors.js";
import { createRandom } from "../random.js";
import type { Evaluation, MetricName } from "./metrics.js";

export interface SignificanceOptions {
  /** Of both tests; an integer in [0, 2^53). */
  readonly seed: number;
  /** Resamples of each test. @default 10000 */
  readonly draws?: number;
}

export interface RunComparison {
  readonly queries: number;
  /** Mean of `b` minus mean of `a`. */
  readonly difference: number;
  /** 95 % percentile interval of the difference, by paired bootstrap over the queries. */
  readonly interval: readonly [low: number, high: number];
  /** Two-sided, by paired randomisation; at least 1 / (draws + 1). */
  readonly pValue: number;
  /** Queries on which `b` is above, equal to and below `a`. */
  readonly wins: number;
  readonly ties: number;
  readonly losses: number;
}

/**
 * Compares two evaluations over the same qrels, query by query; positive differences speak for `b`.
 * Raises InvalidInputError where one evaluation has a query or the metric that the other lacks.
 */
export function compareRuns<M extends MetricName>(
  a: Pick<Evaluation<M>, "perQuery">,
  b: Pick<Evaluation<M>, "perQuery">,
  metric: M,
  options: SignificanceOptions,
): RunComparison {
  if (a.perQuery.size !== b.perQuery.size)
    throw new InvalidInputError(
      `compareRuns: a has ${a.perQuery.size} queries, b has ${b.perQuery.size}. Evaluate both over the same qrels.`,
    );
  const differences: number[] = [];
  for (const [query, row] of a.perQuery) {
    const other = b.perQuery.get(query);
    if (other === undefined)
      throw new InvalidInputError(`compareRuns: b lacks query "${query}". Evaluate both over the same qrels.`);
    if (row[metric] === undefined || other[metric] === undefined)
      throw new InvalidInputError(
        `compareRuns: ${row[metric] === undefined ? "a" : "b"} lacks the metric ${metric}. Evaluate both with it.`,
      );
    differences.push(other[metric] - row[metric]);
  }
  const interval = pairedBootstrap(differences, options);
  return {
    queries: differences.length,
    difference: mean(differences),
    interval,
    pValue: pairedRandomisation(differences, options),
    wins: differences.filter((d) => d > 0).length,
    ties: differences.filter((d) => d === 0).length,
    losses: differences.filter((d) => d < 0).length,
  };
}

/**
 * The 95 % percentile interval of the mean: the 2.5 and 97.5 percentiles (interpolated) of the means of resamples with
 * replacement. Too narrow for a handful of queries, as every percentile interval is.
 * From: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
 */
export function pairedBootstrap(
  differences: readonly number[],
  { seed, draws = 10_000 }: SignificanceOptions,
): [low: number, high: number] {
  check("pairedBootstrap", differences, draws);
  const values = Float64Array.from(differences);
  const random = createRandom(seed);
  const means = new Float64Array(draws);
  for (let draw = 0; draw < draws; draw++) {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[random.integer(values.length)]!;
    means[draw] = sum / values.length;
  }
  means.sort();
  return [quantile(means, 0.025), quantile(means, 0.975)];
}

/**
 * The two-sided p-value of "a and b are exchangeable": how often random signs give a mean at least as far from 0 as
 * the one observed, itself counted (Phipson & Smyth 2010), so that no p-value is 0.
 * From: Smucker, Allan & Carterette 2007, "A comparison of statistical significance tests for IR evaluation".
 */
export function pairedRandomisation(
  differences: readonly number[],
  { seed, draws = 10_000 }: SignificanceOptions,
): number {
  check("pairedRandomisation", differences, draws);
  // Equal pairs have no sign to flip.
  const values = Float64Array.from(differences.filter((d) => d !== 0));
  const observed = Math.abs(values.reduce((sum, d) => sum + d, 0));
  // Sums that are equal on paper differ by rounding; they count as equal.
  const bar = observed - 1e-12 * values.reduce((sum, d) => sum + Math.abs(d), 0);
  const random = createRandom(seed);
  let extreme = 1;
  for (let draw = 0; draw < draws; draw++) {
    let sum = 0;
    let signs = 0;
    for (let i = 0; i < values.length; i++) {
      if (i % 32 === 0) signs = random.uint32();
      sum += signs & 1 ? values[i]! : -values[i]!;
      signs >>>= 1;
    }
    if (Math.abs(sum) >= bar) extreme++;
  }
  return extreme / (draws + 1);
}

function check(operation: string, differences: readonly number[], draws: number): void {
  if (!Number.isSafeInteger(draws) || draws < 1)
    throw new InvalidInputError(`${operation}: draws should be a positive integer, got ${draws}.`);
  if (differences.length === 0) throw new InvalidInputError(`${operation}: there are no queries to resample.`);
  const position = differences.findIndex((d) => !Number.isFinite(d));
  if (position !== -1)
    throw new InvalidInputError(`${operation}: difference ${position} is ${differences[position]}.`, { position });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Linear between the two nearest entries of a sorted array. */
function quantile(sorted: Float64Array, share: number): number {
  const position = share * (sorted.length - 1);
  const low = Math.floor(position);
  const high = Math.ceil(position);
  return sorted[low]! + (position - low) * (sorted[high]! - sorted[low]!);
}
