/** Which passages a context is made of: strategies, what is left out and why, and an index that chooses by itself. */
import { ContextualEncoder, CorpusIndex, modelDirectory, selectContext } from "cde-js";

const rooms = ["kitchen", "bathroom", "cellar", "attic", "hall", "garage"];
const duties = ["swept every week", "heated in winter", "aired every day", "painted once in five years"];
const lease = rooms.flatMap((room) =>
  duties.map((duty) => ({ id: `lease-${room}-${duty}`, text: `The ${room} has to be ${duty}.`, kind: "lease" })),
);
const sales = ["ship", "grain", "engine"].map((thing) => ({
  id: `sale-${thing}`,
  text: `Risk in the ${thing} passes to the buyer on delivery.`,
  kind: "sale",
}));
const footers = Array.from({ length: 12 }, (_, i) => ({
  id: `footer-${i}`,
  text: "Page 1 of 9. Confidential.",
  kind: "lease",
}));
const documents = [...lease, ...sales, ...footers, { id: "blank", text: " - ", kind: "lease" }];

await using encoder = await ContextualEncoder.load(modelDirectory);

// At random, each kind in proportion and none left out; the footer on every page says nothing, and isn't taken.
const byKind = await selectContext(documents, {
  size: 12,
  strategy: "stratified",
  stratum: ({ kind }) => kind,
  seed: 1,
});
console.log(`${byKind.chosen.length} of ${byKind.seen}; left out: ${JSON.stringify(byKind.leftOut)}`);
for (const { name, size, chosen } of byKind.groups) console.log(`  ${name}: ${chosen} of ${size}`);

// The middle of each cluster of their vectors, or those that are least like each other.
for (const strategy of ["clusters", "farthest"] as const) {
  const { chosen } = await selectContext(documents, { size: 4, strategy, embedder: encoder.withoutContext(), seed: 1 });
  console.log(`${strategy}: ${chosen.map(({ id }) => id).join("; ")}`);
}

// The same inside an index, which reads its source twice: once to choose, once to embed.
await using index = await CorpusIndex.fromCorpus(
  encoder,
  () => documents.map(({ id, text, kind }) => ({ id, text, metadata: { kind } })),
  { contextSize: 16, strategy: "stratified", stratum: "kind" },
);
console.log(`a context of ${index.context?.size} passages, fingerprint ${index.fingerprint.slice(0, 12)}`);
