/** An index that is kept up to date in a folder: new, changed and deleted documents, other metadata, and a crash. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";

const rules = [
  { id: "rent", text: "The rent is due on the third working day of each month.", metadata: { page: 2 } },
  { id: "pets", text: "Cats are welcome. Dogs must be on a lead.", metadata: { page: 3 } },
  { id: "damage", text: "The landlord repairs what storm or flood has damaged.", metadata: { page: 4 } },
];

await using encoder = await ContextualEncoder.load(modelDirectory);
const context = await encoder.buildContext(rules.map(({ text }) => text));
const directory = join(await mkdtemp(join(tmpdir(), "cde-example-")), "index");
try {
  const index = await CorpusIndex.build(encoder.withContext(context), rules, { directory });

  // Of these, only the changed and the new text are embedded. When the call returns, they are on the disk.
  const report = await index.upsert([
    { id: "rent", text: "The rent is due on the third working day of each month.", metadata: { page: 2 } },
    { id: "pets", text: "No pets at all.", metadata: { page: 3 } },
    { id: "bikes", text: "Bicycles are kept in the yard.", metadata: { page: 5 } },
  ]);
  console.log(`${report.added} added, ${report.replaced} replaced, ${report.unchanged} unchanged`);

  await index.updateMetadata("rent", { page: 7, checked: true });
  console.log(`deleted ${await index.delete({ filter: { must: [{ key: "page", match: { value: 4 } }] } })}`);
  await index.close();

  // The context is kept in the folder, so the encoder is all that is needed.
  await using opened = await CorpusIndex.open(directory, encoder);
  const [hit] = await opened.search("where can I put my bicycle?", { k: 1 });
  console.log(`opened again, ${opened.count} documents: ${hit?.text}`);

  // One writes, any number read.
  await opened.updateMetadata("bikes", { checked: true });
  await using reader = await CorpusIndex.open(directory, encoder);
  console.log(`a reader finds ${(await reader.get("bikes"))?.metadata?.checked === true ? "the change" : "nothing"}`);
  await reader.delete({ ids: ["bikes"] }).catch((error: Error) => console.log(`and may not write: ${error.name}`));
} finally {
  await rm(directory, { recursive: true, force: true });
}
