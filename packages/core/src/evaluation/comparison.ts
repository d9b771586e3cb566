/** Several systems on one data set, each against one of them. */
import { InvalidInputError } from "../errors.js";
import type { EvaluationResult } from "./evaluate.js";
import type { MetricName } from "./metrics.js";
import { compareRuns, type RunComparison, type SignificanceOptions } from "./significance.js";

export interface System<M extends MetricName = MetricName> {
  readonly name: string;
  /** What it is, in a few words. */
  readonly description: string;
  readonly result: EvaluationResult<M>;
}

export interface ComparedSystem<M extends MetricName = MetricName> extends System<M> {
  /** By metric, positive where this system is above the base; undefined for the base itself. */
  readonly against: Readonly<Record<M, RunComparison>> | undefined;
}

export interface Comparison<M extends MetricName = MetricName> {
  readonly base: string;
  /** The first one is what plots and query lists go by. */
  readonly metrics: readonly M[];
  readonly systems: readonly ComparedSystem<M>[];
}

/**
 * Compares every system with the one named `base`, in every metric: paired bootstrap and paired randomisation.
 * Intervals and p-values are of one comparison each; among many, some differ by chance.
 *
 * @throws InvalidInputError where no system has that name or two have the same one, else as `compareRuns`
 */
export function compareSystems<M extends MetricName>(
  systems: readonly System<M>[],
  options: SignificanceOptions & { readonly base: string; readonly metrics: readonly M[] },
): Comparison<M> {
  const { base, metrics } = options;
  const names = systems.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new InvalidInputError(`compareSystems: two systems are named "${twice}".`);
  const reference = systems.find(({ name }) => name === base);
  if (!reference)
    throw new InvalidInputError(`compareSystems: no system is named "${base}"; there are ${names.join(", ")}.`);
  if (metrics.length === 0) throw new InvalidInputError("compareSystems: metrics is empty. Name at least one.");
  return {
    base,
    metrics,
    systems: systems.map((system) => {
      if (system === reference) return { ...system, against: undefined };
      const entries = metrics.map((metric) => [metric, compareRuns(reference.result, system.result, metric, options)]);
      return { ...system, against: Object.fromEntries(entries) as Record<M, RunComparison> };
    }),
  };
}
