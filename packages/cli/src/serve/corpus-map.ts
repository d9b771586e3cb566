/** The corpus as points in a plane: where each passage lies, and what a page needs to draw a sample of them. */
import { setImmediate as pause } from "node:timers/promises";
import type { Hit } from "@cde-js/retriever";
import { fitPlane } from "../context/projection.js";
import type { ListedIndex } from "../listed-rows.js";

/** Passages that the plane is fitted to. */
const FITTED = 1000;
/** Points that a page draws at most. */
const DRAWN = 10_000;
/** Passages read at once. */
const SLICE = 2000;

export interface MapPoints {
  /** Part of the variance that the plane shows, from 0 to 1. */
  readonly share: number;
  readonly passages: number;
  /** Names of documents: the title, or the id. */
  readonly names: readonly string[];
  /** x, y from 0 to 1, and the position of the document in `names`, of each point drawn. */
  readonly points: readonly (readonly [x: number, y: number, name: number])[];
}

export class CorpusMap {
  readonly drawn: MapPoints;
  readonly #plane: Float32Array;
  readonly #places: ReadonlyMap<string, number>;

  private constructor(drawn: MapPoints, plane: Float32Array, places: ReadonlyMap<string, number>) {
    this.drawn = drawn;
    this.#plane = plane;
    this.#places = places;
  }

  /** Reads all passages once, in slices; undefined for an index without any. */
  static async draw(listed: ListedIndex, signal: AbortSignal): Promise<CorpusMap | undefined> {
    const passageCount = listed.labels.length;
    if (passageCount === 0) return undefined;
    const labelsAt = (positions: Uint32Array): Uint32Array => positions.map((at) => listed.labels[at] as number);
    const fitted = await listed.vectors(labelsAt(spaced(passageCount, FITTED)));
    const plane = await fitPlane(fitted, listed.index.dimensions);
    const flat = new Float32Array(2 * passageCount);
    const places = new Map<string, number>();
    const names = new Map<string, number>();
    const nameOf: number[] = [];
    for (let first = 0; first < passageCount; first += SLICE) {
      signal.throwIfAborted();
      const slice = listed.labels.slice(first, first + SLICE);
      flat.set(plane.project(await listed.vectors(slice)), 2 * first);
      for (const [i, hit] of (await listed.passages(slice)).entries()) {
        places.set(keyOf(hit), first + i);
        const name = nameOfHit(hit);
        const position = names.get(name) ?? names.size;
        names.set(name, position);
        nameOf.push(position);
      }
      await pause();
    }
    const unit = toUnitSquare(flat);
    const points = Array.from(
      spaced(passageCount, DRAWN),
      (at) => [unit[2 * at] as number, unit[2 * at + 1] as number, nameOf[at] as number] as const,
    );
    return new CorpusMap(
      { share: plane.share, passages: passageCount, names: [...names.keys()], points },
      unit,
      places,
    );
  }

  /** Where a hit lies; undefined for a passage that isn't of this corpus. */
  pointOf(hit: Pick<Hit, "id" | "passage">): readonly [x: number, y: number] | undefined {
    const at = this.#places.get(keyOf(hit));
    return at === undefined ? undefined : [this.#plane[2 * at] as number, this.#plane[2 * at + 1] as number];
  }
}

function nameOfHit({ id, title }: Hit): string {
  return title ?? id;
}

function keyOf({ id, passage }: Pick<Hit, "id" | "passage">): string {
  return `${passage.start} ${passage.end} ${id}`;
}

/** So many of the positions below `count`, evenly spaced; all of them where there are fewer. */
function spaced(count: number, most: number): Uint32Array {
  const length = Math.min(count, most);
  return Uint32Array.from({ length }, (_, i) => Math.floor((i * count) / length));
}

/** Both axes to [0, 1] by the same factor, the larger one filling it; three decimals, which is a pixel. */
function toUnitSquare(flat: Float32Array): Float32Array {
  const low = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  const high = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const [i, x] of flat.entries()) {
    low[i % 2] = Math.min(low[i % 2] as number, x);
    high[i % 2] = Math.max(high[i % 2] as number, x);
  }
  const extent = [0, 1].map((k) => (high[k] as number) - (low[k] as number));
  const scale = 1 / (Math.max(...extent) || 1);
  return flat.map((x, i) => {
    const centred = (x - (low[i % 2] as number) - (extent[i % 2] as number) / 2) * scale + 0.5;
    return Math.round(centred * 1000) / 1000;
  });
}
