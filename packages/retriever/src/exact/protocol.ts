/** The messages between the exact index and its worker. Types only. */
import type { Ranking, RowType } from "./row-table.js";

export interface WorkerSetup {
  readonly dimensions: number;
  readonly type: RowType;
}

export type Request =
  | { readonly name: "upsert"; readonly labels: Uint32Array; readonly vectors: Float32Array }
  | { readonly name: "delete"; readonly labels: Uint32Array }
  | { readonly name: "read"; readonly labels: Uint32Array }
  | {
      readonly name: "search";
      readonly query: Float32Array;
      readonly k: number;
      readonly allowed: Uint8Array | undefined;
    };

/** What each request is answered with. */
export interface Answers {
  upsert: number;
  delete: { readonly removed: number; readonly count: number };
  read: Float32Array<ArrayBuffer> | undefined;
  search: Ranking;
}
