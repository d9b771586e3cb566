/**
 * Eigenvalues and eigenvectors of a symmetric matrix in float64: Householder tridiagonalisation, then implicit QL
 * (Golub & Van Loan, Matrix Computations, 8.3). docs/decisions says why it isn't a library.
 */
import { internal, RuntimeFailureError } from "../errors.js";
import { Kernels, PANEL } from "../simd/kernels.js";

export interface SymmetricEigen {
  /** Descending. */
  readonly values: Float64Array;
  /** Row k (length n) is the unit eigenvector of value k; its sign is arbitrary. */
  readonly vectors: Float64Array;
}

/** Rotations that are gathered before they are applied: 1 MiB, so that a panel is read from the cache, not memory. */
const BATCH = 65_536;
/** Sweeps that one eigenvalue may take; LAPACK allows 30 in the mean. */
const MAX_SWEEPS = 60;

/**
 * Of the symmetric `matrix` [n, n]; only the lower triangle is read. Takes about 3 x 8 n² bytes.
 *
 * @throws RuntimeFailureError if QL doesn't converge, which a finite matrix has never been seen to cause
 */
export function symmetricEigen(matrix: Float64Array, n: number): SymmetricEigen {
  if (matrix.length !== n * n) throw internal(`symmetricEigen: ${matrix.length} numbers are no ${n} x ${n} matrix`);
  // Scaled to a largest entry of 1: squares neither overflow nor vanish.
  let scale = 0;
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) scale = Math.max(scale, Math.abs(matrix[i * n + j]!));
  if (!Number.isFinite(scale)) throw internal("symmetricEigen: the matrix isn't finite");
  const stride = n + (n % 2); // rows begin at 16 bytes
  const panels = Math.ceil(n / PANEL);
  const kernels = new Kernels(8 * (n * stride + panels * PANEL * n + 4 * stride + 2 * BATCH) + 1024);
  const a = kernels.float64(n * stride);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) a[i * stride + j] = scale === 0 ? 0 : matrix[i * n + j]! / scale;

  const { diagonal, offDiagonal, factors } = tridiagonalise(kernels, a, n, stride);
  // basis[p][k][c]: coordinate p·PANEL + c of eigenvector k.
  const basis = kernels.float64(panels * PANEL * n);
  for (let coordinate = 0; coordinate < n; coordinate++) {
    basis[(Math.floor(coordinate / PANEL) * n + coordinate) * PANEL + (coordinate % PANEL)] = 1;
  }
  // Q = H(n−1) ... H(1): every coordinate by itself, so a panel stays in the cache for all reflections.
  for (let p = 0; p < panels; p++) {
    for (let i = n - 1; i > 0; i--) {
      if (factors[i] !== 0) {
        kernels.run.reflect(basis.byteOffset + p * n * PANEL * 8, a.byteOffset + i * stride * 8, i, factors[i]!);
      }
    }
  }
  diagonaliseByQl(kernels, basis, diagonal, offDiagonal, n, panels);

  const order = Array.from({ length: n }, (_, k) => k).sort((x, y) => diagonal[y]! - diagonal[x]! || x - y);
  const vectors = new Float64Array(n * n);
  order.forEach((k, rank) => {
    for (let i = 0; i < n; i++) vectors[rank * n + i] = basis[(Math.floor(i / PANEL) * n + k) * PANEL + (i % PANEL)]!;
  });
  return { values: Float64Array.from(order, (k) => diagonal[k]! * scale), vectors };
}

interface Tridiagonal {
  readonly diagonal: Float64Array;
  /** Entry i couples i and i + 1; the last is 0. */
  readonly offDiagonal: Float64Array;
  /** H(i) = 1 − factors[i] · u uᵀ; u takes the place of row i of the matrix. */
  readonly factors: Float64Array;
}

/**
 * Rows from the last to the first: H(i) reflects row i's part left of the diagonal onto its last entry. The update of
 * step i, A −= u qᵀ + q uᵀ, is done in the pass that already needs A for step i − 1.
 */
function tridiagonalise(kernels: Kernels, a: Float64Array, n: number, stride: number): Tridiagonal {
  const diagonal = new Float64Array(n);
  const offDiagonal = new Float64Array(n);
  const factors = new Float64Array(n);
  let u = kernels.float64(stride); // of the previous step; before the first one it and q are zero
  const q = kernels.float64(stride);
  const p = kernels.float64(stride);
  for (let i = n - 1; i >= 0; i--) {
    const row = a.subarray(i * stride, (i + 1) * stride);
    for (let k = 0; k <= i; k++) row[k] = row[k]! - (u[i]! * q[k]! + q[i]! * u[k]!);
    diagonal[i] = row[i]!;
    row[i] = 0; // from here on `row` holds the reflection's u, zero at the padding
    if (i === 0) break;
    let squares = 0;
    for (let k = 0; k < i; k++) squares += row[k]! * row[k]!;
    const last = row[i - 1]!;
    // Below 10⁻³⁰ of the largest entry a row is zero: its squares would vanish and their inverse overflow.
    const length = squares > 1e-60 ? Math.sqrt(squares) : 0;
    const norm = last > 0 ? -length : length;
    offDiagonal[i - 1] = norm;
    if (length === 0) row.fill(0);
    else row[i - 1] = last - norm;
    // uᵀu / 2 = |x|² − x_last · norm
    factors[i] = length === 0 ? 0 : 1 / (squares - last * norm);

    p.fill(0);
    for (let j = 0; j < i; j++) {
      const at = j * stride;
      const pairs = j >> 1;
      let dot = 0;
      if (pairs > 0) {
        const pointers = [a.byteOffset + at * 8, u.byteOffset, q.byteOffset, row.byteOffset, p.byteOffset] as const;
        dot = kernels.run.tridiagonalStep(...pointers, u[j]!, q[j]!, row[j]!, pairs);
      }
      for (let k = 2 * pairs; k <= j; k++) {
        const value = a[at + k]! - (u[j]! * q[k]! + q[j]! * u[k]!);
        a[at + k] = value;
        dot += value * row[k]!;
        if (k < j) p[k] = p[k]! + row[j]! * value;
      }
      p[j] = p[j]! + dot;
    }
    // q = factor · p − (factor² · uᵀp / 2) · u
    let inner = 0;
    for (let k = 0; k < i; k++) inner += row[k]! * p[k]!;
    const factor = factors[i]!;
    for (let k = 0; k < i; k++) q[k] = factor * p[k]! - ((factor * factor * inner) / 2) * row[k]!;
    u = row;
  }
  return { diagonal, offDiagonal, factors };
}

/** Implicit QL with Wilkinson's shift; rotations of many sweeps are applied to one panel after the other. */
function diagonaliseByQl(
  kernels: Kernels,
  basis: Float64Array,
  d: Float64Array,
  e: Float64Array,
  n: number,
  panels: number,
): void {
  const rotations = kernels.float64(2 * BATCH);
  const sweeps: { start: number; from: number; count: number }[] = [];
  let used = 0;
  const flush = (): void => {
    for (let p = 0; p < panels; p++) {
      const panel = basis.byteOffset + p * n * PANEL * 8;
      for (const { start, from, count } of sweeps) {
        kernels.run.rotate(panel + from * PANEL * 8, rotations.byteOffset + start * 16, count);
      }
    }
    sweeps.length = 0;
    used = 0;
  };
  let size = 0;
  for (let i = 0; i < n; i++) size = Math.max(size, Math.abs(d[i]!) + Math.abs(e[i]!));
  const negligible = Number.EPSILON * size;

  for (let l = 0; l < n; l++) {
    for (let sweep = 0; ; sweep++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]!) > negligible) m++;
      if (m === l) break;
      if (sweep === MAX_SWEEPS) {
        throw new RuntimeFailureError(`symmetricEigen: eigenvalue ${l} of ${n} took more than ${MAX_SWEEPS} sweeps`);
      }
      if (used + (m - l) > BATCH) flush();
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let r = Math.sqrt(g * g + 1);
      g = d[m]! - d[l]! + e[l]! / (g + (g < 0 ? -r : r));
      let s = 1;
      let c = 1;
      let p = 0;
      const start = used;
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i]!;
        const b = c * e[i]!;
        r = Math.sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r === 0) {
          // The matrix falls apart here: take back the shift and begin again.
          d[i + 1] = d[i + 1]! - p;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1]! - p;
        r = (d[i]! - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        rotations[2 * used] = c;
        rotations[2 * used + 1] = s;
        used++;
      }
      if (used > start) sweeps.push({ start, from: m, count: used - start });
      if (i < l) {
        d[l] = d[l]! - p;
        e[l] = g;
      }
      e[m] = 0;
    }
  }
  flush();
}
