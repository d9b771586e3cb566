/** Splits a pair set into training and development pairs, so that nothing of the one is nearly in the other. */
import { InvalidInputError } from "../../errors.js";
import { createRandom } from "../../random.js";
import { leakGroups } from "./leak-groups.js";
import type { PairSet } from "./pair-set.js";

export interface SplitOptions {
  /** Development pairs: a share below 1, or a number of pairs. Whole groups come near it, never above. @default 0.05 */
  readonly dev?: number;
  /** Of the order in which groups are taken. @default 0 */
  readonly seed?: number;
  /**
   * What keeps pairs together beside their `group`: `"both"` the same query or the same positive, or one of the two.
   * Where every query has many positives and every positive many queries, `"both"` makes one group of all.
   * @default "both"
   */
  readonly by?: "both" | "query" | "document";
  /**
   * Positives at least this much alike (Jaccard similarity of three-word shingles, above 0 to 1) stay together too;
   * `false` compares none. @default 0.8, and false with `by: "query"`
   */
  readonly nearDuplicate?: number | false;
  readonly signal?: AbortSignal;
}

export interface PairSplit {
  readonly train: PairSet;
  readonly dev: PairSet;
  /** Groups that were kept together, pairs alone included. */
  readonly groups: number;
  /** Pairs of the largest one. */
  readonly largestGroup: number;
  /** Different positives that were found to be nearly another one. */
  readonly nearDuplicates: number;
}

/**
 * Groups in random order go to the development pairs as long as they fit; all others train. Both keep the order of
 * `pairs`.
 *
 * @throws InvalidInputError where groups are so large that less than half of the development pairs wanted can be taken
 */
export async function splitPairs(pairs: PairSet, options: SplitOptions = {}): Promise<PairSplit> {
  const { dev = 0.05, seed = 0, by = "both", signal } = options;
  const { nearDuplicate = by === "query" ? false : 0.8 } = options;
  const fail = (what: string): never => {
    throw new InvalidInputError(`splitPairs: ${what}`);
  };
  const wanted = dev < 1 ? Math.round(dev * pairs.size) : dev;
  if (!(dev > 0) || !Number.isSafeInteger(wanted)) {
    fail(`dev must be a share between 0 and 1 or a number of pairs, got ${dev}.`);
  }
  if (wanted < 1 || wanted >= pairs.size) fail(`${wanted} development pairs of ${pairs.size} leave one side empty.`);
  if (!["both", "query", "document"].includes(by)) fail(`by must be both, query or document, got ${by}.`);
  if (nearDuplicate !== false && !(nearDuplicate > 0 && nearDuplicate <= 1)) {
    fail(`nearDuplicate must be above 0 and at most 1, or false; got ${nearDuplicate}.`);
  }
  const random = createRandom(seed);
  const { groupOf, sizes, nearDuplicates } = await leakGroups(pairs, {
    queries: by !== "document",
    documents: by !== "query",
    nearDuplicate,
    signal,
  });
  const taken = new Uint8Array(sizes.length);
  let count = 0;
  for (const group of random.shuffle(sizes.keys())) {
    if (count + sizes[group]! > wanted) continue;
    taken[group] = 1;
    count += sizes[group]!;
    if (count === wanted) break;
  }
  const largestGroup = sizes.reduce((most, size) => Math.max(most, size), 0);
  if (count * 2 < wanted) {
    fail(
      `of ${wanted} development pairs wanted only ${count} can be taken: ${sizes.length} groups, the largest of ${largestGroup} pairs, share texts. Keep together less with { by: "query" } or { by: "document" }, raise nearDuplicate, or split by hand.`,
    );
  }
  const positions = (side: 0 | 1): Uint32Array =>
    Uint32Array.from({ length: pairs.size }, (_, i) => i).filter((i) => taken[groupOf[i]!] === side);
  return {
    train: pairs.select(positions(0)),
    dev: pairs.select(positions(1)),
    groups: sizes.length,
    largestGroup,
    nearDuplicates,
  };
}
