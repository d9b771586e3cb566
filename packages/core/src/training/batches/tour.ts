/** The order in which clusters are packed: a greedy tour, always on to the nearest centroid that is left. */
import { InvalidInputError } from "../../errors.js";
import { breather } from "../../k-means/breather.js";

/**
 * Positions of the points [n, dimensions] in the order of the tour from `start`; of equally near points the first. Takes
 * time by n² · dimensions. SPEC.md, section 4, step 2c.
 */
export async function greedyTour(
  points: Float32Array,
  dimensions: number,
  start: number,
  signal?: AbortSignal,
): Promise<number[]> {
  const count = points.length / dimensions;
  if (!Number.isInteger(start) || start < 0 || start >= count) {
    throw new InvalidInputError(`greedyTour: there is no point ${start} of ${count} to start from.`);
  }
  const breathe = breather(signal);
  const tour = [start];
  const left = Array.from({ length: count }, (_, i) => i).filter((i) => i !== start);
  while (left.length > 0) {
    const at = tour.at(-1)! * dimensions;
    let [nearest, least] = [0, Number.POSITIVE_INFINITY];
    for (const [place, other] of left.entries()) {
      const away = squaredDistance(points, at, other * dimensions, dimensions, least);
      if (away < least) [nearest, least] = [place, away];
    }
    tour.push(left[nearest]!);
    left.splice(nearest, 1); // keeps the order, and so the first of equals
    await breathe();
  }
  return tour;
}

/** Stops adding where it is `enough`: the point isn't the nearest. */
function squaredDistance(points: Float32Array, a: number, b: number, dimensions: number, enough: number): number {
  let sum = 0;
  for (let i = 0; i < dimensions; ) {
    const end = Math.min(dimensions, i + 32);
    for (; i < end; i++) sum += (points[a + i]! - points[b + i]!) ** 2;
    if (sum >= enough) return sum;
  }
  return sum;
}
