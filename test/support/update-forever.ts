/**
 * A child process that updates an index until it is killed, and says which updates were acknowledged. Update `n` puts
 * three documents that carry `n`, deletes one of an earlier update, and now and then writes a new generation.
 */
import { CorpusIndex } from "@cde-js/retriever";
import { stubEmbedder } from "./stub-embedder.js";

const [, , directory, first, kind] = process.argv as unknown as [string, string, string, string, string];
const embedder = stubEmbedder();
if (kind === "build") {
  const documents = Array.from({ length: 6000 }, (_, i) => ({ id: `b${i}`, text: `document ${i}` }));
  process.stdout.write("0\n");
  await (await CorpusIndex.build(embedder, documents, { directory, split: false, lexical: false })).close();
  process.stdout.write("built\n");
  process.exit(0);
}
const index = await CorpusIndex.open(directory, embedder);
for (let n = Number(first); ; n++) {
  const parts = [0, 1, 2].map((part) => ({ id: `u${n % 40}-${part}`, text: `update n${n} part p${part}` }));
  await index.upsert(parts);
  if (n % 7 === 6) await index.compact();
  process.stdout.write(`${n}\n`);
}
