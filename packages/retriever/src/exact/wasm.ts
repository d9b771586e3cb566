/**
 * A writer of small WebAssembly modules: the opcodes that our kernels use, by their names in the specification
 * (https://webassembly.github.io/spec/core/appendix/index-instructions.html), and the module around them.
 */

/** Instructions, as the bytes they encode to. */
export type Code = readonly number[];

/** Unsigned LEB128, the variable-length integer of the binary format. */
function uleb(value: number): number[] {
  const bytes: number[] = [];
  do {
    const low = value % 128;
    value = Math.floor(value / 128);
    bytes.push(value > 0 ? low + 128 : low);
  } while (value > 0);
  return bytes;
}

/** A vector instruction: prefix 0xfd, then the opcode as LEB128. */
const simd = (opcode: number, ...rest: number[]): Code => [0xfd, ...uleb(opcode), ...rest];
/** Alignment hint 2^2 and a byte offset. Loads may be unaligned; the hint is only a hint. */
const memory = (offset: number): number[] => [2, ...uleb(offset)];

export const i32 = {
  /** Constants from 0 to 63 fit the single byte of signed LEB128 that this writes; 64 and more need two. */
  const: (value: number): Code => (value < 64 ? [0x41, value] : [0x41, (value % 128) + 128, Math.floor(value / 128)]),
  add: [0x6a] as Code,
  sub: [0x6b] as Code,
  eqz: [0x45] as Code,
  ltU: [0x49] as Code,
  store: [0x36, ...memory(0)] as Code,
};
export const f32 = { add: [0x92] as Code, store: [0x38, ...memory(0)] as Code };
export const local = {
  get: (index: number): Code => [0x20, ...uleb(index)],
  set: (index: number): Code => [0x21, ...uleb(index)],
};
export const v128 = {
  load: (offset: number): Code => simd(0x00, ...memory(offset)),
  /** Eight int8 values, widened to int16. */
  load8x8s: (offset: number): Code => simd(0x01, ...memory(offset)),
  zero: simd(0x0c, ...new Array<number>(16).fill(0)) as Code,
};
export const f32x4 = {
  extractLane: (lane: number): Code => simd(0x1f, lane),
  add: simd(0xe4) as Code,
  mul: simd(0xe6) as Code,
};
export const i32x4 = {
  extractLane: (lane: number): Code => simd(0x1b, lane),
  add: simd(0xae) as Code,
  /** Products of int16 pairs, neighbours added: eight products in four int32 lanes. */
  dotI16x8s: simd(0xba) as Code,
};

/** `block ... end`; `br(0)` inside leaves it. */
export const block = (...body: Code[]): Code => [0x02, 0x40, ...body.flat(), 0x0b];
/** `loop ... end`; `br(0)` inside starts it again. */
export const loop = (...body: Code[]): Code => [0x03, 0x40, ...body.flat(), 0x0b];
export const br = (depth: number): Code => [0x0c, depth];
export const brIf = (depth: number): Code => [0x0d, depth];

/** A function of int32 parameters without a result, exported under `name`. */
export interface Kernel {
  readonly name: string;
  readonly parameters: number;
  /** Local variables after the parameters. */
  readonly locals: { readonly i32: number; readonly v128: number };
  readonly body: readonly Code[];
}

const I32 = 0x7f;
const V128 = 0x7b;

/** The bytes of a module with these functions and one memory, exported as "memory", of up to 4 GiB. */
export function encodeModule(kernels: readonly Kernel[]): Uint8Array<ArrayBuffer> {
  const section = (id: number, items: readonly (readonly number[])[]): number[] => {
    const content = [...uleb(items.length), ...items.flat()];
    return [id, ...uleb(content.length), ...content];
  };
  const name = (text: string): number[] => [text.length, ...Buffer.from(text, "latin1")];
  const types = kernels.map((kernel) => [
    0x60,
    kernel.parameters,
    ...new Array<number>(kernel.parameters).fill(I32),
    0,
  ]);
  const functions = kernels.map((_, index) => [index]);
  const memories = [[0x01, ...uleb(1), ...uleb(65_536)]];
  const exports = [
    [...name("memory"), 0x02, 0],
    ...kernels.map((kernel, index) => [...name(kernel.name), 0x00, index]),
  ];
  const bodies = kernels.map((kernel) => {
    const content = [2, kernel.locals.i32, I32, kernel.locals.v128, V128, ...kernel.body.flat(), 0x0b];
    return [...uleb(content.length), ...content];
  });
  const magic = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  return Uint8Array.from([
    ...magic,
    ...section(1, types),
    ...section(3, functions),
    ...section(5, memories),
    ...section(7, exports),
    ...section(10, bodies),
  ]);
}
