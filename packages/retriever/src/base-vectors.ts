/** Where the vectors lie as the embedder gave them, whatever the rows of the search are. */
import { internal } from "@cde-js/core";
import type { BaseVectors } from "./exact-index.js";

/** In memory: for int8 rows of an index that has no folder yet. Labels count from 0 in the order of appending. */
export class MemoryVectors implements BaseVectors {
  readonly #dimensions: number;
  readonly #rows: Float32Array[] = [];

  constructor(dimensions: number) {
    this.#dimensions = dimensions;
  }

  /** Keeps the rows of one block, which the caller no longer changes. */
  append(block: Float32Array): void {
    for (let at = 0; at < block.length; at += this.#dimensions) {
      this.#rows.push(block.subarray(at, at + this.#dimensions));
    }
  }

  async read(labels: Uint32Array): Promise<Float32Array> {
    const found = new Float32Array(labels.length * this.#dimensions);
    for (const [i, label] of labels.entries()) {
      const row = this.#rows[label];
      if (!row) throw internal(`no base vector ${label}`);
      found.set(row, i * this.#dimensions);
    }
    return found;
  }
}
