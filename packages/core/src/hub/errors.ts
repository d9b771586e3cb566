/** What can go wrong between a model hub and the cache, typed. */
import { CdeError } from "../errors.js";

/**
 * - `HUB_UNAUTHORIZED`: the hub wants a token, or refuses this one (401, 403).
 * - `HUB_NOT_FOUND`: no such repository, revision or file.
 * - `HUB_RATE_LIMITED`: too many requests; `retryAfter` says for how long.
 * - `HUB_UNREACHABLE`: no connection, a connection that kept breaking, or a failing server or proxy.
 * - `HUB_TIMEOUT`: connected, but next to nothing arrived for `idleTimeout`.
 * - `HUB_OFFLINE`: not in the cache, and the network is forbidden.
 * - `HUB_CORRUPT`: the bytes are not those the hub announced.
 * - `HUB_RESPONSE`: the answer is not one of a model hub.
 * - `HUB_UNSUPPORTED`: a repository without safetensors weights or without a configuration.
 * - `HUB_INSECURE`: would have sent a token in the clear, or left https.
 * - `HUB_DISK_FULL`, `HUB_DISK`: the cache could not be written.
 */
export type HubErrorCode =
  | "HUB_UNAUTHORIZED"
  | "HUB_NOT_FOUND"
  | "HUB_RATE_LIMITED"
  | "HUB_UNREACHABLE"
  | "HUB_TIMEOUT"
  | "HUB_OFFLINE"
  | "HUB_CORRUPT"
  | "HUB_RESPONSE"
  | "HUB_UNSUPPORTED"
  | "HUB_INSECURE"
  | "HUB_DISK_FULL"
  | "HUB_DISK";

export interface HubErrorOptions extends ErrorOptions {
  readonly status?: number | undefined;
  readonly retryAfter?: number | undefined;
  readonly retryable?: boolean;
}

/** A model could not be brought from the hub. Never holds a token, a signed address or a server's page. */
export class HubError extends CdeError {
  declare readonly code: HubErrorCode;
  /** The HTTP status, where one was received. */
  readonly status: number | undefined;
  /** Seconds that the hub asked to wait (429, 503). */
  readonly retryAfter: number | undefined;
  /** Whether the same call may succeed later with nothing changed. */
  readonly retryable: boolean;

  constructor(code: HubErrorCode, message: string, options?: HubErrorOptions) {
    super(code, message, options);
    this.status = options?.status;
    this.retryAfter = options?.retryAfter;
    this.retryable = options?.retryable ?? false;
  }
}

/** An error of the file system as a `HubError`; anything else as it is. */
export function wrapDiskError(error: unknown, cacheDir: string): unknown {
  if (!(error instanceof Error) || !("syscall" in error) || !("code" in error)) return error;
  const full = error.code === "ENOSPC" || error.code === "EDQUOT";
  const advice = full
    ? "Free some space, or pass another { cacheDir }; what has arrived is kept and resumed."
    : "Check its permissions, or pass another { cacheDir }.";
  return new HubError(
    full ? "HUB_DISK_FULL" : "HUB_DISK",
    `downloadModel: the cache ${cacheDir} could not be used: ${error.syscall} failed with ${error.code}. ${advice}`,
    { cause: error },
  );
}
