/** Rotary positions (Su et al. 2021), half-split as in GPT-NeoX: entries i and i + width/2 of a head turn together. */
import { add, concat, constant, type Dim, type Float, type FloatType, mul, slice, sub } from "../graph/index.js";

/** The cosines and sines of all positions [positions, width/2], or of those of one sequence. */
export interface RotaryTables {
  readonly cos: Float;
  readonly sin: Float;
}

export interface RotaryOptions {
  readonly positions: number;
  /** Width of a head. */
  readonly width: number;
  readonly base: number;
  readonly dtype: FloatType;
  /** Number of first tokens that aren't turned; later ones keep their own position. @default 0 */
  readonly withoutPosition?: number;
}

/** Frequency i of a head: base^(−2i/width). */
export function inverseFrequencies(width: number, base: number): Float64Array {
  return Float64Array.from({ length: width / 2 }, (_, i) => base ** ((-2 * i) / width));
}

/** Constants of the graph: 2·positions·width/2 numbers, 2 MB for 8,192 positions of a head 64 wide. */
export function rotaryTables({ positions, width, base, dtype, withoutPosition = 0 }: RotaryOptions): RotaryTables {
  const frequencies = inverseFrequencies(width, base);
  const table = (of: (angle: number) => number): Float => {
    const values = new Float64Array(positions * frequencies.length);
    for (let position = 0; position < positions; position++) {
      // An angle of 0 is the identity: x·1 − y·0 is x, exactly.
      const turns = position < withoutPosition ? 0 : position;
      frequencies.forEach((frequency, i) => {
        values[position * frequencies.length + i] = of(turns * frequency);
      });
    }
    return constant(dtype, [positions, frequencies.length], values) as Float;
  };
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/** The first `length` positions. */
export function firstPositions({ cos, sin }: RotaryTables, length: Dim): RotaryTables {
  const rows = { axis: 0, start: 0, end: length };
  return { cos: slice(cos, rows), sin: slice(sin, rows) };
}

/** (x₁, x₂) → (x₁ cos − x₂ sin, x₂ cos + x₁ sin), for x [heads, batch, length, width] and tables [length, width/2]. */
export function rotate(x: Float, { cos, sin }: RotaryTables): Float {
  const width = x.shape[3] as number;
  const first = slice(x, { axis: 3, start: 0, end: width / 2 });
  const second = slice(x, { axis: 3, start: width / 2, end: width });
  return concat([sub(mul(first, cos), mul(second, sin)), add(mul(second, cos), mul(first, sin))], 3);
}
