/** A growing list of pairs of numbers that finds the place of one: open addressing, 16 bytes an entry and 4 a slot. */
import { internal } from "../../errors.js";

export class KeyTable {
  #first: Float64Array = new Float64Array(1024);
  #second: Float64Array = new Float64Array(1024);
  #slots = new Uint32Array(2048);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The numbers' first halves, without the room to grow. */
  get first(): Float64Array {
    return this.#first.subarray(0, this.#length);
  }

  get second(): Float64Array {
    return this.#second.subarray(0, this.#length);
  }

  /** Place of the pair, or -1. */
  find(first: number, second: number): number {
    return this.#slots[this.#slotOf(first, second)]! - 1;
  }

  /** Appends a pair that isn't there yet. */
  push(first: number, second: number): void {
    if (this.#length === this.#first.length) this.#grow();
    this.#first[this.#length] = first;
    this.#second[this.#length] = second;
    this.#length++;
    this.#slots[this.#slotOf(first, second)] = this.#length;
  }

  #slotOf(first: number, second: number): number {
    const mask = this.#slots.length - 1;
    let slot = (Math.imul(first % 2 ** 32, 0x9e3779b1) ^ (second % 2 ** 32)) & mask;
    for (let tried = 0; tried <= mask; tried++, slot = (slot + 1) & mask) {
      const at = this.#slots[slot]! - 1;
      if (at < 0 || (this.#first[at] === first && this.#second[at] === second)) return slot;
    }
    throw internal("a table of keys is full");
  }

  #grow(): void {
    // By half: while it grows, both copies are there.
    const size = this.#length + (this.#length >> 1);
    this.#first = enlarged(this.#first, size);
    this.#second = enlarged(this.#second, size);
    if (size * 1.5 <= this.#slots.length) return;
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(size * 1.5)));
    for (let at = 0; at < this.#length; at++) {
      this.#slots[this.#slotOf(this.#first[at]!, this.#second[at]!)] = at + 1;
    }
  }
}

function enlarged(values: Float64Array, size: number): Float64Array {
  const larger = new Float64Array(size);
  larger.set(values);
  return larger;
}
