/** The numeric kernels of the spectral context (WebAssembly SIMD) and the memory that they work on. */
import {
  assemble,
  type Code,
  f32x4,
  f64,
  f64Lane,
  f64x2,
  i32,
  type KernelFunction,
  type Lanes,
  repeatWhile,
  v128,
} from "./assembler.js";
import { webAssembly } from "./web-assembly.js";

/** Columns of a float64 panel of eigenvectors: four vectors keep the multipliers busy, 16 registers hold them. */
export const PANEL = 8;
/** Rows of a product tile. */
export const TILE_ROWS = 4;
/** Columns of a product tile, for float32 and float64: two vectors. */
export const TILE_COLUMNS = { float32: 8, float64: 4 } as const;

/**
 * product(a, b, out, n): out += aᵀ b for a tile of TILE_ROWS x TILE_COLUMNS. a is [n][rows], b is [n][columns], out is
 * [rows][columns], all dense. Every element is one sum in the order of n, so that a row's result doesn't depend on
 * its neighbours.
 */
function product(lanes: Lanes): KernelFunction {
  return {
    parameters: ["i32", "i32", "i32", "i32"],
    body: ([a, b, out, n], local) => {
      const sums = Array.from({ length: TILE_ROWS * 2 }, () => local("v128"));
      const columns = [local("v128"), local("v128")] as const;
      const row = local("v128");
      const end = local("i32");
      return [
        ...sums.flatMap((sum, i) => sum.set(v128.load(out!.get, i * 16))),
        ...end.set(i32.add(a!.get, bytes(n!.get, TILE_ROWS * lanes.bytes))),
        ...repeatWhile(
          [
            ...columns.flatMap((column, c) => column.set(v128.load(b!.get, c * 16))),
            ...sums.flatMap((sum, i) => [
              ...(i % 2 === 0 ? row.set(lanes.loadSplat(a!.get, (i >> 1) * lanes.bytes)) : []),
              ...sum.set(lanes.add(sum.get, lanes.mul(row.get, columns[i % 2]!.get))),
            ]),
            ...a!.set(i32.add(a!.get, i32.const(TILE_ROWS * lanes.bytes))),
            ...b!.set(i32.add(b!.get, i32.const(2 * 16))),
          ],
          i32.ne(a!.get, end.get),
        ),
        ...sums.flatMap((sum, i) => v128.store(out!.get, sum.get, i * 16)),
      ];
    },
  };
}

const bytes = (count: Code, size: number): Code => i32.mul(count, i32.const(size));
const ROW = PANEL * 8;
const VECTORS = Array.from({ length: ROW / 16 }, (_, i) => i);

/**
 * tridiagonalStep(row, u, q, next, p, uj, qj, nextj, pairs) -> dot: row −= uj·q + qj·u, then p += nextj·row, and the
 * answer is row · next: one pass for the rank-two update of a step and the product of the following one.
 */
const tridiagonalStep: KernelFunction = {
  parameters: ["i32", "i32", "i32", "i32", "i32", "f64", "f64", "f64", "i32"],
  result: "f64",
  body: ([row, u, q, next, p, uj, qj, nextj, pairs], local) => {
    const [ujs, qjs, njs, sum, value] = [0, 1, 2, 3, 4].map(() => local("v128"));
    const end = local("i32");
    const pointers = [row!, u!, q!, next!, p!];
    return [
      ...ujs!.set(f64x2.splat(uj!.get)),
      ...qjs!.set(f64x2.splat(qj!.get)),
      ...njs!.set(f64x2.splat(nextj!.get)),
      ...end.set(i32.add(row!.get, bytes(pairs!.get, 16))),
      ...repeatWhile(
        [
          ...value!.set(
            f64x2.sub(
              v128.load(row!.get),
              f64x2.add(f64x2.mul(ujs!.get, v128.load(q!.get)), f64x2.mul(qjs!.get, v128.load(u!.get))),
            ),
          ),
          ...v128.store(row!.get, value!.get),
          ...sum!.set(f64x2.add(sum!.get, f64x2.mul(value!.get, v128.load(next!.get)))),
          ...v128.store(p!.get, f64x2.add(v128.load(p!.get), f64x2.mul(njs!.get, value!.get))),
          ...pointers.flatMap((pointer) => pointer.set(i32.add(pointer.get, i32.const(16)))),
        ],
        i32.ne(row!.get, end.get),
      ),
      ...f64.add(f64Lane(sum!.get, 0), f64Lane(sum!.get, 1)),
    ];
  },
};

/** reflect(panel, u, n, scale): panel −= u · (scale · uᵀ panel) for the first n rows of a panel of PANEL columns. */
const reflect: KernelFunction = {
  parameters: ["i32", "i32", "i32", "f64"],
  body: ([panel, u, n, scale], local) => {
    const sums = VECTORS.map(() => local("v128"));
    const [at, from, end] = [local("i32"), local("i32"), local("i32")];
    const factor = local("v128");
    const walk = (body: Code): Code => [
      ...at.set(panel!.get),
      ...from.set(u!.get),
      ...repeatWhile(
        [
          ...factor.set(f64x2.loadSplat(from.get)),
          ...body,
          ...at.set(i32.add(at.get, i32.const(ROW))),
          ...from.set(i32.add(from.get, i32.const(8))),
        ],
        i32.ne(at.get, end.get),
      ),
    ];
    return [
      ...end.set(i32.add(panel!.get, bytes(n!.get, ROW))),
      ...walk(
        VECTORS.flatMap((v) => sums[v]!.set(f64x2.add(sums[v]!.get, f64x2.mul(factor.get, v128.load(at.get, v * 16))))),
      ),
      ...sums.flatMap((sum) => sum.set(f64x2.mul(sum.get, f64x2.splat(scale!.get)))),
      ...walk(
        VECTORS.flatMap((v) =>
          v128.store(at.get, f64x2.sub(v128.load(at.get, v * 16), f64x2.mul(factor.get, sums[v]!.get)), v * 16),
        ),
      ),
    ];
  },
};

/**
 * rotate(row, rotations, n): n plane rotations (cosine, sine), of rows (r, r − 1), (r − 1, r − 2), ... of a panel from
 * `row` upwards. The row that two neighbouring rotations share stays in registers.
 */
const rotate: KernelFunction = {
  parameters: ["i32", "i32", "i32"],
  body: ([row, rotations, n], local) => {
    const carried = VECTORS.map(() => local("v128"));
    const [upper, cosine, sine] = [local("v128"), local("v128"), local("v128")];
    const end = local("i32");
    return [
      ...carried.flatMap((vector, v) => vector.set(v128.load(row!.get, v * 16))),
      ...end.set(i32.add(rotations!.get, bytes(n!.get, 16))),
      ...repeatWhile(
        [
          ...cosine.set(f64x2.loadSplat(rotations!.get)),
          ...sine.set(f64x2.loadSplat(rotations!.get, 8)),
          ...row!.set(i32.sub(row!.get, i32.const(ROW))),
          ...carried.flatMap((vector, v) => [
            ...upper.set(v128.load(row!.get, v * 16)),
            ...v128.store(
              row!.get,
              f64x2.add(f64x2.mul(sine.get, upper.get), f64x2.mul(cosine.get, vector.get)),
              ROW + v * 16,
            ),
            ...vector.set(f64x2.sub(f64x2.mul(cosine.get, upper.get), f64x2.mul(sine.get, vector.get))),
          ]),
          ...rotations!.set(i32.add(rotations!.get, i32.const(16))),
        ],
        i32.ne(rotations!.get, end.get),
      ),
      ...carried.flatMap((vector, v) => v128.store(row!.get, vector.get, v * 16)),
    ];
  },
};

/** The kernels' exports; pointers are byte offsets into the memory, counts are at least 1. */
interface Exports {
  product32(a: number, b: number, out: number, n: number): void;
  product64(a: number, b: number, out: number, n: number): void;
  tridiagonalStep(
    row: number,
    u: number,
    q: number,
    next: number,
    p: number,
    uj: number,
    qj: number,
    nextj: number,
    pairs: number,
  ): number;
  reflect(panel: number, u: number, n: number, scale: number): void;
  rotate(row: number, rotations: number, n: number): void;
}

let compiled: unknown;

/** One instance of the kernels with its own memory, freed by the garbage collector. */
export class Kernels {
  readonly run: Exports;
  readonly #buffer: ArrayBuffer;
  #used = 0;

  /** @param size bytes that will be reserved in all, each reservation rounded up to 16 */
  constructor(size: number) {
    const wasm = webAssembly();
    compiled ??= new wasm.Module(
      assemble({ product32: product(f32x4), product64: product(f64x2), tridiagonalStep, reflect, rotate }),
    );
    const memory = new wasm.Memory({ initial: Math.ceil(size / 65_536) + 1 });
    this.#buffer = memory.buffer;
    this.run = new wasm.Instance(compiled, { env: { memory } }).exports as unknown as Exports;
  }

  /** `length` zeros; the view's byteOffset is its pointer. */
  float64(length: number): Float64Array {
    return new Float64Array(this.#buffer, this.#reserve(length * 8), length);
  }

  float32(length: number): Float32Array {
    return new Float32Array(this.#buffer, this.#reserve(length * 4), length);
  }

  #reserve(size: number): number {
    const at = this.#used;
    this.#used += Math.ceil(size / 16) * 16;
    return at;
  }
}
