/** Mines hard negatives: documents that the surrogate finds near to a query and that are none of its positives. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { InvalidInputError } from "../../errors.js";
import { type LoadedRows, MatrixRuntime } from "../../k-means/matrix-runtime.js";
import { canonicalJson, sha256Hex } from "../../model/digest.js";
import { createRandom } from "../../random.js";
import type { RuntimeOptions } from "../../runtime/runtime.js";
import type { TrainingPair } from "../batch.js";
import type { PairSet } from "../data/pair-set.js";
import { textKey } from "../data/text-key.js";
import { CorpusTexts } from "./corpus-texts.js";
import { KnownPositives } from "./known-positives.js";
import { MiningOutput } from "./mining-output.js";
import { pairRandom } from "./seeds.js";
import { type AnySurrogate, toSurrogate } from "./surrogate.js";
import { type Candidate, TopLists } from "./top-lists.js";
import { openVectors, type VectorSource } from "./vector-cache.js";

export interface MineOptions {
  readonly surrogate: AnySurrogate;
  /** Folder for vectors. @default `surrogates` in the pair set's folder */
  readonly cache?: string;
  /** Texts to search, read once. @default the different positives of the pair set */
  readonly corpus?: AsyncIterable<string> | Iterable<string>;
  /** New hard negatives of a pair at most. @default 5 */
  readonly negatives?: number;
  /**
   * Which of the nearest documents may be taken, counted from 0 after the query's positives are left out: from `from`
   * to before `to`. The very nearest are often unjudged positives. @default { from: 0, to: 100 }
   */
  readonly ranks?: { readonly from: number; readonly to: number };
  /** A negative's score is at most the positive's less this. @default no such rule */
  readonly absoluteMargin?: number;
  /** A negative's score is at most this share below the positive's: 0.05 for 95 % of it. @default 0.05 */
  readonly relativeMargin?: number | false;
  /** @default no such rule */
  readonly minScore?: number;
  /** @default no such rule */
  readonly maxScore?: number;
  /** Of what the rules leave: the nearest ones, or any at random. @default "top" */
  readonly sampling?: "top" | "random";
  /** Of the draw. @default 0 */
  readonly seed?: number;
  /** Bytes of corpus vectors that are compared at once; more are read again for each slice of pairs. @default 1 GiB */
  readonly maxCorpusBytes?: number;
  readonly runtime?: RuntimeOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: MineProgress) => void;
}

export interface MineProgress {
  readonly phase: "embedding" | "searching";
  /** Documents while embedding, pairs while searching. */
  readonly done: number;
  readonly total: number;
}

export interface MineReport {
  readonly pairs: number;
  /** Documents that were searched. */
  readonly documents: number;
  /** New hard negatives in all. */
  readonly mined: number;
  /** Pairs that got none. */
  readonly pairsWithout: number;
  /** Candidates in the range of ranks that a margin or a bound on the score refused. */
  readonly refused: number;
  /** Mean score of the new hard negatives, and of the pairs' own positives. */
  readonly meanNegativeScore: number;
  readonly meanPositiveScore: number;
  /** Pairs that an interrupted run had finished. */
  readonly resumedFrom: number;
}

interface Counts {
  readonly mined: number;
  readonly pairsWithout: number;
  readonly refused: number;
  readonly negativeScores: number;
  readonly positiveScores: number;
}

/** Pairs that are searched together and written at once: an interruption costs no more. */
const SLICE = 4096;
/** Queries of one product. */
const QUERIES = 512;
/** Documents that are read at once. */
const READ = 2048;

/**
 * Writes a JSONL file that `readPairsJsonl` reads: every pair with its hard negatives and the new ones behind them. The
 * search is exact. An interrupted run leaves what it has beside the file, and the same call goes on from there.
 *
 * @throws InvalidInputError for options that don't fit, a file that is there, or what a run of other settings left
 */
export async function mineHardNegatives(pairs: PairSet, path: string, options: MineOptions): Promise<MineReport> {
  const rules = checkRules(options);
  const surrogate = toSurrogate(options.surrogate);
  const { maxCorpusBytes = 2 ** 30, signal, onProgress } = options;
  await using vectors = await openVectors(options.cache ?? join(pairs.folder, "surrogates"), surrogate, { signal });
  await using corpus = await CorpusTexts.from(path, options.corpus ?? positivesOf(pairs), signal);
  const digest = sha256Hex(
    canonicalJson({
      version: 1,
      pairs: pairs.digest,
      surrogate: surrogate.digest,
      rules: { ...rules, ranks: { ...rules.ranks } },
      corpus: createHash("sha256").update(new Uint8Array(corpus.keys.slice().buffer)).digest("hex"),
    }),
  );
  const output = await MiningOutput.open<Counts>(path, digest);
  try {
    for (let from = 0; from < corpus.size; from += READ) {
      signal?.throwIfAborted();
      const to = Math.min(corpus.size, from + READ);
      await vectors.ensure(await corpus.slice(from, to), "document", signal);
      onProgress?.({ phase: "embedding", done: to, total: corpus.size });
    }
    await vectors.read(await corpus.slice(0, 1), "document", signal); // a file's dimension is known after its first vector
    await using runtime = await MatrixRuntime.start(options.runtime);
    await using search = new CorpusSearch(corpus, vectors, runtime, maxCorpusBytes, signal);
    const known = new KnownPositives(pairs);
    const resumedFrom = output.resumed?.done ?? 0;
    let counts: Counts = output.resumed?.counts ?? NONE;
    for (let from = resumedFrom; from < pairs.size; from += SLICE) {
      const to = Math.min(pairs.size, from + SLICE);
      const positions = Array.from({ length: to - from }, (_, i) => from + i);
      const read = await pairs.read(positions);
      const excluded = positions.map((position, i) => {
        const { query, negatives } = read[i]!;
        return new Set([...known.of(position), textKey(query), ...negatives.map(textKey)]);
      });
      const queries = await vectors.read(
        read.map(({ query }) => query),
        "query",
        signal,
      );
      const positives = await vectors.read(
        read.map(({ positive }) => positive),
        "document",
        signal,
      );
      const most = excluded.reduce((largest, { size }) => Math.max(largest, size), 0);
      const lists = await search.nearest(queries, Math.min(corpus.size, rules.ranks.to + most));
      const chosen = positions.map((position, i) => {
        const positiveScore = dot(queries, positives, i, vectors.dimensions);
        const candidates = lists.list(i).filter(({ row }) => !excluded[i]!.has(corpus.textKey(row)));
        return { positiveScore, ...choose(candidates, positiveScore, rules, position) };
      });
      const texts = await corpus.texts(chosen.flatMap(({ taken }) => taken.map(({ row }) => row)));
      let lines = "";
      for (const [i, { positiveScore, taken, refused }] of chosen.entries()) {
        const mined = taken.map(({ row }) => texts.get(row)!);
        lines += `${JSON.stringify(lineOf(read[i]!, pairs.datasetOf(positions[i]!), mined))}\n`;
        counts = {
          mined: counts.mined + taken.length,
          pairsWithout: counts.pairsWithout + (taken.length === 0 ? 1 : 0),
          refused: counts.refused + refused,
          negativeScores: taken.reduce((sum, { score }) => sum + score, counts.negativeScores),
          positiveScores: counts.positiveScores + positiveScore,
        };
      }
      await output.append(lines, { done: to, counts });
      onProgress?.({ phase: "searching", done: to, total: pairs.size });
    }
    await output.finish();
    return {
      pairs: pairs.size,
      documents: corpus.size,
      mined: counts.mined,
      pairsWithout: counts.pairsWithout,
      refused: counts.refused,
      meanNegativeScore: counts.negativeScores / Math.max(1, counts.mined),
      meanPositiveScore: counts.positiveScores / pairs.size,
      resumedFrom,
    };
  } catch (error) {
    await output.leave();
    throw error;
  }
}

const NONE: Counts = { mined: 0, pairsWithout: 0, refused: 0, negativeScores: 0, positiveScores: 0 };

async function* positivesOf(pairs: PairSet): AsyncGenerator<string> {
  for await (const { positive } of pairs.pairs()) yield positive;
}

function lineOf({ id, query, positive, negatives }: TrainingPair, dataset: string, mined: readonly string[]) {
  const all = [...negatives, ...mined];
  return { id, dataset, query, positive, ...(all.length > 0 && { negatives: all }) };
}

function dot(a: Float32Array, b: Float32Array, i: number, dimensions: number): number {
  let sum = 0;
  for (let d = i * dimensions; d < (i + 1) * dimensions; d++) sum += a[d]! * b[d]!;
  return sum;
}

/** Exact search: the corpus's vectors in the runtime, all of them or one part after the other. */
class CorpusSearch implements AsyncDisposable {
  readonly #corpus: CorpusTexts;
  readonly #vectors: VectorSource;
  readonly #runtime: MatrixRuntime;
  readonly #part: number;
  readonly #signal: AbortSignal | undefined;
  #loaded: { readonly first: number; readonly rows: LoadedRows } | undefined;

  constructor(
    corpus: CorpusTexts,
    vectors: VectorSource,
    runtime: MatrixRuntime,
    maxBytes: number,
    signal: AbortSignal | undefined,
  ) {
    this.#corpus = corpus;
    this.#vectors = vectors;
    this.#runtime = runtime;
    this.#part = Math.max(READ, Math.floor(maxBytes / (4 * vectors.dimensions)));
    this.#signal = signal;
  }

  /** The `size` nearest documents of each query. */
  async nearest(queries: Float32Array, size: number): Promise<TopLists> {
    const { dimensions } = this.#vectors;
    const count = queries.length / dimensions;
    const lists = new TopLists(count, size);
    for (let first = 0; first < this.#corpus.size; first += this.#part) {
      const rows = await this.#load(first);
      for (let query = 0; query < count; query += QUERIES) {
        const block = queries.slice(query * dimensions, (query + QUERIES) * dimensions);
        for await (const found of rows.productBlocks(block, this.#signal)) {
          lists.add(found.products, first + found.first, query, block.length / dimensions);
        }
      }
    }
    return lists;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loaded?.rows.drop();
  }

  async #load(first: number): Promise<LoadedRows> {
    if (this.#loaded?.first === first) return this.#loaded.rows;
    await this.#loaded?.rows.drop();
    this.#loaded = undefined;
    const { dimensions } = this.#vectors;
    const end = Math.min(this.#corpus.size, first + this.#part);
    const packed = new Float32Array((end - first) * dimensions);
    for (let from = first; from < end; from += READ) {
      const texts = await this.#corpus.slice(from, Math.min(end, from + READ));
      packed.set(await this.#vectors.read(texts, "document", this.#signal), (from - first) * dimensions);
    }
    const rows = await this.#runtime.load(packed, dimensions);
    this.#loaded = { first, rows };
    return rows;
  }
}

type Rules = ReturnType<typeof checkRules>;

function checkRules(options: MineOptions) {
  const { negatives = 5, ranks = { from: 0, to: 100 }, absoluteMargin = null, relativeMargin = 0.05 } = options;
  const { minScore = null, maxScore = null, sampling = "top", seed = 0, maxCorpusBytes = 1 } = options;
  const fail = (what: string): never => {
    throw new InvalidInputError(`mineHardNegatives: ${what}`);
  };
  for (const [name, value] of Object.entries({ negatives, "ranks.to": ranks.to, maxCorpusBytes })) {
    if (!Number.isSafeInteger(value) || value < 1) fail(`${name} must be an integer of at least 1, got ${value}.`);
  }
  if (!Number.isSafeInteger(ranks.from) || ranks.from < 0 || ranks.from >= ranks.to) {
    fail(`ranks must go from an integer of at least 0 to a larger one, got ${ranks.from} to ${ranks.to}.`);
  }
  for (const [name, value] of Object.entries({ absoluteMargin, relativeMargin, minScore, maxScore })) {
    if (value !== null && value !== false && !(typeof value === "number" && value >= -2 && value <= 2)) {
      fail(`${name} must be a number from -2 to 2, got ${value}.`);
    }
  }
  if (sampling !== "top" && sampling !== "random") fail(`sampling must be top or random, got ${sampling}.`);
  createRandom(seed); // refuses what is no seed
  return { negatives, ranks, absoluteMargin, relativeMargin, minScore, maxScore, sampling, seed };
}

function choose(
  candidates: readonly Candidate[],
  positiveScore: number,
  { negatives, ranks, absoluteMargin, relativeMargin, minScore, maxScore, sampling, seed }: Rules,
  position: number,
): { taken: Candidate[]; refused: number } {
  const inRange = candidates.slice(ranks.from, ranks.to);
  const bars = [
    maxScore ?? Number.POSITIVE_INFINITY,
    absoluteMargin === null ? Number.POSITIVE_INFINITY : positiveScore - absoluteMargin,
    // Of its size: where the positive's score is below 0, the bar is below it too.
    relativeMargin === false ? Number.POSITIVE_INFINITY : positiveScore - relativeMargin * Math.abs(positiveScore),
  ];
  const bar = Math.min(...bars);
  const left = inRange.filter(({ score }) => score <= bar && score >= (minScore ?? Number.NEGATIVE_INFINITY));
  const random = sampling === "random" && left.length > negatives;
  const taken = random
    ? pairRandom("mine", seed, position)
        .sample(left.length, negatives)
        .sort((a, b) => a - b)
        .map((at) => left[at]!)
    : left.slice(0, negatives);
  return { taken, refused: inRange.length - left.length };
}
