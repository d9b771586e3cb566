/** What can go wrong between us and a Qdrant server. */
import { CdeError } from "@cde-js/core";

export type QdrantErrorCode =
  /** The server refused the request: `status` and its own words say why. */
  | "QDRANT_REQUEST"
  /** No connection, or one that broke, after all retries. */
  | "QDRANT_UNREACHABLE"
  /** No answer within `requestTimeoutMs`. */
  | "QDRANT_TIMEOUT"
  /** An answer that is none: no JSON, other types, other sizes, a write that isn't completed. */
  | "QDRANT_ANSWER"
  /** Strict mode: a filter on a field without payload index. */
  | "QDRANT_INDEX_REQUIRED"
  /** More than the collection's strict mode, or a request, may hold. */
  | "QDRANT_LIMIT"
  /** A server older than this adapter needs. */
  | "QDRANT_VERSION"
  /** A collection that isn't there, isn't ours, or was made otherwise. */
  | "QDRANT_COLLECTION";

/** Carries no API key, neither in its message nor in its cause. */
export class QdrantError extends CdeError {
  declare readonly code: QdrantErrorCode;
  /** The HTTP status, where the server answered. */
  readonly status: number | undefined;

  constructor(code: QdrantErrorCode, message: string, options: ErrorOptions & { status?: number | undefined } = {}) {
    super(code, message, options);
    this.status = options.status;
  }
}
