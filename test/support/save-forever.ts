/** A child process that saves one of eight indexes after another until it is killed; it says which were acknowledged. */
import { CorpusIndex } from "@cde-js/retriever";
import { stubEmbedder } from "./stub-embedder.js";

const directory = process.argv[2] as string;
const embedder = stubEmbedder();
// Built beforehand, so that nearly all of the time goes to saving.
const indexes = await Promise.all(
  Array.from({ length: 8 }, (_, n) => {
    const documents = Array.from({ length: 200 }, (_, i) => ({ id: `${n}-${i}`, text: `index ${n} document ${i}` }));
    return CorpusIndex.build(embedder, documents);
  }),
);
for (let save = Number(process.argv[3]); ; save++) {
  await (indexes[save % 8] as CorpusIndex).save(directory);
  process.stdout.write(`${save}\n`);
}
