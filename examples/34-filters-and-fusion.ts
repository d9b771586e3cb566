/**
 * Hybrid search: meaning and words in one ranking, filters, diversity, highlights. No server is needed for any of it.
 */
import {
  ContextualEncoder,
  CorpusIndex,
  describeFusion,
  type Filter,
  filters,
  modelDirectory,
  type SearchOptions,
} from "cde-js";

const machines = ["washer", "dryer", "dishwasher"];
const faults = [
  ["E1", "the door is open. Close it until it clicks."],
  ["E4", "no water flows in. Open the tap and clean the sieve of the hose."],
  ["E7", "the water does not run off. Clean the filter behind the lower cover."],
  ["E9", "the motor is overheated. Let it cool down for an hour."],
];
const documents = machines.flatMap((machine, m) =>
  faults.map(([code, text]) => ({
    id: `${machine}-${code}`,
    text: `Error ${code} of the ${machine}: ${text}`,
    metadata: { machine, year: 2022 + m },
  })),
);

await using encoder = await ContextualEncoder.load(modelDirectory);
const context = await encoder.buildContext(documents.map(({ text }) => text));
await using index = await CorpusIndex.build(encoder.withContext(context), documents);

// A manual of a dozen passages is too small to choose by; from 500 on, each query gets a weight of its own.
console.log(describeFusion(index.fusion));

async function show(name: string, query: string, options: SearchOptions): Promise<void> {
  const hits = await index.search(query, { k: 2, ...options });
  console.log(`${name}: ${hits.map(({ id, score, scoring }) => `${id} (${scoring} ${score.toFixed(2)})`).join(", ")}`);
}

// A code is a word that vectors blur; "it is too hot" shares no word with its answer.
for (const query of ["E4", "it is too hot"]) {
  for (const mode of ["dense", "lexical", "hybrid"] as const) await show(`"${query}", ${mode}`, query, { mode });
}
await show("reciprocal ranks", "E4", { fusion: { kind: "rrf", k: 60 } });

// The same filter as Qdrant's JSON, and by functions.
const json: Filter = { must: [{ key: "machine", match: { value: "dryer" } }], must_not: [{ has_id: ["dryer-E1"] }] };
const byFunctions = filters.and(filters.match("machine", "dryer"), filters.not(filters.hasId("dryer-E1")));
await show("dryers only", "no water", { filter: json });
await show("the same", "no water", { filter: byFunctions });
await show("three machines rather than one", "error E7", { k: 3, mmr: { lambda: 0.5 } });

const [hit] = await index.search("clean the filter", { k: 1, highlight: true });
const words = hit?.highlights?.map(({ start, end }) => hit.text.slice(start, end));
console.log(`${hit?.id}: ${words?.join(", ")}`);
