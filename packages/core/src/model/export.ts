/** Writes a model directory anew with int8 weights: about a quarter of the size, loads as it is. */
import { join, relative } from "node:path";
import { InvalidInputError, ModelError } from "../errors.js";
import { scaleName } from "./int8-weights.js";
import { readJson } from "./json-file.js";
import { readModelDirectory } from "./model-directory.js";
import { quantizeRows } from "./quantize.js";
import { openWeights, type SafetensorsFile, type TensorToWrite, writeSafetensors } from "./safetensors.js";
import { readSecondStage } from "./second-stage.js";
import { COMPANIONS, copyFiles, requireFree, writeDirectory } from "./write-directory.js";

/**
 * Exports a biencoder with every matrix as int8 and a scale a row; norms, biases and positions stay float32. The
 * weights' metadata name the digest of the weights that they were made from. `target` must not exist, or be an empty
 * directory; it is there wholly or not at all. Raises InvalidInputError for weights that are int8 already.
 */
export async function exportInt8(source: string, target: string): Promise<void> {
  await requireFree("exportInt8", target);
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
  await writeDirectory("exportInt8", target, async (folder) => {
    await copyCompanions(directory.path, folder);
    const weights = join(folder, relative(directory.path, directory.tokenizer), "model.safetensors");
    await writeSafetensors(weights, await quantized(file), {
      format: "pt",
      cde_dtype: "int8",
      cde_source_sha256: await file.digest(),
    });
  });
}

/** From the directory itself and from the folders of its modules, which `readModelDirectory` has checked. */
async function copyCompanions(path: string, target: string): Promise<void> {
  const modules = (await readJson("exportInt8", join(path, "modules.json"))) as { path: string }[];
  for (const folder of new Set(["", ...modules.map((module) => module.path)])) {
    await copyFiles(join(path, folder), join(target, folder), COMPANIONS);
  }
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
