/**
 * A legal corpus searched by meaning: the texts of the SPDX licence list, on your processor, offline.
 * `npm run demo` builds the repository and runs this.
 */
import {
  ContextualEncoder,
  type CorpusDocument,
  CorpusIndex,
  createRandom,
  describeCalibration,
  modelDirectory,
  splitText,
} from "cde-js";
import licences from "spdx-license-list/full.js";

const questions = [
  "Must I publish my source code when people only use the program over a network?",
  "What happens to my licence if I sue somebody for infringing my patent?",
  "Which court decides when the two sides disagree about the licence?",
];
const start = performance.now();
const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;

// 1. The corpus. Licences that share a text, such as GPL-2.0-only and GPL-2.0-or-later, are one document with all ids.
const byText = new Map<string, { name: string; ids: string[] }>();
for (const [id, { name, licenseText }] of Object.entries(licences)) {
  const known = byText.get(licenseText);
  if (known) known.ids.push(id);
  else byText.set(licenseText, { name, ids: [id] });
}
const documents: CorpusDocument[] = [...byText].map(([text, { name, ids }]) => ({
  id: ids[0] as string,
  title: name,
  text,
  metadata: { ids },
}));
console.log(`${Object.keys(licences).length} licences, ${documents.length} different texts`);

// 2. The model, and its context: 512 passages of this corpus. What all licences have in common then weighs less.
await using encoder = await ContextualEncoder.load(modelDirectory);
const plain = encoder.withoutContext();
const passages = documents.flatMap(({ title, text }) => {
  const prefix = `${title} `;
  const options = { countTokens: (stretch: string) => plain.countTokens(stretch), maxTokens: plain.maxTokens, prefix };
  return splitText(text, options).map((passage) => prefix + text.slice(passage.start, passage.end));
});
const sample = createRandom(7)
  .sample(passages.length, 512)
  .map((position) => passages[position]!);
const contextStart = performance.now();
const context = await encoder.buildContext(sample, { onProgress: ({ done, total }) => show("context", done / total) });
console.log(`context of ${context.size} passages built in ${seconds(contextStart)} with ${encoder.modelId}`);
if (context.calibration) console.log(describeCalibration(context.calibration));

// 3. The index: splits, embeds with the context, and keeps the vectors in memory (`directory` would keep them on disk).
const buildStart = performance.now();
const embedder = encoder.withContext(context);
await using index = await CorpusIndex.build(embedder, documents, {
  split: { maxTokens: plain.maxTokens },
  onProgress: ({ embedded }) => show("index", embedded / passages.length),
});
console.log(`index of ${index.count} documents, ${index.passageCount} passages built in ${seconds(buildStart)}`);

// 4. Questions, answered by meaning alone; without `mode`, shared words count too.
for (const question of questions) {
  const searchStart = performance.now();
  const hits = await index.search(question, { k: 3, mode: "dense" });
  console.log(`\n${question}  (${(performance.now() - searchStart).toFixed(0)} ms)`);
  for (const { score, title, metadata, text } of hits) {
    console.log(`  ${score.toFixed(3)}  ${title} [${(metadata.ids as string[]).slice(0, 3).join(", ")}]`);
    console.log(`         ${beginning(text)}`);
  }
}

// 5. What the context changes: the 100 passages nearest to the last question, ranked once more without it.
const question = questions.at(-1)!;
const hits = await index.search(question, { k: 100, mode: "dense" });
const query = await plain.embedQuery(question);
const { vectors } = await plain.embedDocuments(hits.map(({ title, text }) => `${title} ${text}`));
const without = vectors
  .map((vector, rank) => ({ rank, score: vector.reduce((sum, x, i) => sum + x * query[i]!, 0) }))
  .sort((a, b) => b.score - a.score);
console.log(`\nThe same 100 passages without the context, for: ${question}`);
for (const { rank, score } of without.slice(0, 3)) {
  console.log(`  ${score.toFixed(3)}  ${hits[rank]!.title}: rank ${rank + 1} with the context`);
  console.log(`         ${beginning(hits[rank]!.text)}`);
}
const moved = hits.slice(0, 3).map((_, best) => without.findIndex(({ rank }) => rank === best) + 1);
console.log(`The best three with the context have the ranks ${moved.join(", ")} without it.`);
console.log(`\n${index.passageCount} passages indexed and ${questions.length} questions answered in ${seconds(start)}`);

/** A bar on a terminal, nothing elsewhere. */
function show(what: string, fraction: number): void {
  if (!process.stderr.isTTY) return;
  const bar = "█".repeat(Math.round(30 * fraction)).padEnd(30, "·");
  process.stderr.write(
    fraction < 1 ? `\r${what} [${bar}] ${Math.round(100 * fraction)} %  ${seconds(start)}` : "\r\x1b[K",
  );
}

function beginning(text: string): string {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length <= 160 ? line : `${line.slice(0, 160)}…`;
}
