/**
 * Legal search on Qdrant: two law firms in one collection, filters over metadata, words and meaning together, and a
 * change of context without downtime. It runs offline against the double of a server that our tests use; with QDRANT_URL
 * (and QDRANT_API_KEY) it runs against yours.
 */
import { type QdrantBackendOptions, qdrant } from "@cde-js/adapters/qdrant";
import { QdrantDouble } from "@cde-js/adapters/testing";
import { ContextualEncoder, type CorpusDocument, CorpusIndex, filters, modelDirectory } from "cde-js";

const { QDRANT_URL, QDRANT_API_KEY } = process.env;
await using double = QDRANT_URL ? undefined : await QdrantDouble.start();
const collection = `legal-search-${process.pid}`;

const decisions: [id: string, court: string, year: number, text: string][] = [
  ["a-1", "supreme", 2021, "A landlord who was warned of the leaking roof pays for what the flood has damaged."],
  ["a-2", "appeals", 2016, "The tenant who kept a dog against the lease was given notice rightly."],
  ["a-3", "district", 2019, "The insurer may not refuse the claim because the premium came two days late."],
  ["a-4", "appeals", 2022, "Water that rises through the floor is a flood in the sense of the policy."],
  ["a-5", "supreme", 2011, "Notice by electronic mail ends a lease only where the lease provides for it."],
  ["a-6", "district", 2023, "A burst pipe is no flood, and the exclusion in the policy does not apply."],
];
const ofFirm = (firm: string): CorpusDocument[] =>
  decisions.map(([id, court, year, text]) => ({ id, text, title: `Decision ${id}`, metadata: { firm, court, year } }));

await using encoder = await ContextualEncoder.load(modelDirectory);
const texts = decisions.map(([, , , text]) => text);
const context = await encoder.buildContext(texts);
const embedder = encoder.withContext(context);

// 1. A collection for several tenants. What filters ask for is indexed before the first write.
const options: QdrantBackendOptions = {
  url: QDRANT_URL ?? (double as QdrantDouble).url,
  ...(QDRANT_API_KEY ? { apiKey: QDRANT_API_KEY } : {}),
  collection,
  tenants: true,
  payloadIndexes: { court: "keyword", year: "integer" },
};
const ofTenant = (tenant: string) => ({ backend: qdrant({ ...options, tenant }) });
// Without the last argument, these would be indexes in memory.
await using north = await CorpusIndex.build(embedder, ofFirm("north"), ofTenant("north"));
await using south = await CorpusIndex.build(embedder, ofFirm("south").slice(0, 2), ofTenant("south"));
const [{ documents: mine }, { documents: theirs }] = [await north.counts(), await south.counts()];
console.log(`north has ${mine} decisions, south has ${theirs}`);

// 2. The same search, filters and hits as of an embedded CorpusIndex.
const question = "does the insurance pay when a pipe has burst?";
const filter = filters.and(filters.range("year", { gte: 2015 }), filters.not(filters.match("court", "supreme")));
for (const { id, text, metadata, score } of await north.search(question, { k: 2, filter })) {
  console.log(`${score.toFixed(2)} ${id} (${metadata.court}, ${metadata.year}): ${text}`);
}
const others = await south.search(question, { k: 10 });
console.log(`south finds among its own only: ${others.every(({ metadata }) => metadata.firm === "south")}`);

// 3. Another context: filled beside the first, checked, switched to; and back. Nothing is embedded again: it is mapped
// from base vectors that lie on the server.
const next = await encoder.buildContext(texts.slice(0, 4));
await north.recontext({ embedder: encoder.withContext(next) });
console.log(`north answers in its new context: ${(await north.search(question, { k: 1 }))[0]?.id}`);
await CorpusIndex.open(embedder, ofTenant("south")).catch((error: Error) => {
  console.log(`the old context is refused now: ${error.name}`);
});
await north.rollback();
await north.dropPrevious();
console.log(`and back: ${(await north.search(question, { k: 1 }))[0]?.id}`);

if (QDRANT_URL) {
  const headers = QDRANT_API_KEY ? { "api-key": QDRANT_API_KEY } : undefined;
  await fetch(new URL(`/collections/${collection}`, QDRANT_URL), { method: "DELETE", ...(headers ? { headers } : {}) });
}
