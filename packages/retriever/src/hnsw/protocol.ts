/** The messages between the HNSW index and its worker. Types only. */
import type { Neighbour } from "../vector-index.js";

/** What determines a graph, beside rows and their order. */
export interface GraphOptions {
  readonly dimensions: number;
  readonly m: number;
  readonly efConstruction: number;
  readonly seed: number;
}

export interface WorkerSetup extends GraphOptions {
  readonly ef: number;
  readonly scanShare: number;
  readonly cacheFile: string | undefined;
}

/** How the graph came about that holds all rows. */
export interface GraphReport {
  /** Rows that a search sees. */
  readonly rows: number;
  /** "cache": read from the cache file; rows added since were added to it. */
  readonly source: "built" | "cache";
  /** Why the cache file was not used; undefined where it was, or where none is wanted. */
  readonly reason: string | undefined;
  /** Whether the cache file was written now. */
  readonly saved: boolean;
  /** Why it could not be written. The index works without it. */
  readonly fault: string | undefined;
}

export type Request =
  | { readonly name: "start" }
  | { readonly name: "upsert"; readonly labels: Uint32Array; readonly vectors: Float32Array }
  | { readonly name: "delete"; readonly labels: Uint32Array }
  | { readonly name: "read"; readonly labels: Uint32Array }
  | { readonly name: "ready" }
  | {
      readonly name: "search";
      readonly query: Float32Array;
      readonly k: number;
      readonly allowed: Uint8Array | undefined;
    };

/** What each request is answered with. */
export interface Answers {
  start: undefined;
  upsert: number;
  delete: { readonly removed: number; readonly count: number };
  read: Float32Array<ArrayBuffer> | undefined;
  ready: GraphReport;
  search: Neighbour[];
}
