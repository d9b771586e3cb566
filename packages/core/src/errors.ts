/** The errors that this SDK raises: each has a `code` to switch on, typed fields, and keeps its `cause`. */

/** Base of every error that the SDK raises on purpose. Anything else that escapes is a defect of ours. */
export class CdeError extends Error {
  /** A stable, upper-case name to switch on; messages may change, codes don't. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** An argument that can't be used: the message names the operation, what was given and what to do. */
export class InvalidInputError extends CdeError {
  /** Position of the offending entry, where the argument was a list. */
  readonly position: number | undefined;

  constructor(message: string, options?: ErrorOptions & { position?: number }) {
    super("INVALID_INPUT", message, options);
    this.position = options?.position;
  }
}

/** A file that was expected and isn't there. */
export class MissingFileError extends CdeError {
  readonly path: string;

  constructor(path: string, message: string, options?: ErrorOptions) {
    super("MISSING_FILE", message, options);
    this.path = path;
  }
}

/** A file that is there and isn't what it claims to be: cut, altered, or of another format. */
export class CorruptFileError extends CdeError {
  readonly path: string;
  /** Line number from 1, for text formats. */
  readonly line: number | undefined;

  constructor(path: string, message: string, options?: ErrorOptions & { line?: number }) {
    super("CORRUPT_FILE", message, options);
    this.path = path;
    this.line = options?.line;
  }
}

/** Vectors of two contexts (or two models) were about to be mixed. */
export class FingerprintMismatchError extends CdeError {
  readonly expected: string;
  readonly actual: string;

  constructor(expected: string, actual: string, message: string, options?: ErrorOptions) {
    super("FINGERPRINT_MISMATCH", message, options);
    this.expected = expected;
    this.actual = actual;
  }
}

/** A model that this version can't run: unknown architecture, misshapen weights, tokenizer of another vocabulary. */
export class ModelError extends CdeError {
  constructor(message: string, options?: ErrorOptions) {
    super("MODEL", message, options);
  }
}

/** The numeric runtime failed or isn't available: a missing execution provider, a worker that ended. */
export class RuntimeFailureError extends CdeError {
  constructor(message: string, options?: ErrorOptions) {
    super("RUNTIME", message, options);
  }
}

/** An optional peer dependency that has to be installed for what was asked. */
export class MissingPeerError extends CdeError {
  readonly packageName: string;

  constructor(packageName: string, message: string, options?: ErrorOptions) {
    super("MISSING_PEER", message, options);
    this.packageName = packageName;
  }
}

/** A broken invariant of our own; reaching it is a defect to report. */
export function internal(message: string): Error {
  return new Error(`internal: ${message}`);
}
