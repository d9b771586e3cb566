/**
 * Reads a graph's file as hnswlib 0.8 writes it, and says what in it can't be of these rows. hnswlib itself takes any
 * numbers for links and lengths and follows them out of its memory.
 *
 *   offset of level 0, capacity, count, bytes a point, offset of label, offset of vector: uint64
 *   highest level: int32, entry point: uint32; links a point, links at level 0, m: uint64; factor: float64; ef: uint64
 *   count x (links at level 0, vector, label: uint64); count x (bytes: uint32, then the links of levels 1, 2, ...)
 *
 * Links are a uint32, of which 16 bits count, then room for all ids; a mark in its third byte says that the point is deleted.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

export interface GraphFileExpectation {
  readonly rows: number;
  readonly dimensions: number;
  readonly m: number;
  /** The vector that the graph holds of a row. */
  readonly vectorOf: (row: number) => ArrayLike<number>;
}

const HEADER = 96;
const BLOCK = 4 * 2 ** 20;

/** What is wrong with the file, or undefined. Raises what the file system raises. */
export function graphFileFault(path: string, expected: GraphFileExpectation): string | undefined {
  const file = new Cursor(path);
  try {
    return faultOf(file, expected);
  } finally {
    file.close();
  }
}

function faultOf(file: Cursor, { rows, dimensions, m, vectorOf }: GraphFileExpectation): string | undefined {
  const header = file.next(HEADER);
  if (!header) return "is shorter than its header";
  const size = (at: number): number => Number(header.readBigUInt64LE(at));
  const [levelLinks, groundLinks] = [4 * m + 4, 8 * m + 4];
  const point = groundLinks + 4 * dimensions + 8;
  const wanted: [string, number, number][] = [
    ["the offset of its points", size(0), 0],
    ["its number of points", size(16), rows],
    ["the bytes of a point", size(24), point],
    ["the offset of labels", size(32), point - 8],
    ["the offset of vectors", size(40), groundLinks],
    ["the links of a level", size(56), m],
    ["the links of the ground", size(64), 2 * m],
    ["m", size(72), m],
  ];
  for (const [what, found, own] of wanted) if (found !== own) return `has ${found} as ${what}, expected ${own}`;
  const [capacity, highest, entry] = [size(8), header.readInt32LE(48), header.readUInt32LE(52)];
  if (capacity < rows || capacity > Math.max(1024, 2 * rows))
    return `has room for ${capacity} points, and ${rows} of them`;
  const factor = header.readDoubleLE(80);
  if (Math.abs(factor * Math.log(m) - 1) > 1e-9) return `draws levels by ${factor}, expected ${1 / Math.log(m)}`;

  for (let row = 0; row < rows; row++) {
    const bytes = file.next(point);
    if (!bytes) return `ends at point ${row}`;
    if (bytes[2] !== 0) return `has point ${row} as deleted`;
    const fault = linksFault(bytes, 0, 2 * m, (other) => other < rows);
    if (fault !== undefined) return `has point ${row} ${fault}`;
    const vector = vectorOf(row);
    for (let i = 0; i < dimensions; i++) {
      if (bytes.readFloatLE(groundLinks + 4 * i) !== Math.fround(vector[i] as number))
        return `has another vector ${row}`;
    }
    if (bytes.readBigUInt64LE(point - 8) !== BigInt(row)) return `has another label at point ${row}`;
  }
  // A link on a level may only lead to a point that is on that level: levels of all points first, links after.
  const levels = new Uint8Array(rows);
  const links: { readonly row: number; readonly level: number; readonly bytes: Buffer }[] = [];
  for (let row = 0; row < rows; row++) {
    const length = file.next(4)?.readUInt32LE(0);
    if (length === undefined) return `ends at the levels of point ${row}`;
    const level = length / levelLinks;
    if (!Number.isInteger(level) || level > Math.max(0, highest) || level > 255) {
      return `has ${length} bytes of links of point ${row}`;
    }
    levels[row] = level;
    for (let above = 1; above <= level; above++) {
      const bytes = file.next(levelLinks);
      if (!bytes) return `ends at the links of point ${row}`;
      links.push({ row, level: above, bytes: Buffer.from(bytes) });
    }
  }
  if (!file.atEnd) return "goes on after its last point";
  for (const { row, level, bytes } of links) {
    const fault = linksFault(bytes, 0, m, (other) => (levels[other] ?? -1) >= level);
    if (fault !== undefined) return `has point ${row} ${fault} on level ${level}`;
  }
  return levels[entry] === highest ? undefined : `begins at point ${entry}, which is not on its highest level`;
}

function linksFault(bytes: Buffer, at: number, most: number, leads: (to: number) => boolean): string | undefined {
  const count = bytes.readUInt16LE(at);
  if (count > most) return `linked ${count} times`;
  for (let i = 0; i < count; i++) {
    const other = bytes.readUInt32LE(at + 4 + 4 * i);
    if (!leads(other)) return `linked to ${other}`;
  }
  return undefined;
}

/** Reads a file from its beginning in large blocks. */
class Cursor {
  readonly #file: number;
  #left: number;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(path: string) {
    this.#file = openSync(path, "r");
    this.#left = fstatSync(this.#file).size;
  }

  get atEnd(): boolean {
    return this.#left === 0 && this.#buffer.length === 0;
  }

  /** The next bytes, valid until the next call; undefined where there are fewer. */
  next(length: number): Buffer | undefined {
    if (this.#buffer.length < length) {
      const larger = Buffer.allocUnsafe(Math.max(length, Math.min(BLOCK, this.#buffer.length + this.#left)));
      let filled = this.#buffer.copy(larger);
      while (filled < larger.length && this.#left > 0) {
        const read = readSync(this.#file, larger, filled, Math.min(larger.length - filled, this.#left), null);
        this.#left = read === 0 ? 0 : this.#left - read;
        filled += read;
      }
      this.#buffer = larger.subarray(0, filled);
    }
    if (this.#buffer.length < length) return undefined;
    const bytes = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return bytes;
  }

  close(): void {
    closeSync(this.#file);
  }
}
