/** Chooses the documents that stand for a corpus: one pass over any stream, in bounded memory. */
import { setImmediate as pause } from "node:timers/promises";
import { comparable, createRandom, type Embedder, InvalidInputError } from "@cde-js/core";
import { DistinctTexts, type PooledText, rankOf } from "./distinct-texts.js";
import { apportion, clusterGroups, embedPool, farthestFirst, type Group, stratumOf } from "./groups.js";
import { byCosine, byShingles, type NearDuplicateFilter } from "./near-duplicates.js";

export type ContextStrategy = "random" | "stratified" | "clusters" | "farthest";

export interface SelectContextOptions<T> {
  /** Documents wanted. */
  readonly size: number;
  /**
   * `random`: each different text equally likely. `stratified`: the same, with each stratum in proportion and none
   * left out. `clusters`: those nearest to the centroids of a k-means. `farthest`: each as unlike all others as can be,
   * so outliers first. @default "random"
   */
  readonly strategy?: ContextStrategy;
  /** Equal seeds choose equal texts, in whatever order and pieces they come. @default 0 */
  readonly seed?: number;
  /** The text of a document. @default a string itself; of an object its `text`, after its `title` if it has one */
  readonly text?: (document: T) => string;
  /** For `stratified`: a path in `metadata` ("source.year"), or a function. */
  readonly stratum?: string | ((document: T) => string | number | boolean | undefined);
  /** Most strata; one more is an error. @default 256 */
  readonly maxStrata?: number;
  /** For `clusters` and `farthest`: embeds the pool. Without a context, it is the first stage of a spectral one. */
  readonly embedder?: Embedder;
  /** For `clusters`. @default an eighth of `size` */
  readonly clusters?: number;
  /** For `clusters`: as many of each as it is large, or equally many. @default "proportional" */
  readonly picks?: "proportional" | "equal";
  /** Different texts, drawn at random, that the choice is made from: bounds memory and embedding. @default 20 · size */
  readonly pool?: number;
  /**
   * Texts as much alike as this count as one: Jaccard similarity of their three-word shingles, or the cosine where
   * vectors are at hand; false keeps all that aren't the same. @default 0.8, cosine 0.95
   */
  readonly nearDuplicate?: number | false;
  /** Where fewer can be used than wanted: take those. Any number makes a spectral context. @default false */
  readonly atMost?: boolean;
  /** Where fewer can be used than wanted: repeat them, each about equally often. @default false */
  readonly repeat?: boolean;
  readonly signal?: AbortSignal;
  /** Documents read, then texts of the pool embedded. */
  readonly onProgress?: (progress: { readonly seen: number; readonly embedded: number }) => void;
}

/** A text as reports show it, cut after 160 characters. */
export interface ContextExample {
  readonly text: string;
  readonly copies: number;
}

export interface ContextChoice<T> {
  /** In the random order of the seed. */
  readonly chosen: T[];
  /** Documents read. */
  readonly seen: number;
  /** Different texts that the choice was made from. */
  readonly pool: number;
  /** Of `chosen`, those at the end that are there a second time. */
  readonly repeated: number;
  /** How many were left out, and why; those of texts outside the pool are not counted, but for `empty`. */
  readonly leftOut: {
    /** Without a letter or digit. */
    readonly empty: number;
    /** The same but for case, punctuation, spaces and numbers as another one, which stays. */
    readonly duplicates: number;
    /** Nearly one that was chosen; counted until enough were found. */
    readonly nearDuplicates: number;
    /** All copies of texts that make up half a percent of the documents, 10 at least: headers, notices, forms. */
    readonly boilerplate: number;
  };
  /** A few of each, the most frequent or most alike first. */
  readonly examples: {
    readonly duplicates: readonly ContextExample[];
    readonly nearDuplicates: readonly { readonly text: string; readonly like: string; readonly similarity: number }[];
    readonly boilerplate: readonly ContextExample[];
  };
  /** Strata or clusters: their documents (of clusters: texts of the pool), and how many of `chosen` are of each. */
  readonly groups: readonly { readonly name: string; readonly size: number; readonly chosen: number }[];
}

const BOILERPLATE_SHARE = 0.005;
const BOILERPLATE_COPIES = 10;
/** Texts kept of each stratum beside the common pool, so that a rare one has some. */
const STRATUM_POOL = 8;
const EXAMPLES = 5;
/** Milliseconds of work after which the event loop gets a turn. */
const TURN = 15;

/**
 * @throws InvalidInputError for what is no document (with its position), where fewer can be used than `size` and
 * neither `atMost` nor `repeat` allows it, and where none can be used
 */
export async function selectContext<T>(
  documents: AsyncIterable<T> | Iterable<T>,
  options: SelectContextOptions<T>,
): Promise<ContextChoice<T>> {
  const { size, strategy = "random", seed = 0, signal, onProgress } = options;
  checkOptions(options);
  const breathe = breather(signal);
  const read = await readPool(documents, options, breathe);
  const { seen, empty, strata } = read;
  const bar = Math.max(BOILERPLATE_COPIES, seen * BOILERPLATE_SHARE);
  const boilerplate = read.texts.filter(({ copies }) => copies >= bar);
  // Where all is repeated, nothing is a notice among texts: each is kept once.
  const none = boilerplate.length === read.texts.length;
  const pool = none ? read.texts : read.texts.filter(({ copies }) => copies < bar);
  const texts = pool.map(({ text }) => text);

  const limit = options.nearDuplicate === false ? Number.POSITIVE_INFINITY : options.nearDuplicate;
  const nearDuplicates: { text: string; like: string; similarity: number }[] = [];
  let chosen: number[] = [];
  let groups: readonly Group[] = [{ name: "all", size: seen - empty, positions: [...pool.keys()] }];
  let left = 0;
  if (strategy === "clusters" || strategy === "farthest") {
    const embedder = options.embedder as Embedder;
    const { dimensions } = embedder;
    const rows = await embedPool(embedder, texts, signal, (embedded) => onProgress?.({ seen, embedded }));
    const cosine = limit ?? 0.95;
    if (strategy === "farthest") {
      chosen = await farthestFirst(rows, dimensions, size, cosine, breathe);
      if (chosen.length < Math.min(size, pool.length)) left = pool.length - chosen.length;
      groups = [];
    } else if (pool.length > 0) {
      const clusters = options.clusters ?? Math.max(1, Math.round(size / 8));
      groups = await clusterGroups(rows, dimensions, clusters, { seed, signal });
      const weights = groups.map((group) => (options.picks === "equal" ? 1 : group.size));
      chosen = await take(groups, apportion(size, weights), size, byCosine(rows, dimensions, cosine));
    }
  } else {
    if (strategy === "stratified") groups = strataGroups(pool, strata);
    const weights = groups.map((group) => group.size);
    chosen = await take(groups, apportion(size, weights, 1), size, byShingles(texts, limit ?? 0.8));
  }
  chosen.sort((a, b) => a - b); // by rank

  async function take(
    of: readonly Group[],
    quotas: readonly number[],
    total: number,
    filter: NearDuplicateFilter,
  ): Promise<number[]> {
    const taken: number[] = [];
    const next = of.map(() => 0);
    /** Takes up to `most` more of a group. */
    const from = async (group: number, most: number): Promise<number> => {
      const { positions } = of[group] as Group;
      let found = 0;
      while (found < most && (next[group] as number) < positions.length) {
        const position = positions[next[group] as number] as number;
        next[group] = (next[group] as number) + 1;
        const twin = filter.take(position);
        if (!twin) found += Math.sign(taken.push(position));
        else {
          left++;
          const { like, similarity } = twin;
          nearDuplicates.push({ text: cut(texts[position]), like: cut(texts[like]), similarity });
          if (nearDuplicates.length > 64) keepMostAlike();
        }
        await breathe();
      }
      return found;
    };
    for (const [group, quota] of quotas.entries()) await from(group, quota);
    // What some groups couldn't give, the others do in turn.
    for (let before = -1; before < taken.length && taken.length < total; ) {
      before = taken.length;
      for (const group of of.keys()) if (taken.length < total) await from(group, 1);
    }
    return taken;
  }

  function keepMostAlike(): void {
    nearDuplicates.sort((a, b) => b.similarity - a.similarity).splice(EXAMPLES);
  }

  keepMostAlike();
  const copiesOf = (list: readonly PooledText<T>[]): number => list.reduce((sum, { copies }) => sum + copies, 0);
  const leftOut = {
    empty,
    duplicates: copiesOf(pool) - pool.length,
    nearDuplicates: left,
    boilerplate: none ? 0 : copiesOf(boilerplate),
  };
  const usable = chosen.length;
  requireSize(usable, options, { seen, pool: pool.length, leftOut });
  const isChosen = new Set(chosen);
  const picked = chosen.map((position) => (pool[position] as PooledText<T>).document);
  const repeats = repeated(picked, usable < size && options.repeat === true ? size - usable : 0, seed);
  return {
    chosen: [...picked, ...repeats],
    seen,
    pool: pool.length,
    repeated: repeats.length,
    leftOut,
    examples: {
      duplicates: mostFrequent(pool.filter(({ copies }) => copies > 1)),
      nearDuplicates,
      boilerplate: none ? [] : mostFrequent(boilerplate),
    },
    groups:
      strategy === "stratified" || strategy === "clusters"
        ? groups.map(({ name, size, positions }) => ({
            name,
            size,
            chosen: positions.filter((position) => isChosen.has(position)).length,
          }))
        : [],
  };
}

interface Pool<T> {
  /** By rank. */
  readonly texts: PooledText<T>[];
  readonly seen: number;
  readonly empty: number;
  /** Documents of each stratum, empty ones aside. */
  readonly strata: ReadonlyMap<string, number>;
}

async function readPool<T>(
  documents: AsyncIterable<T> | Iterable<T>,
  options: SelectContextOptions<T>,
  breathe: () => Promise<void> | undefined,
): Promise<Pool<T>> {
  const { size, strategy, seed = 0, stratum, maxStrata = 256, pool = 20 * size, signal, onProgress } = options;
  const textOf = options.text ?? defaultText;
  const common = new DistinctTexts<T>(pool);
  const strata = new Map<string, { count: number; texts: DistinctTexts<T> }>();
  let [seen, empty] = [0, 0];
  signal?.throwIfAborted();
  for await (const document of documents) {
    const position = seen++;
    const text = textOf(document);
    if (typeof text !== "string") {
      const message = `selectContext: the document at position ${position} has no text but ${text === null ? "null" : `a value of type ${typeof text}`}. Pass strings, objects with a text, or { text: (document) => ... }.`;
      throw new InvalidInputError(message, { position });
    }
    const key = comparable(text);
    if (key === "") empty++;
    else {
      const rank = rankOf(seed, key);
      if (strategy !== "stratified") common.offer(rank, text, document);
      else {
        const name = stratumOf(document, stratum as NonNullable<typeof stratum>, position);
        common.offer(rank, text, document, name);
        let own = strata.get(name);
        if (!own) {
          if (strata.size === maxStrata) {
            throw new InvalidInputError(
              `selectContext: more than ${maxStrata} strata; ${JSON.stringify(name)} at position ${position} is one more. Take a coarser field, or allow more with { maxStrata }.`,
              { position },
            );
          }
          own = { count: 0, texts: new DistinctTexts<T>(STRATUM_POOL) };
          strata.set(name, own);
        }
        own.count++;
        own.texts.offer(rank, text, document, name);
      }
    }
    if (seen % 256 === 0) onProgress?.({ seen, embedded: 0 });
    await breathe();
  }
  onProgress?.({ seen, embedded: 0 });
  const texts = new Map(common.texts().map((text) => [text.rank, text]));
  for (const own of strata.values()) {
    for (const text of own.texts.texts()) if (!texts.has(text.rank)) texts.set(text.rank, text);
  }
  return {
    texts: [...texts.values()].sort((a, b) => (a.rank < b.rank ? -1 : 1)),
    seen,
    empty,
    strata: new Map([...strata].map(([name, { count }]) => [name, count])),
  };
}

/** By name, so that their order isn't that of the stream. */
function strataGroups<T>(pool: readonly PooledText<T>[], strata: ReadonlyMap<string, number>): Group[] {
  const positions = new Map([...strata.keys()].map((name) => [name, [] as number[]]));
  for (const [position, { stratum }] of pool.entries()) positions.get(stratum as string)?.push(position);
  return [...strata]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, size]) => ({ name, size, positions: positions.get(name) as number[] }));
}

function checkOptions<T>(options: SelectContextOptions<T>): void {
  const { strategy = "random", embedder, stratum, nearDuplicate } = options;
  const fail = (what: string): never => {
    throw new InvalidInputError(`selectContext: ${what}`);
  };
  if (!["random", "stratified", "clusters", "farthest"].includes(strategy)) {
    fail(`there is no strategy ${JSON.stringify(strategy)}; there are random, stratified, clusters and farthest.`);
  }
  for (const name of ["size", "maxStrata", "clusters", "pool"] as const) {
    const value = options[name];
    if (value === undefined && name !== "size") continue;
    if (!Number.isSafeInteger(value) || (value as number) < 1)
      fail(`${name} must be a positive integer, got ${value}.`);
  }
  const { size, pool = size } = options;
  if (pool < size) fail(`a pool of ${pool} texts can't give ${size}.`);
  const byVectors = strategy === "clusters" || strategy === "farthest";
  if (byVectors && !embedder) {
    fail(`${strategy} needs vectors: pass { embedder }, such as encoder.withoutContext().`);
  }
  if ((strategy === "stratified") !== (stratum !== undefined)) {
    fail(
      `strategy "${strategy}" with${stratum === undefined ? "out" : ""} a stratum; stratified needs one, others don't.`,
    );
  }
  createRandom(options.seed ?? 0); // refuses what is no seed
  if (options.atMost && options.repeat) fail("atMost and repeat exclude each other; give one.");
  if (nearDuplicate !== undefined && nearDuplicate !== false && !(nearDuplicate > 0 && nearDuplicate <= 1)) {
    fail(`nearDuplicate must be above 0 and at most 1, or false; got ${nearDuplicate}.`);
  }
}

function requireSize<T>(
  usable: number,
  { size, atMost, repeat, pool = 20 * size }: SelectContextOptions<T>,
  found: Pick<ContextChoice<T>, "seen" | "pool" | "leftOut">,
): void {
  if (usable >= size) return;
  const { empty, duplicates, nearDuplicates, boilerplate } = found.leftOut;
  const counts = `of ${found.seen} read: ${empty} empty, ${duplicates} duplicates, ${nearDuplicates} nearly so, ${boilerplate} boilerplate`;
  if (usable === 0) throw new InvalidInputError(`selectContext: no document can be used (${counts}).`);
  if (atMost || repeat) return;
  const larger = found.pool >= pool ? `, a larger { pool } than ${pool}` : "";
  throw new InvalidInputError(
    `selectContext: ${size} context documents are wanted, ${usable} can be used (${counts}). Pass more${larger}, { atMost: true } to take those there are, or { repeat: true } to repeat them.`,
  );
}

function repeated<T>(documents: readonly T[], count: number, seed: number): T[] {
  const random = createRandom(seed);
  const repeats: T[] = [];
  while (repeats.length < count) repeats.push(...random.shuffle(documents).slice(0, count - repeats.length));
  return repeats;
}

function mostFrequent<T>(texts: readonly PooledText<T>[]): ContextExample[] {
  const sorted = [...texts].sort((a, b) => b.copies - a.copies || (a.rank < b.rank ? -1 : 1));
  return sorted.slice(0, EXAMPLES).map(({ text, copies }) => ({ text: cut(text), copies }));
}

function cut(text = ""): string {
  return text.length > 160 ? `${text.slice(0, 160).toWellFormed()}…` : text;
}

function defaultText(document: unknown): string {
  if (typeof document === "string") return document;
  const { title, text } = Object(document) as { title?: unknown; text?: unknown };
  return typeof title === "string" && title.trim() !== "" && typeof text === "string"
    ? `${title.trim()} ${text}`
    : (text as string);
}

function breather(signal: AbortSignal | undefined): () => Promise<void> | undefined {
  let turn = performance.now();
  return () => {
    if (performance.now() - turn < TURN) return undefined;
    return pause().then(() => {
      signal?.throwIfAborted();
      turn = performance.now();
    });
  };
}
