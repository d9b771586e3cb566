/**
 * A very small WebAssembly assembler: enough of it to write numeric kernels over one imported memory.
 * Bytes are those of the WebAssembly core specification 2.0, sections 5.4 (instructions) and 5.5 (modules).
 */

/** Instruction bytes; an expression leaves its value on the stack. */
export type Code = readonly number[];

const VALUE_TYPES = { i32: 0x7f, f64: 0x7c, v128: 0x7b } as const;
export type ValueType = keyof typeof VALUE_TYPES;

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) {
      bytes.push(low);
      return bytes;
    }
    bytes.push(low | 0x80);
  }
}

type Unary = (a: Code) => Code;
type Binary = (a: Code, b: Code) => Code;
type Load = (address: Code, offset?: number) => Code;

const binary =
  (...opcode: number[]): Binary =>
  (a, b) => [...a, ...b, ...opcode];
const unary =
  (...opcode: number[]): Unary =>
  (a) => [...a, ...opcode];
/** Opcodes of the vector instructions follow the prefix 0xfd; those above 127 take two bytes. */
const vector = (opcode: number): number[] => [0xfd, ...unsigned(opcode)];

export const i32: { const: (value: number) => Code; add: Binary; sub: Binary; mul: Binary; ne: Binary } = {
  const: (value) => [0x41, ...signed(value)],
  add: binary(0x6a),
  sub: binary(0x6b),
  mul: binary(0x6c),
  ne: binary(0x47),
};
export const f64: { add: Binary } = { add: binary(0xa0) };
const load =
  (opcode: number): Load =>
  (address, offset = 0) => [...address, ...vector(opcode), 0, ...unsigned(offset)];
/** Lanes of float32 (4) or float64 (2): the same names, so that one kernel text serves both. */
export interface Lanes {
  readonly bytes: 4 | 8;
  /** Lanes in one vector. */
  readonly count: 4 | 2;
  readonly add: Binary;
  readonly sub: Binary;
  readonly mul: Binary;
  /** One number of memory in every lane. */
  readonly loadSplat: Load;
  readonly splat: Unary;
}
export const f32x4: Lanes = {
  bytes: 4,
  count: 4,
  add: binary(...vector(228)),
  sub: binary(...vector(229)),
  mul: binary(...vector(230)),
  loadSplat: load(9),
  splat: unary(...vector(19)),
};
export const f64x2: Lanes = {
  bytes: 8,
  count: 2,
  add: binary(...vector(240)),
  sub: binary(...vector(241)),
  mul: binary(...vector(242)),
  loadSplat: load(10),
  splat: unary(...vector(20)),
};
export const v128: { load: Load; store: (address: Code, value: Code, offset?: number) => Code } = {
  load: load(0),
  store: (address, value, offset = 0) => [...address, ...value, ...vector(11), 0, ...unsigned(offset)],
};
/** Lane 0 or 1 of a float64 vector. */
export const f64Lane = (value: Code, lane: 0 | 1): Code => [...value, ...vector(33), lane];

/** A local variable (parameters come first). */
export interface Local {
  readonly get: Code;
  set(value: Code): Code;
}

/** Runs `body` and repeats it while `condition` holds: at least once. */
export const repeatWhile = (body: Code, condition: Code): Code => [0x03, 0x40, ...body, ...condition, 0x0d, 0, 0x0b];

export interface KernelFunction {
  readonly parameters: readonly ValueType[];
  readonly result?: ValueType;
  /** Writes the body; `local` declares a further variable, zero at first. */
  body(parameters: readonly Local[], local: (type: ValueType) => Local): Code;
}

const list = (entries: readonly (readonly number[])[]): number[] => [...unsigned(entries.length), ...entries.flat()];
const section = (id: number, content: readonly number[]): number[] => [id, ...unsigned(content.length), ...content];
const name = (text: string): number[] => list([...new TextEncoder().encode(text)].map((byte) => [byte]));

function variable(index: number): Local {
  return { get: [0x20, ...unsigned(index)], set: (value) => [...value, 0x21, ...unsigned(index)] };
}

/** The bytes of a module that imports memory `env.memory` and exports `functions` by name. */
export function assemble(functions: Readonly<Record<string, KernelFunction>>): Uint8Array<ArrayBuffer> {
  const entries = Object.entries(functions);
  const types = entries.map(([, f]) => [
    0x60,
    ...list(f.parameters.map((type) => [VALUE_TYPES[type]])),
    ...list(f.result === undefined ? [] : [[VALUE_TYPES[f.result]]]),
  ]);
  const bodies = entries.map(([, f]) => {
    const locals: number[][] = [];
    const code = f.body(
      f.parameters.map((_, index) => variable(index)),
      (type) => {
        locals.push([1, VALUE_TYPES[type]]);
        return variable(f.parameters.length + locals.length - 1);
      },
    );
    const body = [...list(locals), ...code, 0x0b];
    return [...unsigned(body.length), ...body];
  });
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, list(types)),
    ...section(2, list([[...name("env"), ...name("memory"), 0x02, 0x00, 0]])), // a memory of any size
    ...section(3, list(entries.map((_, index) => unsigned(index)))),
    ...section(7, list(entries.map(([key], index) => [...name(key), 0x00, ...unsigned(index)]))),
    ...section(10, list(bodies)),
  ]);
}
