/** Exact search of many queries in packed rows. */
import { ExactIndex } from "../../packages/retriever/dist/index.js";

/** `{ query id: document ids, best first }`; both sides are `{ ids, rows }` with rows of `width` numbers. */
export async function rankings(documents, queries, width, k) {
  const index = new ExactIndex(width);
  const labels = Uint32Array.from(documents.ids, (_, label) => label);
  await index.upsert(labels, documents.rows);
  const run = new Map();
  for (const [i, id] of queries.ids.entries()) {
    const found = await index.search(queries.rows.slice(i * width, (i + 1) * width), k);
    const ids = found.map(({ label }) => documents.ids[label]);
    run.set(id, ids);
  }
  await index.close();
  return run;
}
