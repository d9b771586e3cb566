/** Changes metadata in the points of documents, all their passages, without touching a vector. */
import type { JsonObject } from "@cde-js/retriever";
import { readUpdate } from "./answers.js";
import type { RequestName } from "./client.js";
import type { QdrantCollection } from "./collection.js";
import { metadataOf, RESERVED } from "./points.js";

export interface MetadataChange {
  /** Fields that get another value. */
  readonly values: JsonObject;
  /** Names of fields that go. */
  readonly gone: readonly string[];
}

/** What turns `before` into `after`. */
export function metadataChange(before: JsonObject, after: JsonObject): MetadataChange {
  return { values: after, gone: Object.keys(before).filter((key) => !Object.hasOwn(after, key)) };
}

/** Of the points that `filter` finds, which doesn't ask for what is changed; `page` of them are read at once. */
export async function changeMetadata(
  collection: QdrantCollection,
  { filter, page }: { readonly filter: object; readonly page: number },
  { values, gone }: MetadataChange,
  signal: AbortSignal | undefined,
): Promise<void> {
  const write = (request: RequestName, args: object): Promise<void> =>
    collection.request("updateMetadata", request, { wait: true, ...args }, readUpdate, signal);
  if (gone.some((key) => /["\\]/.test(key) || key === "")) {
    // No path of Qdrant's names such a key. So the payloads go as a whole, one by one, since ours differ in each.
    for await (const points of collection.scroll("updateMetadata", { filter, with_payload: true }, page, signal)) {
      for (const { id: point, payload } of points) {
        const kept = Object.entries(metadataOf(payload)).filter(([key]) => !gone.includes(key));
        const whole = { ...Object.fromEntries(kept), ...values, [RESERVED]: payload[RESERVED] };
        await write("overwritePayload", { payload: whole, points: [point] });
      }
    }
    return;
  }
  // Added first, so that a filter on a key that stays finds the document throughout.
  if (Object.keys(values).length > 0) await write("setPayload", { payload: values, filter });
  // A key is a path for Qdrant: quoted, it is a name.
  const keys = gone.map((key) => (/^[\w-]+$/.test(key) ? key : `"${key}"`));
  if (keys.length > 0) await write("deletePayload", { keys, filter });
}
