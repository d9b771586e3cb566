/** When a corpus has moved away from its context: measure it, take a new context, and return if that was no good. */
import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";

const sentences = (things: readonly string[], places: readonly string[]) =>
  things.flatMap((thing, i) =>
    places.map((place, j) => ({ id: `${thing} ${i}-${j}`, text: `The ${thing} ${place}.` })),
  );
const coffee = sentences(
  [
    "espresso machine",
    "grinder",
    "milk frother",
    "drip tray",
    "water tank",
    "bean hopper",
    "brewing group",
    "portafilter",
  ],
  [
    "is cleaned every day",
    "was repaired last week",
    "leaks when it is hot",
    "needs a new gasket",
    "is covered by warranty",
  ],
);
const sailing = sentences(
  ["mainsail", "anchor", "rudder", "compass", "keel", "harbour pilot", "bilge pump", "lighthouse"],
  [
    "was inspected in spring",
    "failed in the storm",
    "is replaced at sea",
    "is checked before every trip",
    "needs the captain",
  ],
);

await using encoder = await ContextualEncoder.load(modelDirectory);
await using index = await CorpusIndex.fromCorpus(encoder, () => coffee);

const describe = async (when: string) => {
  const { drift, documents } = await index.drift();
  console.log(
    `${when}: ${documents.added} documents added, drift ${drift === undefined ? "not known" : drift.toFixed(1)}`,
  );
};
await index.upsert(coffee.map(({ id, text }) => ({ id: `again ${id}`, text: text.replace("The", "This") })));
await describe("more of the same");
await index.delete({ ids: coffee.map(({ id }) => `again ${id}`) });
await index.upsert(sailing);
await describe("another subject");

// A new context from the documents of now. The vectors that are kept are mapped anew; nothing is embedded.
const judged = [
  { query: "what broke in bad weather?", relevant: { "mainsail 0-1": 1, "anchor 1-1": 1, "rudder 2-1": 1 } },
  { query: "what is washed daily?", relevant: { "espresso machine 0-0": 1, "grinder 1-0": 1 } },
];
const { before, after, embedded } = await index.recontext({ judged });
console.log(
  `nDCG@10 ${before.ndcg10?.toFixed(2)} before, ${after.ndcg10?.toFixed(2)} now; embedded again: ${embedded}`,
);
await describe("with the new context");

await index.rollback();
console.log(`rolled back to the first context: ${index.fingerprint === before.fingerprint}`);
