/** float16 and bfloat16 against float32: Node 20 has no Float16Array. Bits are held in a Uint16Array. */
import { InvalidInputError } from "../errors.js";

let halfValues: Float32Array | undefined;

/** The value of every float16 by its bits: 256 KiB, made on first use. */
function halfTable(): Float32Array {
  if (halfValues) return halfValues;
  const table = new Float32Array(65_536);
  for (let bits = 0; bits < 65_536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = sign * (1024 + fraction) * 2 ** (exponent - 25);
  }
  halfValues = table;
  return table;
}

/** Writes the values of float16 `bits` to `target` from `offset` on; exact. */
export function float16ToFloat32(bits: Uint16Array, target: Float32Array, offset = 0): void {
  const table = halfTable();
  for (let i = 0; i < bits.length; i++) target[offset + i] = table[bits[i]!]!;
}

/** Writes the values of bfloat16 `bits` to `target` from `offset` on; exact: a bfloat16 is a float32's upper half. */
export function bfloat16ToFloat32(bits: Uint16Array, target: Float32Array, offset = 0): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let i = 0; i < bits.length; i++) words[offset + i] = bits[i]! << 16;
}

/**
 * The nearest float16 bits, ties to even. A NaN stays a (quiet) NaN, an infinity an infinity; a finite value of 65520
 * or more, which float16 would turn into an infinity, raises InvalidInputError.
 */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const word = words[i]!;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    if (magnitude >= 0x7f800000) bits[i] = sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
    else if (magnitude >= 0x477ff000)
      throw new InvalidInputError(`float32ToFloat16: ${values[i]} is out of float16's range (below 65520).`, {
        position: i,
      });
    else if (magnitude < 0x38800000) {
      // Subnormal, in units of 2^-24: dividing is exact in float64, so the only rounding is the tie rule here.
      const units = Math.abs(values[i]!) * 2 ** 24;
      const whole = Math.floor(units);
      const rest = units - whole;
      bits[i] = sign | (whole + (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? 1 : 0));
    } else {
      // Adding half a unit, less one where the kept part is even, carries exactly when rounding goes up.
      const odd = (magnitude >>> 13) & 1;
      bits[i] = sign | ((magnitude - 0x38000000 + 0xfff + odd) >>> 13);
    }
  }
  return bits;
}
