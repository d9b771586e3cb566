/** Writes a model directory anew with int8 weights: about a quarter of the size, loads as it is. */
import { mkdir, mkdtemp, readdir, readFile, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { InvalidInputError, ModelError, RuntimeFailureError } from "../errors.js";
import { scaleName } from "./int8-weights.js";
import { readJson } from "./json-file.js";
import { readModelDirectory } from "./model-directory.js";
import { quantizeRows } from "./quantize.js";
import { openWeights, type SafetensorsFile, type TensorToWrite, writeSafetensors } from "./safetensors.js";
import { readSecondStage } from "./second-stage.js";

/** What a directory of sentence-transformers, or a module's folder in it, holds beside weights; what exists is copied. */
const COMPANIONS = [
  "config.json",
  "modules.json",
  "sentence_bert_config.json",
  "config_sentence_transformers.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
];

/**
 * Exports a biencoder with every matrix as int8 and a scale a row; norms, biases and positions stay float32. The
 * weights' metadata name the digest of the weights that they were made from. `target` must not exist, or be an empty
 * directory; it is there wholly or not at all. Raises InvalidInputError for weights that are int8 already.
 */
export async function exportInt8(source: string, target: string): Promise<void> {
  await requireFree(target);
  const directory = await readModelDirectory(source);
  if (directory.config.architecture !== "bert") {
    throw new ModelError(
      `exportInt8: only BERT can be exported as int8 so far, ${source} is ${directory.config.architecture}.`,
    );
  }
  const stage = await readSecondStage(source, directory.config);
  if (stage !== undefined && stage !== "spectral") {
    throw new ModelError(
      `exportInt8: ${source} has a ${stage.kind} stage, which runs in float32 only. Export its base.`,
    );
  }
  await using file = await openWeights(directory.weights);
  if ([...file.tensors.values()].some(({ dtype }) => dtype === "I8")) {
    throw new InvalidInputError(
      `exportInt8: the weights of ${source} are int8 already. Export the float32 directory that they were made from.`,
    );
  }
  const place = resolve(target);
  await mkdir(dirname(place), { recursive: true });
  const temporary = await mkdtemp(join(dirname(place), `.${basename(place)}-`));
  try {
    await copyCompanions(directory.path, temporary);
    const weights = join(temporary, relative(directory.path, directory.tokenizer), "model.safetensors");
    await writeSafetensors(weights, await quantized(file), {
      format: "pt",
      cde_dtype: "int8",
      cde_source_sha256: await file.digest(),
    });
    await rmdir(place).catch(ignoreMissing); // an empty one, over which not every system renames
    await rename(temporary, place);
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true });
    if (cause instanceof Error && "syscall" in cause) {
      throw new RuntimeFailureError(`exportInt8: can't write ${target}: ${cause.message}`, { cause });
    }
    throw cause;
  }
}

async function requireFree(target: string): Promise<void> {
  const entries = await readdir(target).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw new InvalidInputError(`exportInt8: can't write to ${target}: ${error.message}`, { cause: error });
  });
  if (entries.length === 0) return;
  throw new InvalidInputError(
    `exportInt8: ${target} holds ${entries.length} files already. Give another target, or delete it first.`,
  );
}

/** From the directory itself and from the folders of its modules, which `readModelDirectory` has checked. */
async function copyCompanions(path: string, target: string): Promise<void> {
  const modules = (await readJson("exportInt8", join(path, "modules.json"))) as { path: string }[];
  for (const folder of new Set(["", ...modules.map((module) => module.path)])) {
    for (const name of COMPANIONS) {
      const bytes = await readFile(join(path, folder, name)).catch(ignoreMissing);
      if (!bytes) continue;
      await mkdir(join(target, folder), { recursive: true });
      await writeFile(join(target, folder, name), bytes);
    }
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}

/** All tensors that an encoder reads, at most a quarter of the file's size. */
async function quantized(file: SafetensorsFile): Promise<TensorToWrite[]> {
  const tensors: TensorToWrite[] = [];
  for (const [name, { dtype, shape }] of file.tensors) {
    // Buffers, and heads that no embedding passes.
    if (!/^F|^BF/.test(dtype) || !/^(?:\w+\.)?(?:embeddings|encoder)\./.test(name)) continue;
    const data = await file.readFloat32(name);
    if (shape.length === 2 && !/(position|token_type)_embeddings/.test(name)) {
      const { values, scales } = quantizeRows(data, shape[0]!, name);
      tensors.push({ name, dtype: "I8", shape, data: values });
      tensors.push({ name: scaleName(name), dtype: "F32", shape: [shape[0]!], data: scales });
    } else tensors.push({ name, dtype: "F32", shape, data });
  }
  return tensors;
}
