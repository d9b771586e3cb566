/** Figures by set and query, `{ set: { query id: value from 0 to 1 } }`, against each other: in points, with intervals over queries. */
import { createRandom } from "@cde-js/core";
import { pairedBootstrap } from "@cde-js/core/evaluation";

const DRAWS = 5000;

/**
 * Mean over sets of the mean difference, in points, with its 95 % interval (paired bootstrap over queries, sets weighing the
 * same), and the sets that lose significantly.
 */
export function gain(ours, theirs) {
  const sets = Object.keys(ours);
  const differences = sets.map((set) => Object.keys(ours[set]).map((id) => 100 * (ours[set][id] - theirs[set][id])));
  const random = createRandom(1);
  const drawn = (of) => of.reduce((sum) => sum + of[random.integer(of.length)], 0) / of.length;
  const draws = Array.from({ length: DRAWS }, () => average(differences.map(drawn))).sort((a, b) => a - b);
  return {
    mean: average(differences.map(average)),
    low: draws[Math.floor(0.025 * DRAWS)],
    high: draws[Math.floor(0.975 * DRAWS)],
    below: sets.filter((_, i) => pairedBootstrap(differences[i], { seed: 1 })[1] < 0),
  };
}

/** A gain with its interval. */
export function interval({ mean, low, high }) {
  return `${mean.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

/** A set's mean, in points with one digit. */
export function points(perQuery) {
  return Math.round(1000 * average(Object.values(perQuery))) / 10;
}

/** The mean over sets, in points with two digits. */
export function meanOf(perSet) {
  return Math.round(10000 * average(Object.values(perSet).map((of) => average(Object.values(of))))) / 100;
}

/** Figures of several runs as those of one: the mean of each query. */
export function meanRun(runs) {
  return Object.fromEntries(
    Object.entries(runs[0]).map(([set, of]) => [
      set,
      Object.fromEntries(Object.keys(of).map((id) => [id, average(runs.map((run) => run[set][id]))])),
    ]),
  );
}

export function average(numbers) {
  return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}
