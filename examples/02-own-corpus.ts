/** Documents of your own: JSONL, its context, an index that is searched, saved and opened again. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ContextualEncoder, CorpusContext, type CorpusDocument, CorpusIndex, modelDirectory } from "cde-js";

// One document a line, as it would stand in a file. Metadata may be anything that JSON can carry.
const jsonl = `
{"id": "rent-1", "title": "Rent", "text": "The rent is due on the third working day of each month.", "metadata": {"page": 2}}
{"id": "rent-2", "title": "Rent", "text": "Who pays late owes interest of five percent a year.", "metadata": {"page": 2}}
{"id": "damage-1", "title": "Damage", "text": "The landlord repairs what storm or flood has damaged.", "metadata": {"page": 4}}
{"id": "damage-2", "title": "Damage", "text": "Scratches in the parquet are repaired by the tenant.", "metadata": {"page": 4}}
{"id": "end-1", "title": "Notice", "text": "Both sides may end the lease with three months of notice.", "metadata": {"page": 7}}
{"id": "end-2", "title": "Notice", "text": "The keys are returned on the last day, at the latest at noon.", "metadata": {"page": 7}}
`;
const documents = jsonl
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as CorpusDocument);

await using encoder = await ContextualEncoder.load(modelDirectory);

// The context says what this corpus is about. Here it is all documents; of a large corpus take a sample of some hundred.
const context = await encoder.buildContext(documents.map(({ title, text }) => `${title} ${text}`));
const embedder = encoder.withContext(context);

await using index = await CorpusIndex.build(embedder, documents);
const [best] = await index.search("who repairs damage after a flood?", { k: 1 });
console.log(`${best?.id}: ${best?.text} (page ${best?.metadata.page})`);

// An index is opened with the context that it was built with; keep the two together.
const folder = await mkdtemp(join(tmpdir(), "cde-example-"));
try {
  await index.save(join(folder, "index"));
  await context.save(join(folder, "context.safetensors"));

  const sameContext = await CorpusContext.load(join(folder, "context.safetensors"));
  await using opened = await CorpusIndex.open(join(folder, "index"), encoder.withContext(sameContext));
  const [again] = await opened.search("who repairs damage after a flood?", { k: 1 });
  console.log(`opened again: ${opened.count} documents, the same answer: ${again?.id === best?.id}`);

  // Vectors of another context mean something else, so the index refuses it.
  await CorpusIndex.open(join(folder, "index"), encoder.withoutContext()).catch((error: Error) => {
    console.log(`without the context: ${error.name}`);
  });
} finally {
  await rm(folder, { recursive: true });
}
