/** What the main thread and the runtime's worker say to each other. */
import type { DType } from "../graph/value.js";

export type TensorArray = Float32Array | Float64Array | Int32Array | BigInt64Array | Int8Array | Uint8Array;

/** A tensor with its numbers, row-major. */
export interface TensorData {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: TensorArray;
}

/** A tensor that lives in the worker. */
export interface StoredName {
  readonly store: number;
  readonly name: string;
}

export interface ProviderOptions {
  readonly provider: string;
  readonly device: number | undefined;
  readonly threads: number;
}

/** Of one session. */
export interface SessionOptions extends ProviderOptions {
  /** Whether memory stays with the session between runs. */
  readonly arena: boolean;
}

export interface RunRequest {
  readonly kind: "run";
  readonly session: number;
  readonly feeds: Readonly<Record<string, TensorData>>;
  /** Inputs read from stores. */
  readonly stored: Readonly<Record<string, StoredName>>;
  /** Outputs written over a stored tensor instead of being returned; the same tensor may be an input. */
  readonly into: Readonly<Record<string, StoredName>>;
  /** Outputs to return. */
  readonly fetch: readonly string[];
}

export interface OpenRequest {
  readonly kind: "open";
  readonly session: number;
  readonly model: Uint8Array;
  /** Constants whose bytes come from a store, by their name in the model. */
  readonly constants: Readonly<Record<string, StoredName>>;
  /** Of the files that constants are mapped from. */
  readonly folder: string | undefined;
  readonly options: SessionOptions;
}

export type Request =
  | { readonly kind: "check"; readonly provider: string }
  | { readonly kind: "write"; readonly store: number; readonly tensors: Readonly<Record<string, TensorData>> }
  | { readonly kind: "read"; readonly store: number; readonly name: string }
  | { readonly kind: "drop"; readonly store: number }
  | OpenRequest
  | { readonly kind: "close"; readonly session: number }
  | RunRequest;

/** Every request is answered, a cancelled one as well. */
export type ToWorker =
  | { readonly id: number; readonly request: Request }
  | { readonly cancel: number }
  | { readonly end: true };

/**
 * Entries of the memory that both threads see. ONNX Runtime brings the process down when its thread is stopped inside
 * of it ("terminate called after throwing an instance of 'Napi::Error'"), so whoever ends the worker waits for it.
 */
export const BUSY = 0;
export const ENDING = 1;

export type FromWorker =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: string };

/** What each kind of request answers. */
export interface Answers {
  check: readonly string[];
  write: undefined;
  read: TensorData;
  drop: undefined;
  open: undefined;
  close: undefined;
  run: Readonly<Record<string, TensorData>>;
}
