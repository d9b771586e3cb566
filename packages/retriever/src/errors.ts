/** The errors of the index, beside those of `@cde-js/core`. */
import { CdeError } from "@cde-js/core/errors";

/** The disk refused: full, read-only, no permission. What was saved before is whole. */
export class StorageError extends CdeError {
  readonly path: string;
  /** The system's code, such as "ENOSPC" or "EROFS", where it gave one. */
  readonly errno: string | undefined;

  constructor(path: string, message: string, options?: ErrorOptions & { errno?: string | undefined }) {
    super("STORAGE", message, options);
    this.path = path;
    this.errno = options?.errno;
  }
}

/** Another writer holds the index folder. */
export class IndexLockedError extends CdeError {
  readonly path: string;
  /** Process that holds the lock, on the machine `hostname`. */
  readonly pid: number;
  readonly hostname: string;

  constructor(path: string, pid: number, hostname: string, message: string) {
    super("INDEX_LOCKED", message);
    this.path = path;
    this.pid = pid;
    this.hostname = hostname;
  }
}

/** The index was closed before or while it was asked. */
export class IndexClosedError extends CdeError {
  constructor(operation: string) {
    super("INDEX_CLOSED", `${operation}: this index is closed. Open it again with CorpusIndex.open.`);
  }
}

/** Another writer has changed the folder since this index was opened; its own copy is of before. */
export class IndexChangedError extends CdeError {
  readonly path: string;

  constructor(path: string) {
    super("INDEX_CHANGED", `${path} was changed by another writer since this index was opened. Open it again.`);
    this.path = path;
  }
}
