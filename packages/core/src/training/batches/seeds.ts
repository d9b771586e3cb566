/** Seeds for each purpose, epoch and data set from the one that the caller gave, so that no two share a stream. */
import { createRandom, type Random } from "../../random.js";
import { keyOf } from "../data/text-key.js";

/** An integer of 52 bits. */
export function pairSeed(purpose: string, ...parts: readonly (string | number)[]): number {
  return keyOf(JSON.stringify([purpose, ...parts]));
}

export function pairRandom(purpose: string, ...parts: readonly (string | number)[]): Random {
  return createRandom(pairSeed(purpose, ...parts));
}
