/** The public surface of `@cde-js/core`, by name. */
export type { EmbeddedText, Embedder, Embeddings, EmbedOptions, EmbedProgress } from "./encoder/embedder.js";
export {
  CdeError,
  CorruptFileError,
  FingerprintMismatchError,
  InvalidInputError,
  internal,
  MissingFileError,
  MissingPeerError,
  ModelError,
  RuntimeFailureError,
} from "./errors.js";
