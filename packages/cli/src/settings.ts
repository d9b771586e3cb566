/**
 * What opening an index takes beside its own files: the model's directory and the context. Both lie in the index's
 * folder, in files named by the fingerprint of the index that they belong to, so that a new index is written beside the
 * old one and whichever manifest is there finds its own.
 */
import { open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { CorpusContext, CorruptFileError, MissingFileError } from "@cde-js/core";
import { StorageError } from "@cde-js/retriever";

export interface Settings {
  /** The model's directory; undefined for the bundled model. */
  readonly model: string | undefined;
  readonly context: CorpusContext | undefined;
}

const FORMAT = "cde-settings/1";
const OURS = /^(?:settings|context)-([0-9a-f]{16})\.(?:json|safetensors)(?:\.[\w.-]+)?$/;

/** Leaves the settings of the index that is there alone, removes older ones, and adds those of the one to come. */
export async function writeSettings(directory: string, fingerprint: string, settings: Settings): Promise<void> {
  await removeStaleSettings(directory);
  const { model, context } = settings;
  try {
    await context?.save(contextPath(directory, fingerprint));
    const path = settingsPath(directory, fingerprint);
    const file = await open(`${path}.tmp`, "w");
    try {
      const json = { format: FORMAT, fingerprint, model: model ?? null, context: context !== undefined };
      await file.writeFile(`${JSON.stringify(json, null, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.tmp`, path);
  } catch (cause) {
    const { code, message, syscall } = cause as NodeJS.ErrnoException;
    if (syscall === undefined) throw cause;
    throw new StorageError(directory, `${directory}: ${message}. An index that was there is untouched.`, {
      cause,
      errno: code,
    });
  }
}

/** Removes the settings that belong to no index: those of an earlier one, or of one that was never finished. */
export async function removeStaleSettings(directory: string): Promise<void> {
  const current = (await readFingerprint(directory).catch(() => undefined))?.slice(0, 16);
  const names = await readdir(directory).catch(() => []);
  for (const name of names) {
    const owner = OURS.exec(name)?.[1];
    // What can't be removed now goes with the next index.
    if (owner !== undefined && owner !== current) await rm(join(directory, name)).catch(() => {});
  }
}

/**
 * The settings of the index in a folder; those of an index without them (one that a program saved) are undefined.
 *
 * @throws MissingFileError where there is no index or its context is gone, CorruptFileError
 */
export async function readSettings(directory: string): Promise<Settings | undefined> {
  const fingerprint = await readFingerprint(directory);
  const path = settingsPath(directory, fingerprint);
  const json = await readJson(path).catch((error: unknown) => {
    if (error instanceof MissingFileError) return undefined;
    throw error;
  });
  if (json === undefined) return undefined;
  const { format, fingerprint: stated, model, context } = json;
  if (format !== FORMAT || stated !== fingerprint || !(model === null || typeof model === "string")) {
    throw new CorruptFileError(path, `${path} does not hold the settings of this index. Build the index again.`);
  }
  return {
    model: model ?? undefined,
    context: context === true ? await CorpusContext.load(contextPath(directory, fingerprint)) : undefined,
  };
}

async function readFingerprint(directory: string): Promise<string> {
  const path = join(directory, "manifest.json");
  const { fingerprint } = await readJson(path).catch((error: unknown) => {
    if (!(error instanceof MissingFileError)) throw error;
    throw new MissingFileError(path, `${directory} holds no index: manifest.json is missing.`, { cause: error });
  });
  if (typeof fingerprint === "string" && fingerprint !== "") return fingerprint;
  throw new CorruptFileError(path, `${path} is not the manifest of an index. Build the index again.`);
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") throw new MissingFileError(path, `${path} is missing.`, { cause });
    throw new StorageError(path, `${path}: ${message}.`, { cause, errno: code });
  }
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json === "object" && json !== null) return json as Record<string, unknown>;
  } catch (cause) {
    throw new CorruptFileError(path, `${path} is not JSON. Build the index again.`, { cause });
  }
  throw new CorruptFileError(path, `${path} is not a JSON object. Build the index again.`);
}

function settingsPath(directory: string, fingerprint: string): string {
  return join(directory, `settings-${short(fingerprint)}.json`);
}

function contextPath(directory: string, fingerprint: string): string {
  return join(directory, `context-${short(fingerprint)}.safetensors`);
}

function short(fingerprint: string): string {
  // An index of a program's own embedder may name itself in any way; it has no settings here.
  return /^[0-9a-f]{16}/.test(fingerprint) ? fingerprint.slice(0, 16) : "0".repeat(16);
}
