/** The plane in which vectors lie furthest apart: their first two principal components, for pictures. */
import { InvalidInputError, Spectrum } from "@cde-js/core";

export interface Plane {
  /** Part of the variance that the plane shows, from 0 to 1. */
  readonly share: number;
  /** x and y of each row of [n, dimensions], one pair after another. */
  project(rows: Float32Array): Float32Array;
}

/** Of unit rows [n, dimensions]; a thousand are enough. One row, or all the same, gives a plane with all of it at 0. */
export async function fitPlane(rows: Float32Array, dimensions: number): Promise<Plane> {
  if (rows.length === 0) throw new InvalidInputError("projection: there are no vectors.");
  const { mean, basis, eigenvalues, rank } = await Spectrum.fit({ rows, dimensions });
  const axes = [0, 1].map((k) => (k < rank ? basis.subarray(k * dimensions, (k + 1) * dimensions) : undefined));
  // The sign of an eigenvector is arbitrary: the largest component points up, so that a picture stays as it is.
  const signs = axes.map((axis) => {
    const largest = axis?.reduce((best, x) => (Math.abs(x) > Math.abs(best) + 1e-9 ? x : best), 0) ?? 1;
    return largest < 0 ? -1 : 1;
  });
  const total = eigenvalues.reduce((sum, value) => sum + value, 0);
  return {
    share: total === 0 ? 0 : ((eigenvalues[0] as number) + (eigenvalues[1] ?? 0)) / total,
    project(points) {
      const count = points.length / dimensions;
      const plane = new Float32Array(2 * count);
      for (let n = 0; n < count; n++) {
        for (const [k, axis] of axes.entries()) {
          if (!axis) continue;
          let sum = 0;
          for (let i = 0; i < dimensions; i++) {
            sum += (axis[i] as number) * ((points[n * dimensions + i] as number) - (mean[i] as number));
          }
          plane[2 * n + k] = sum * (signs[k] as number);
        }
      }
      return plane;
    },
  };
}
