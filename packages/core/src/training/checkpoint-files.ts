/**
 * Checkpoints on disk: one folder a checkpoint, and a file that names the current one. The folder is complete before it
 * is named, so a run that is killed at any moment leaves the checkpoint before or the new one, wholly.
 */
import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { CdeError, CorruptFileError, MissingFileError, RuntimeFailureError } from "../errors.js";
import { canonicalJson, fileDigest } from "../model/digest.js";
import { isJsonObject, type JsonObject, readJsonObject } from "../model/json-file.js";
import { openSafetensors, type SafetensorsFile, type TensorToWrite, writeSafetensors } from "../model/safetensors.js";

const POINTER = "checkpoint.json";
const STATE = "state.json";
const FORMAT = 1;
const FOLDER = /^step-\d+-[0-9a-f]{8}$/;

export interface CheckpointContent {
  /** Plain data; its form is the trainer's. */
  readonly state: JsonObject;
  /** Safetensors files by name without the ending. */
  readonly tensors: Readonly<Record<string, Iterable<TensorToWrite>>>;
}

/** Writes a checkpoint, names it, and deletes the one before. Raises RuntimeFailureError where the disk fails. */
export async function writeCheckpoint(directory: string, step: number, content: CheckpointContent): Promise<void> {
  const name = `step-${step}-${randomBytes(4).toString("hex")}`;
  const folder = join(directory, name);
  try {
    await mkdir(folder, { recursive: true });
    const files: Record<string, string> = {};
    for (const [file, tensors] of Object.entries(content.tensors)) {
      const path = join(folder, `${file}.safetensors`);
      await writeSafetensors(path, tensors);
      files[`${file}.safetensors`] = await fileDigest(path);
    }
    await writeWhole(join(folder, STATE), canonicalJson(content.state));
    files[STATE] = await fileDigest(join(folder, STATE));
    await sync(folder);
    await writeWhole(join(directory, POINTER), canonicalJson({ format: FORMAT, folder: name, files }));
    await sync(directory);
  } catch (cause) {
    await rm(folder, { recursive: true, force: true }).catch(() => undefined);
    if (cause instanceof CdeError) throw cause;
    throw new RuntimeFailureError(
      `Trainer.save: can't write to ${directory}: ${(cause as Error).message} The checkpoint before stays.`,
      { cause },
    );
  }
  // Also what runs that were killed left behind.
  for (const entry of await readdir(directory)) {
    if (FOLDER.test(entry) && entry !== name) await rm(join(directory, entry), { recursive: true, force: true });
  }
}

export interface OpenCheckpoint extends AsyncDisposable {
  readonly folder: string;
  readonly state: JsonObject;
  readonly tensors: ReadonlyMap<string, SafetensorsFile>;
}

/** Opens the current checkpoint; every byte is held against its digest. Raises MissingFileError or CorruptFileError. */
export async function openCheckpoint(directory: string): Promise<OpenCheckpoint> {
  const operation = "Trainer.resume";
  const pointer = join(directory, POINTER);
  const json = await readJsonObject(operation, pointer).catch((error: unknown) => {
    if (!(error instanceof MissingFileError)) throw error;
    throw new MissingFileError(pointer, `${operation}: ${directory} holds no checkpoint (no ${POINTER}).`, {
      cause: error,
    });
  });
  const corrupt = (path: string, what: string) => new CorruptFileError(path, `${operation}: ${path} ${what}`);
  const { format, folder: name, files } = json;
  if (format !== FORMAT)
    throw corrupt(pointer, `has the format ${JSON.stringify(format)}, this version reads ${FORMAT}.`);
  if (typeof name !== "string" || !FOLDER.test(name) || !isJsonObject(files)) {
    throw corrupt(pointer, "names no checkpoint.");
  }
  const folder = join(directory, name);
  const tensors = new Map<string, SafetensorsFile>();
  try {
    for (const [file, digest] of Object.entries(files)) {
      if (!/^[a-z]+\.(?:safetensors|json)$/.test(file)) throw corrupt(pointer, `names the file "${file}".`);
      const path = join(folder, file);
      if ((await fileDigest(path)) !== digest)
        throw corrupt(path, "isn't the file that was saved. Go back to an older copy.");
      if (file.endsWith(".safetensors")) {
        tensors.set(file.slice(0, -".safetensors".length), await openSafetensors(path));
      }
    }
    const state = await readJsonObject(operation, join(folder, STATE));
    return {
      folder,
      state,
      tensors,
      [Symbol.asyncDispose]: async () => {
        for (const file of tensors.values()) await file.close();
      },
    };
  } catch (error) {
    for (const file of tensors.values()) await file.close();
    throw error;
  }
}

/** Replaces a file in one step. */
async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
  try {
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Makes renames in a folder durable, where the system can. */
async function sync(folder: string): Promise<void> {
  const file = await open(folder, "r").catch(() => undefined);
  try {
    await file?.sync().catch(() => undefined);
  } finally {
    await file?.close();
  }
}
