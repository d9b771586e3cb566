/** Makes a collection with all that a corpus needs in it, before the first write. */
import { type Embedder, InvalidInputError } from "@cde-js/core";
import { BASE, type CollectionState, type QdrantCollection } from "./collection.js";
import type { QdrantCreateOptions } from "./options.js";
import { RESERVED } from "./points.js";
import { newRecord, requireAlike } from "./record.js";
import { checkBase, keptBase, knownBase } from "./source.js";

/** Parameters of a collection that are not the caller's to set. */
const OURS = ["vectors", "sparse_vectors", "metadata"];

/** @throws InvalidInputError for what is this adapter's to set */
export function checkCreateOptions(embedder: Embedder, options: QdrantCreateOptions): void {
  const { base, payloadIndexes = {}, parameters = {} } = options;
  checkBase("create", embedder, base || undefined);
  for (const name of OURS) {
    if (!(name in parameters)) continue;
    throw new InvalidInputError(`create: parameters.${name} is this adapter's to set. Leave it out.`);
  }
  for (const field of Object.keys(payloadIndexes)) {
    if (!new RegExp(`^"?${RESERVED}"?(?:[.[]|$)`).test(field)) continue;
    throw new InvalidInputError(
      `create: the payload index ${JSON.stringify(field)} has the reserved key "${RESERVED}".`,
    );
  }
}

/** Makes the collection, or finds one that was made alike. @throws QdrantError for one that was made otherwise */
export async function createCollection(
  target: QdrantCollection,
  embedder: Embedder,
  options: QdrantCreateOptions,
): Promise<CollectionState> {
  const { signal, lexical, tenants = false, payloadIndexes = {}, parameters = {}, vectors = {} } = options;
  const already = await target.find("create", signal);
  const kept = already ? already.record.baseFingerprint : (knownBase(embedder)?.embedder.fingerprint ?? null);
  const base = keptBase(embedder, options.base, kept);
  const record = newRecord(target.name, embedder, { base, lexical, tenants, vectors });
  if (already) requireAlike(target.name, already.record, record);
  await target.create(record, {
    parameters,
    vectors: {
      [record.vector]: { size: embedder.dimensions, distance: "Cosine", ...vectors },
      ...(base
        ? {
            // Read back by a change of context alone: on disk, without a graph.
            [BASE]: {
              size: base.embedder.dimensions,
              distance: "Cosine",
              on_disk: true,
              hnsw_config: { m: 0 },
            },
          }
        : {}),
    },
    indexes: {
      [`${RESERVED}.id`]: "keyword",
      [`${RESERVED}.n`]: "integer",
      [`${RESERVED}.of`]: "integer",
      [`${RESERVED}.draw`]: "integer",
      ...(tenants ? { [`${RESERVED}.tenant`]: { type: "keyword", is_tenant: true } } : {}),
      ...payloadIndexes,
    },
    signal,
  });
  const state = await target.state("create", signal);
  requireAlike(target.name, state.record, record);
  return state;
}
