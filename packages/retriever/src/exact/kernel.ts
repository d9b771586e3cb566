/** The dot products of one query with many rows, as WebAssembly SIMD: float32 rows and int8 rows. */
import {
  block,
  br,
  brIf,
  type Code,
  encodeModule,
  f32,
  f32x4,
  i32,
  i32x4,
  type Kernel,
  local,
  loop,
  v128,
} from "./wasm.js";

// The part of the global that is used here; neither es2023 nor @types/node 20 declares it.
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
};

/** A float32 row takes a multiple of these bytes: four vectors of four values, one per accumulator. */
export const FLOAT_BLOCK = 64;
/** An int8 row takes a multiple of these bytes: four vectors of eight values, one per accumulator. */
export const INT8_BLOCK = 32;

/** What the module exports. Pointers are byte offsets in `memory`; `stride` is a row's bytes, padding (zero) included. */
export interface DotKernels {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  /** out[i] (float32) = query (float32) · row i (float32). */
  dotFloat32(query: number, rows: number, stride: number, count: number, out: number): void;
  /** out[i] (int32) = query (int16) · row i (int8). */
  dotInt8(query: number, rows: number, stride: number, count: number, out: number): void;
}

// Parameters and locals by position.
const [query, rows, stride, count, out] = [0, 1, 2, 3, 4] as const;
const [q, end] = [5, 6] as const;
const accumulator = (n: number): number => 7 + n;

interface Arithmetic {
  readonly name: string;
  /** Bytes of query and row that one turn of the inner loop takes. */
  readonly queryStep: number;
  readonly rowStep: number;
  /** Leaves on the stack the products of vector `n` of this turn. */
  readonly products: (n: number) => Code[];
  readonly add: Code;
  readonly extractLane: (lane: number) => Code;
  readonly addLanes: Code;
  readonly store: Code;
}

const advance = (pointer: number, bytes: number): Code[] => [
  local.get(pointer),
  i32.const(bytes),
  i32.add,
  local.set(pointer),
];

/** for each row { acc0..3 = 0; for each turn { acc[n] += q[n] * row[n] }; *out++ = sum of all lanes } */
function dotKernel(a: Arithmetic): Kernel {
  const four = [0, 1, 2, 3];
  return {
    name: a.name,
    parameters: 5,
    locals: { i32: 2, v128: 4 },
    body: [
      block(
        loop(
          ...[local.get(count), i32.eqz, brIf(1)],
          ...four.flatMap((n) => [v128.zero, local.set(accumulator(n))]),
          ...[local.get(query), local.set(q)],
          ...[local.get(rows), local.get(stride), i32.add, local.set(end)],
          loop(
            // Four independent sums, so that an addition needn't wait for the one before.
            ...four.flatMap((n) => [local.get(accumulator(n)), ...a.products(n), a.add, local.set(accumulator(n))]),
            ...advance(q, a.queryStep),
            ...advance(rows, a.rowStep),
            ...[local.get(rows), local.get(end), i32.ltU, brIf(0)],
          ),
          ...[local.get(accumulator(0)), local.get(accumulator(1)), a.add],
          ...[local.get(accumulator(2)), local.get(accumulator(3)), a.add, a.add, local.set(accumulator(0))],
          local.get(out),
          ...[local.get(accumulator(0)), a.extractLane(0)],
          ...[1, 2, 3].flatMap((lane) => [local.get(accumulator(0)), a.extractLane(lane), a.addLanes]),
          a.store,
          ...advance(out, 4),
          ...[local.get(count), i32.const(1), i32.sub, local.set(count)],
          br(0),
        ),
      ),
    ],
  };
}

const float32Kernel = dotKernel({
  name: "dotFloat32",
  queryStep: FLOAT_BLOCK,
  rowStep: FLOAT_BLOCK,
  products: (n) => [local.get(q), v128.load(16 * n), local.get(rows), v128.load(16 * n), f32x4.mul],
  add: f32x4.add,
  extractLane: f32x4.extractLane,
  addLanes: f32.add,
  store: f32.store,
});

const int8Kernel = dotKernel({
  name: "dotInt8",
  queryStep: 2 * INT8_BLOCK,
  rowStep: INT8_BLOCK,
  products: (n) => [local.get(q), v128.load(16 * n), local.get(rows), v128.load8x8s(8 * n), i32x4.dotI16x8s],
  add: i32x4.add,
  extractLane: i32x4.extractLane,
  addLanes: i32.add,
  store: i32.store,
});

/** Compiles the kernels over a memory of their own, one page large. */
export function instantiateKernels(): DotKernels {
  const module = new WebAssembly.Module(encodeModule([float32Kernel, int8Kernel]));
  return new WebAssembly.Instance(module).exports as DotKernels;
}
