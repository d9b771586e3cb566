/** Where a model is loaded from: a directory, or a repository of the Hugging Face hub. */
import { stat } from "node:fs/promises";
import { InvalidInputError, MissingFileError } from "../errors.js";
import { downloadModel } from "../hub/download.js";
import { HubError } from "../hub/errors.js";
import type { DownloadOptions } from "../hub/settings.js";
import type { EmbedProgress } from "./embedder.js";

/** What a download of the model may be told; a directory needs none of it. */
export type HubOptions = Pick<DownloadOptions, "revision" | "cacheDir" | "token" | "endpoint" | "offline">;

/** Where loading stands: bytes downloaded, then tensors read. */
export interface LoadProgress extends EmbedProgress {
  readonly step: "download" | "load";
}

interface LocatedModel {
  readonly directory: string;
  /** The repository's name; undefined for a directory. */
  readonly modelId: string | undefined;
}

const REPOSITORY = /^\w[\w.-]*\/\w[\w.-]*$/;

/** An existing directory is taken before a repository of the same name. */
export async function locateModel(
  source: string,
  options: HubOptions & { signal?: AbortSignal; onProgress?: (progress: LoadProgress) => void },
): Promise<LocatedModel> {
  const { revision, cacheDir, token, endpoint, offline, signal, onProgress } = options;
  const found = await stat(source).catch(() => undefined);
  if (found?.isDirectory()) {
    if (revision === undefined) return { directory: source, modelId: undefined };
    throw new InvalidInputError(
      `ContextualEncoder.load: ${source} is a directory, which has no revisions, got { revision: "${revision}" }. Leave it out, or give the hub's repository.`,
    );
  }
  if (found || !REPOSITORY.test(source)) {
    throw new MissingFileError(
      source,
      `ContextualEncoder.load: ${source} is neither a model directory nor a repository of the hub ("organisation/name"). Check the path.`,
    );
  }
  try {
    const { directory } = await downloadModel(source, {
      ...(revision !== undefined && { revision }),
      ...(cacheDir !== undefined && { cacheDir }),
      ...(token !== undefined && { token }),
      ...(endpoint !== undefined && { endpoint }),
      ...(offline !== undefined && { offline }),
      ...(signal !== undefined && { signal }),
      ...(onProgress && { onProgress: ({ done, total }) => onProgress({ step: "download", done, total }) }),
    });
    return { directory, modelId: source };
  } catch (cause) {
    if (!(cause instanceof HubError)) throw cause;
    const { code, status, retryAfter, retryable, message } = cause;
    const here = `ContextualEncoder.load: there is no directory ${source} here, and it can't be had from the hub.`;
    throw new HubError(code, `${here} ${message}`, { status, retryAfter, retryable, cause });
  }
}
