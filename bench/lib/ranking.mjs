/** Exact search of many queries in packed rows. */
import { ExactIndex } from "@cde-js/retriever";

/** `{ query id: document ids, best first }`; both sides are `{ ids, rows }` with rows of `width` numbers. */
export async function rankings(documents, queries, width, k) {
  await using index = new ExactIndex(width);
  await index.upsert(
    Uint32Array.from(documents.ids, (_, label) => label),
    documents.rows,
  );
  const run = new Map();
  for (const [i, id] of queries.ids.entries()) {
    const found = await index.search(queries.rows.slice(i * width, (i + 1) * width), k);
    run.set(
      id,
      found.map(({ label }) => documents.ids[label]),
    );
  }
  return run;
}
