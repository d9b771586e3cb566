/** A large index: a graph of neighbours instead of comparing all rows. Needs hnswlib-node, which npm has to compile. */
import { CdeError, createRandom, ExactIndex, hnsw } from "cde-js";

const [rows, dimensions] = [20_000, 32];
const random = createRandom(1);
const unit = (): Float32Array => {
  const vector = Float32Array.from({ length: dimensions }, () => random.normal());
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
};
const vectors = new Float32Array(rows * dimensions);
for (let row = 0; row < rows; row++) vectors.set(unit(), row * dimensions);
const labels = Uint32Array.from({ length: rows }, (_, row) => row);

// In a corpus: CorpusIndex.open("./contracts-index", embedder, { vectorIndex: hnsw() }).
const index = await hnsw({ ef: 200 })(dimensions).catch((error: unknown) => {
  if (!(error instanceof CdeError && ["MISSING_PEER", "PEER_NOT_BUILT"].includes(error.code))) throw error;
  console.log(`skipped: ${error.message}`);
  return undefined;
});
if (index) {
  const exact = new ExactIndex(dimensions);
  for (const one of [index, exact]) await one.upsert(labels, vectors);
  await index.ready(); // searches work before: they compare all rows
  const query = unit();
  const [approximate, all] = [await index.search(query, 10), await exact.search(query, 10)];
  const found = new Set(approximate.map(({ label }) => label));
  console.log(
    `${all.filter(({ label }) => found.has(label)).length} of the 10 nearest of ${rows} rows found by the graph`,
  );
  await index.close();
  await exact.close();
}
