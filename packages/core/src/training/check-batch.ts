/** Refuses batches that would teach something else than was meant. */
import { InvalidInputError } from "../errors.js";
import type { TrainingBatch } from "./batch.js";

/** Raises InvalidInputError that names data set and pair. */
export function checkBatch({ dataset, pairs, falseNegatives }: TrainingBatch): void {
  const refuse = (what: string, position?: number) =>
    new InvalidInputError(`training: a batch of "${dataset}" ${what}`, position === undefined ? {} : { position });
  if (pairs.length === 0) throw refuse("is empty.");
  const owner = new Map<string, string>();
  for (const [position, { id, query, positive, negatives }] of pairs.entries()) {
    const sides = [
      ["query", query],
      ["positive", positive],
      ...negatives.map((negative) => ["negative", negative] as const),
    ] as const;
    for (const [side, text] of sides) {
      if (typeof text !== "string" || text.trim() === "") {
        throw refuse(`has the pair "${id}" with an empty ${side}. Leave the pair out.`, position);
      }
    }
    if (query === positive) {
      throw refuse(`has the pair "${id}" whose query is its positive: nothing is to be learned from it.`, position);
    }
    for (const document of [positive, ...negatives]) {
      const other = owner.get(document);
      if (other !== undefined) {
        throw refuse(
          `has a document twice, with the pairs "${other}" and "${id}": it would count against its own query.`,
          position,
        );
      }
      owner.set(document, id);
    }
  }
  if (owner.size < 2) throw refuse(`holds one document, so there is nothing to contrast.`);
  if (falseNegatives && falseNegatives.length !== pairs.length * owner.size) {
    throw refuse(
      `has ${pairs.length} pairs and ${owner.size} documents, so falseNegatives needs ${pairs.length * owner.size} entries, got ${falseNegatives.length}.`,
    );
  }
}
