/**
 * What a spectral map costs: moments, eigen-decomposition, fit, one vector, 100,000 vectors, on seeded random unit
 * vectors. Beside it one pass of exact search in plain JavaScript, and ml-matrix where it is installed.
 *
 *   npm run build && node bench/spectral-map.mjs [--eigen 384,768,1536,4096]
 */
import { parseArgs } from "node:util";
import { readMoments } from "../packages/core/dist/context/covariance.js";
import { fitSpectralMap } from "../packages/core/dist/context/spectral-map.js";
import { symmetricEigen } from "../packages/core/dist/context/symmetric-eigen.js";

const { values } = parseArgs({ options: { eigen: { type: "string", default: "384,768,1536" } } });
const peer = await import("ml-matrix").catch(() => undefined);

let state = 1;
function random() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32 - 0.5;
}

/** Unit vectors with a common direction and a falling spectrum, packed. */
function unitRows(count, dimensions) {
  const rows = new Float32Array(count * dimensions);
  for (let at = 0; at < rows.length; at += dimensions) {
    let squares = 0;
    for (let i = 0; i < dimensions; i++) {
      rows[at + i] = (random() + random() + 0.2) / Math.sqrt(1 + i / 8);
      squares += rows[at + i] ** 2;
    }
    for (let i = 0; i < dimensions; i++) rows[at + i] /= Math.sqrt(squares);
  }
  return rows;
}

async function milliseconds(work, repeats = 1) {
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    await work();
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(repeats / 2)];
}

/** Largest deviation of five mapped rows from the formula in float64: results first, then times. */
function deviation(map, rows) {
  const n = map.dimensions;
  const weights = map.weights();
  let worst = 0;
  for (let r = 0; r < 5; r++) {
    const row = rows.subarray(r * n, (r + 1) * n);
    const exact = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) exact[i] += weights[i * n + j] * (row[j] - map.strength.b * map.mean[j]);
    }
    const length = Math.hypot(...exact);
    map.apply([row])[0].forEach((value, i) => {
      worst = Math.max(worst, Math.abs(value - exact[i] / length));
    });
  }
  return worst;
}

for (const [count, dimensions] of [
  [512, 384],
  [100_000, 384],
  [512, 4096],
]) {
  const source = { rows: unitRows(count, dimensions), dimensions };
  const map = await fitSpectralMap(source);
  const error = deviation(map, source.rows);
  if (!(error < 1e-6)) throw new Error(`apply deviates from the formula by ${error}`);
  const one = [source.rows.slice(0, dimensions)];
  for (let i = 0; i < 200; i++) map.apply(one);
  const figures = {
    "J x D": `${count} x ${dimensions}`,
    deviation: error.toExponential(1),
    "moments, ms": Math.round(await milliseconds(() => readMoments("bench", source), 3)),
    "fit, ms": Math.round(await milliseconds(() => fitSpectralMap(source), 3)),
    "one vector, µs": Math.round(1000 * (await milliseconds(() => map.apply(one), 300))),
    "all J, ms": Math.round(await milliseconds(() => map.applyRows(source.rows), 3)),
    "exact pass, ms": (await milliseconds(() => exactPass(source.rows, one[0]), 5)).toFixed(1),
  };
  console.log(figures);
}

function exactPass(rows, query) {
  let best = -1;
  for (let at = 0; at < rows.length; at += query.length) {
    let sum = 0;
    for (let i = 0; i < query.length; i++) sum += query[i] * rows[at + i];
    best = Math.max(best, sum);
  }
  return best;
}

for (const n of values.eigen.split(",").map(Number)) {
  const { covariance } = await readMoments("bench", { rows: unitRows(n + 100, n), dimensions: n });
  const start = performance.now();
  const { values: own, vectors } = symmetricEigen(covariance, n);
  const figures = { n, "own, ms": Math.round(performance.now() - start), ...quality(covariance, own, vectors, n) };
  if (peer !== undefined && n <= 1536) {
    const matrix = peer.Matrix.from1DArray(n, n, covariance);
    const from = performance.now();
    const { realEigenvalues, eigenvectorMatrix } = new peer.EigenvalueDecomposition(matrix, { assumeSymmetric: true });
    figures["ml-matrix, ms"] = Math.round(performance.now() - from);
    const rows = Float64Array.from(eigenvectorMatrix.transpose().to1DArray());
    const theirs = quality(covariance, realEigenvalues, rows, n);
    Object.assign(figures, { "its residual": theirs.residual, "its orthogonality": theirs.orthogonality });
  }
  console.log(figures);
}

/** Of 20 vectors: largest |A v − l v| over the largest l, and largest entry of V Vᵀ − 1. */
function quality(matrix, eigenvalues, vectors, n) {
  let [residual, orthogonality] = [0, 0];
  for (let q = 0; q < 20; q++) {
    const k = Math.floor((q * (n - 1)) / 19);
    for (let i = 0; i < n; i++) {
      let [product, inner] = [0, 0];
      for (let j = 0; j < n; j++) {
        product += matrix[i * n + j] * vectors[k * n + j];
        inner += vectors[k * n + j] * vectors[i * n + j];
      }
      residual = Math.max(residual, Math.abs(product - eigenvalues[k] * vectors[k * n + i]));
      orthogonality = Math.max(orthogonality, Math.abs(inner - (i === k ? 1 : 0)));
    }
  }
  const largest = Math.max(eigenvalues[0], eigenvalues[n - 1]);
  return { residual: (residual / largest).toExponential(1), orthogonality: orthogonality.toExponential(1) };
}
