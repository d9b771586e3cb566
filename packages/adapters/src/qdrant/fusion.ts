/**
 * What `fusion: "auto"` has to know and a server doesn't say: how far cosines fall in a collection, measured once by its own
 * searches and kept in its metadata, and how rare the words of a query are, asked with the query.
 */
import type { SparseVector } from "@cde-js/retriever";
import {
  ASKED,
  type AutoFusion,
  DEPTH,
  type DrawnPassage,
  fusionOf,
  inDrawOrder,
  mustChoose,
  vectorFault,
} from "@cde-js/retriever/backend";
import { isRecord, type PointId, type ScoredAnswer } from "./answers.js";
import { type QdrantCollection, type StrictLimits, WORDS } from "./collection.js";
import { Unsound } from "./connection.js";
import type { DocumentPoints } from "./documents.js";
import { QdrantError } from "./errors.js";
import { jsonNumbers, LEAST_LEVEL, RESERVED } from "./points.js";
import type { GenerationEmbedder } from "./source.js";

/** Searches after which passages are counted again: other programs may have added some. */
const RECOUNTED = 1000;
/** Vectors that are asked in one request. */
const BATCH_BYTES = 8 * 2 ** 20;
/** JSON of a component, at most. */
const NUMBER_BYTES = 16;
/** Passages that a level is taken for: enough that the first 64 are among them, all but once in two thousand times. */
const EXPECTED = 96;
/** Twice as many are the rule at most. */
const LARGEST_DRAW = 1024;
const OPERATION = "search";

interface Drawn extends DrawnPassage {
  readonly point: PointId;
  readonly row: Float32Array;
}

interface Known {
  /** Shared by all searches that wait for it. */
  readonly choice: Promise<AutoFusion | undefined>;
  /** Searches that may still use it. */
  left: number;
}

/** What mixes are weighed by, for each of a collection's contexts. */
export class ServerFusion {
  readonly #target: QdrantCollection;
  readonly #documents: DocumentPoints;
  readonly #parameters: object;
  readonly #known = new Map<string, Known>();
  /** As it was chosen or read last. */
  readonly #chosen: Map<string, AutoFusion>;
  /** Passages that there were when a vector's passages were last asked. */
  readonly #askedOf = new Map<string, number>();

  /** @param chosen what the collection's metadata hold */
  constructor(
    target: QdrantCollection,
    documents: DocumentPoints,
    { chosen, parameters }: { readonly chosen: ReadonlyMap<string, AutoFusion>; readonly parameters: object },
  ) {
    this.#target = target;
    this.#documents = documents;
    this.#parameters = parameters;
    // A tenant's falls are its own, and not kept: metadata would grow with the tenants.
    this.#chosen = new Map(documents.tenant === undefined ? chosen : []);
    for (const [vector, { passages }] of this.#chosen) this.#askedOf.set(vector, passages);
  }

  /** What is known of a vector, without asking. */
  known(vector: string): AutoFusion | undefined {
    return this.#chosen.get(vector);
  }

  /** Passages are counted anew before the next choice. */
  recount(): void {
    for (const known of this.#known.values()) known.left = 0;
  }

  /** Chosen when it is first asked for, and anew where the corpus has doubled. Undefined where there is nothing to choose by. */
  async of(
    generation: Pick<GenerationEmbedder, "vector" | "embedder">,
    signal?: AbortSignal,
  ): Promise<AutoFusion | undefined> {
    const { vector } = generation;
    let known = this.#known.get(vector);
    if (!known || known.left < 1) {
      const choice = this.#choose(generation);
      const fresh = { choice, left: RECOUNTED };
      // The next search tries again. Also where nobody waits any more.
      choice.catch(() => this.#known.get(vector) === fresh && this.#known.delete(vector));
      this.#known.set(vector, fresh);
      known = fresh;
    }
    known.left--;
    return await unlessAborted(known.choice, signal);
  }

  async #choose({
    vector,
    embedder,
  }: Pick<GenerationEmbedder, "vector" | "embedder">): Promise<AutoFusion | undefined> {
    const { tenant } = this.#documents;
    const passages = await this.#documents.count(OPERATION, "passages", undefined);
    if (!mustChoose(passages, this.#askedOf.get(vector))) return this.#chosen.get(vector);
    const { strict, fusion, vectors } = await this.#target.state(OPERATION);
    // Dropped meanwhile: what the search itself will find, and say.
    if (!vectors.has(vector)) return this.#chosen.get(vector);
    const other = tenant === undefined ? fusion.get(vector) : undefined;
    // Another program was first.
    if (other && !mustChoose(passages, other.passages)) return this.#keep(vector, other, other.passages);
    // Nobody can look at a hundred passages, so nobody mixes a hundred.
    if (strict.queryLimit < DEPTH) return undefined;
    const neighbours = await this.#neighbours(passages, vector, embedder.dimensions, strict);
    const choice = fusionOf(neighbours, passages);
    if (choice && tenant === undefined) await this.#store(vector, choice);
    return this.#keep(vector, choice, passages);
  }

  #keep(vector: string, choice: AutoFusion | undefined, passages: number): AutoFusion | undefined {
    this.#askedOf.set(vector, passages);
    if (choice) this.#chosen.set(vector, choice);
    else this.#chosen.delete(vector);
    return choice;
  }

  /** The first hundred neighbours of those passages that `drawPassages` draws in memory. */
  async #neighbours(
    passages: number,
    vector: string,
    dimensions: number,
    strict: StrictLimits,
  ): Promise<{ id: string; score: number }[][]> {
    const target = this.#target;
    const filter = this.#documents.passagesWith(vector);
    const searches = (await this.#drawn(passages, vector, dimensions, strict)).map(({ point, row }) => ({
      query: jsonNumbers(row),
      using: vector,
      filter: { ...filter, must_not: [{ has_id: [point] }] },
      limit: DEPTH,
      with_payload: false,
      ...(Object.keys(this.#parameters).length === 0 ? {} : { params: this.#parameters }),
    }));
    const most = Math.min(strict.searchBatch, Math.max(1, Math.floor(BATCH_BYTES / (NUMBER_BYTES * dimensions))));
    return await target.queryAll(OPERATION, searches, most, (found) =>
      found.map(({ id, score }) => ({ id: String(id), score })),
    );
  }

  async #drawn(passages: number, vector: string, dimensions: number, strict: StrictLimits): Promise<Drawn[]> {
    const target = this.#target;
    const unsound = (what: string): QdrantError =>
      new QdrantError("QDRANT_ANSWER", `search: of the passages drawn in "${target.name}", ${what}.`);
    const page = Math.min(LARGEST_DRAW, strict.queryLimit);
    for (let level = Math.max(LEAST_LEVEL, Math.floor(Math.log2(passages / EXPECTED))); ; level--) {
      const drawn: Drawn[] = [];
      const what = {
        filter: this.#documents.passagesWith(vector, level),
        with_payload: { include: [`${RESERVED}.id`, `${RESERVED}.n`] },
        with_vector: [vector],
      };
      for await (const points of target.scroll(OPERATION, what, page, undefined)) {
        for (const { id: point, payload, vectors } of points) {
          const { id, n } = isRecord(payload[RESERVED]) ? payload[RESERVED] : {};
          if (typeof id !== "string" || !Number.isSafeInteger(n)) throw unsound(`the point ${point} names no document`);
          const row = vectors.get(vector);
          const fault = row ? vectorFault(row, dimensions) : "is missing";
          if (!row || fault) throw unsound(`the vector "${vector}" of point ${point} ${fault}`);
          drawn.push({ point, row, document: id, passage: n as number });
        }
        // Written meanwhile, or a page that goes in circles: the draw is large enough by far.
        if (drawn.length >= LARGEST_DRAW) break;
      }
      if (drawn.length < ASKED && level > LEAST_LEVEL) continue;
      if (drawn.length === 0) throw unsound(`there are none, of ${passages} passages`);
      return drawn.sort(inDrawOrder).slice(0, ASKED);
    }
  }

  async #store(vector: string, choice: AutoFusion): Promise<void> {
    try {
      await this.#target.writeFusion(OPERATION, vector, choice);
    } catch (error) {
      // A key that may only read: known to this object alone then.
      if (!(error instanceof QdrantError && (error.status === 401 || error.status === 403))) throw error;
    }
  }
}

/**
 * How rare a word is to the server: the score of the passage that has most of it, over its weight there. 0 for a word that no
 * passage has.
 *
 * @param most above what any passage weighs a word
 * @throws Unsound
 */
export function rarityOf(word: number, found: readonly ScoredAnswer[], most: number): number {
  const [best] = found;
  if (!best) return 0;
  const words = best.sparse.get(WORDS);
  const weight = words?.values[words.indices.indexOf(word)] ?? Number.NaN;
  if (weight > 0 && weight <= most && best.score > 0) return best.score / weight;
  throw new Unsound(`a search for one word gives the score ${best.score} to a point that weighs it ${weight}`);
}

/** The inverse document frequencies of a query's words, as often as it says them; `rarities` in the order of its words. */
export function frequencyMass({ values }: SparseVector, rarities: readonly number[]): number {
  return values.reduce((sum, said, i) => sum + said * (rarities[i] as number), 0);
}

/** What others wait for too, or the abort of one caller. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await work;
  let stop: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
