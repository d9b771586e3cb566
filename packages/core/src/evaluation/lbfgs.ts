/** Minimises a smooth function by L-BFGS: two-loop recursion, steps that meet the strong Wolfe conditions. */

export interface Minimum {
  readonly x: Float64Array;
  readonly value: number;
  readonly iterations: number;
  /** Whether the gradient's largest entry fell below the tolerance. */
  readonly converged: boolean;
}

export interface MinimiseOptions {
  /** Largest entry of the gradient at which the search ends. @default 1e-6 */
  readonly tolerance?: number;
  /** @default 500 */
  readonly iterations?: number;
  /** Called before every evaluation of the function; throws to stop. */
  readonly onEvaluation?: () => Promise<void>;
}

/** The value at `x`, whose gradient is written to `gradient`. */
export type Objective = (x: Float64Array, gradient: Float64Array) => number;

const MEMORY = 10;
/** Sufficient decrease, and curvature that is left at the end of a step. */
const [C1, C2] = [1e-4, 0.9];
/** Of the value: near the minimum it no longer shows a decrease that the slope still shows. */
const ROUNDING = 1e-14;

/** From: Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 and 7.5; line search by bisection. */
export async function minimise(
  objective: Objective,
  start: Float64Array,
  { tolerance = 1e-6, iterations = 500, onEvaluation }: MinimiseOptions = {},
): Promise<Minimum> {
  const n = start.length;
  let x = start.slice();
  let gradient = new Float64Array(n);
  await onEvaluation?.();
  let value = objective(x, gradient);
  const steps: { readonly s: Float64Array; readonly y: Float64Array; readonly rho: number }[] = [];
  for (let iteration = 0; iteration < iterations; iteration++) {
    if (largest(gradient) <= tolerance) return { x, value, iterations: iteration, converged: true };
    const direction = descent(gradient, steps);
    const slope = dot(direction, gradient);
    let [low, high] = [0, Number.POSITIVE_INFINITY];
    // The first direction has no scale yet.
    let step = steps.length === 0 ? Math.min(1, 1 / Math.sqrt(dot(gradient, gradient))) : 1;
    let found: { x: Float64Array; gradient: Float64Array; value: number } | undefined;
    for (let tries = 0; tries < 50; tries++) {
      const next = x.map((entry, i) => entry + step * direction[i]!);
      const nextGradient = new Float64Array(n);
      await onEvaluation?.();
      const nextValue = objective(next, nextGradient);
      const nextSlope = dot(direction, nextGradient);
      if (!(nextValue <= value + C1 * step * slope + ROUNDING * Math.abs(value))) high = step;
      else {
        found = { x: next, gradient: nextGradient, value: nextValue };
        if (nextSlope < C2 * slope) low = step;
        else if (nextSlope > -C2 * slope) high = step;
        else break;
      }
      step = high === Number.POSITIVE_INFINITY ? 2 * step : (low + high) / 2;
    }
    // No step goes down by more than rounding: as good as it gets.
    if (!found) return { x, value, iterations: iteration, converged: false };
    const s = found.x.map((entry, i) => entry - x[i]!);
    const y = found.gradient.map((entry, i) => entry - gradient[i]!);
    const curvature = dot(s, y);
    if (curvature > 0) steps.push({ s, y, rho: 1 / curvature });
    if (steps.length > MEMORY) steps.shift();
    ({ x, gradient, value } = found as {
      x: Float64Array<ArrayBuffer>;
      gradient: Float64Array<ArrayBuffer>;
      value: number;
    });
  }
  return { x, value, iterations, converged: largest(gradient) <= tolerance };
}

/** −H · gradient for the inverse Hessian H that the last steps show. */
function descent(
  gradient: Float64Array,
  steps: readonly { readonly s: Float64Array; readonly y: Float64Array; readonly rho: number }[],
): Float64Array {
  const q = gradient.map((entry) => -entry);
  const alphas = new Array<number>(steps.length);
  for (let i = steps.length - 1; i >= 0; i--) {
    const { s, y, rho } = steps[i]!;
    alphas[i] = rho * dot(s, q);
    add(q, -alphas[i]!, y);
  }
  const last = steps.at(-1);
  if (last) {
    const scale = 1 / (last.rho * dot(last.y, last.y));
    for (let i = 0; i < q.length; i++) q[i] = scale * q[i]!;
  }
  steps.forEach(({ s, y, rho }, i) => {
    add(q, alphas[i]! - rho * dot(y, q), s);
  });
  return q;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function add(to: Float64Array, factor: number, vector: Float64Array): void {
  for (let i = 0; i < to.length; i++) to[i] = to[i]! + factor * vector[i]!;
}

function largest(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}
