/** As much of `@qdrant/js-client-rest` as is used here, so that another version, or a client of yours, fits too. */
import { MissingPeerError } from "@cde-js/core";
import type { Address } from "./address.js";

export type RequestName =
  | "root"
  | "getCollection"
  | "createCollection"
  | "updateCollection"
  | "createFieldIndex"
  | "createVectorName"
  | "deleteVectorName"
  | "upsertPoints"
  | "updateVectors"
  | "deletePoints"
  | "getPoints"
  | "scrollPoints"
  | "countPoints"
  | "queryPoints"
  | "queryBatchPoints"
  | "queryPointsGroups"
  | "setPayload"
  | "overwritePayload"
  | "deletePayload";

type QdrantRequest = (args: never, init?: RequestInit) => Promise<{ readonly data: unknown }>;

/** `new QdrantClient(…)` is one. Its requests take one object of path, query and body together. */
export interface QdrantClientLike {
  api(): { readonly [Name in RequestName]: QdrantRequest };
}

export interface ClientOptions {
  readonly address: Address;
  readonly headers: Readonly<Record<string, string>>;
  readonly maxConnections: number;
}

/** @throws MissingPeerError where the package isn't installed */
export async function createClient({ address, headers, maxConnections }: ClientOptions): Promise<QdrantClientLike> {
  const { QdrantClient } = await import("@qdrant/js-client-rest").catch((cause: unknown) => {
    throw new MissingPeerError(
      "@qdrant/js-client-rest",
      'Cannot import "@qdrant/js-client-rest". Install it (npm install @qdrant/js-client-rest), or pass your own client ' +
        "as { client }.",
      { cause },
    );
  });
  return new QdrantClient({
    url: address.origin,
    port: address.port,
    ...(address.prefix === "" ? {} : { prefix: address.prefix }),
    // A header and not `apiKey`, with which the client prints a warning over plain HTTP.
    headers,
    maxConnections,
    // A finite timeout would take the place of our signal.
    timeout: Number.POSITIVE_INFINITY,
    // Ours reads the version once, and fails.
    checkCompatibility: false,
  });
}
