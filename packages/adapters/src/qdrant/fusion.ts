/**
 * What `fusion: "auto"` has to know and a server doesn't say: how far cosines fall in a collection, measured once by its own
 * searches and kept in its metadata, and how rare the words of a query are, asked with the query.
 */
import type { SparseVector } from "@cde-js/retriever";
import { ASKED, type AutoFusion, DEPTH, fusionOf, mustChoose, vectorFault } from "@cde-js/retriever/backend";
import type { ScoredAnswer } from "./answers.js";
import { type QdrantCollection, type StrictLimits, WORDS } from "./collection.js";
import { Unsound } from "./connection.js";
import type { DocumentPoints } from "./documents.js";
import { QdrantError } from "./errors.js";
import { jsonNumbers } from "./points.js";
import type { GenerationEmbedder } from "./source.js";

/** Searches after which passages are counted again: other programs may have added some. */
const RECOUNTED = 1000;
/** Vectors that are asked in one request. */
const BATCH_BYTES = 8 * 2 ** 20;
/** JSON of a component, at most. */
const NUMBER_BYTES = 16;
const OPERATION = "search";

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
    const { strict, fusion } = await this.#target.state(OPERATION);
    const other = tenant === undefined ? fusion.get(vector) : undefined;
    // Another program was first.
    if (other && !mustChoose(passages, other.passages)) return this.#keep(vector, other, other.passages);
    // Nobody can look at a hundred passages, so nobody mixes a hundred.
    if (strict.queryLimit < DEPTH) return undefined;
    const choice = fusionOf(await this.#neighbours(vector, embedder.dimensions, strict), passages);
    if (choice && tenant === undefined) await this.#store(vector, choice);
    return this.#keep(vector, choice, passages);
  }

  #keep(vector: string, choice: AutoFusion | undefined, passages: number): AutoFusion | undefined {
    this.#askedOf.set(vector, passages);
    if (choice) this.#chosen.set(vector, choice);
    else this.#chosen.delete(vector);
    return choice;
  }

  /** The first hundred neighbours of those passages that `drawPassages` draws in memory: points lie in the order of names. */
  async #neighbours(
    vector: string,
    dimensions: number,
    strict: StrictLimits,
  ): Promise<{ id: string; score: number }[][]> {
    const target = this.#target;
    const filter = this.#documents.passagesWith(vector);
    const what = { filter, with_payload: false, with_vector: [vector] };
    const drawn: { id: string; row: Float32Array }[] = [];
    for await (const points of target.scroll(OPERATION, what, ASKED, undefined)) {
      for (const { id, vectors } of points) {
        const row = vectors.get(vector);
        const fault = row ? vectorFault(row, dimensions) : "is missing";
        if (!row || fault) {
          throw new QdrantError(
            "QDRANT_ANSWER",
            `search: the vector "${vector}" of point ${id} in "${target.name}" ${fault}.`,
          );
        }
        drawn.push({ id: String(id), row });
      }
      break;
    }
    const searches = drawn.map(({ id, row }) => ({
      query: jsonNumbers(row),
      using: vector,
      filter: { ...filter, must_not: [{ has_id: [id] }] },
      limit: DEPTH,
      with_payload: false,
      ...(Object.keys(this.#parameters).length === 0 ? {} : { params: this.#parameters }),
    }));
    const most = Math.min(strict.searchBatch, Math.max(1, Math.floor(BATCH_BYTES / (NUMBER_BYTES * dimensions))));
    return await target.queryAll(OPERATION, searches, most, (found) =>
      found.map(({ id, score }) => ({ id: String(id), score })),
    );
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
