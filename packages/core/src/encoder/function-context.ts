/** The file of a context that `contextualize` made: what it was made of, and the probe that its model is known by. */
import { createHash } from "node:crypto";
import type { Calibration } from "../context/calibration/calibration.js";
import { CorpusContext, readCalibration } from "../context/corpus-context.js";
import type { SpectralStrength } from "../context/spectral-map.js";
import { Spectrum } from "../context/spectrum.js";
import { CdeError, CorruptFileError } from "../errors.js";
import { canonicalJson, sha256Hex } from "../model/digest.js";
import { openSafetensors, writeSafetensors } from "../model/safetensors.js";

/** A text and its base vector: the only sign by which a model that has but a name can be known again. */
export interface Probe {
  readonly text: string;
  readonly vector: Float32Array;
}

export interface FunctionContext {
  readonly context: CorpusContext;
  readonly probe: Probe;
}

const FORMAT = "cde-function-context/1";
const SHA256 = /^[0-9a-f]{64}$/;

/** Fingerprint of a model behind a function, without context. */
export function modelDigest(modelId: string, dimensions: number): string {
  return sha256Hex(canonicalJson({ version: 1, kind: "function", modelId, dimensions }));
}

/** The context of unit base vectors [texts, dimensions]. @param texts digests, in order */
export async function functionContext(parts: {
  readonly modelId: string;
  readonly strength: SpectralStrength | "off";
  readonly texts: readonly string[];
  readonly vectors: Float32Array;
  readonly spectrum?: Spectrum;
  readonly calibration?: Calibration | undefined;
}): Promise<CorpusContext> {
  const { modelId, strength, texts, vectors, calibration } = parts;
  const dimensions = vectors.length / texts.length;
  return new CorpusContext({
    identity: { model: modelDigest(modelId, dimensions), stage: "spectral", strength, texts },
    modelId,
    vectors,
    dimensions,
    spectrum: parts.spectrum ?? (await Spectrum.fit({ rows: vectors, dimensions })),
    calibration,
  });
}

/** Writes one safetensors file, wholly or not at all. */
export async function saveFunctionContext(path: string, { context, probe }: FunctionContext): Promise<void> {
  const { modelId, identity, size, dimensions, calibration } = context;
  const header = canonicalJson({
    format: FORMAT,
    modelId,
    strength: identity.strength,
    texts: identity.texts,
    probe: probe.text,
    ...(calibration && { calibration }),
  });
  const vectors = context.vectors();
  await writeSafetensors(
    path,
    [
      { name: "vectors", dtype: "F32", shape: [size, dimensions], data: vectors },
      { name: "probe", dtype: "F32", shape: [dimensions], data: probe.vector },
    ],
    { cde: header, checksum: checksum(header, vectors, probe.vector) },
  );
}

/** @throws MissingFileError, CorruptFileError */
export async function loadFunctionContext(path: string): Promise<FunctionContext> {
  await using file = await openSafetensors(path);
  const corrupt = (reason: string, cause?: unknown) =>
    new CorruptFileError(path, `openContextualized: ${path} ${reason}. Build the context again.`, { cause });
  const header = file.metadata.get("cde") ?? "";
  let json: Partial<Record<"format" | "modelId" | "strength" | "texts" | "probe" | "calibration", unknown>>;
  try {
    json = Object(JSON.parse(header));
  } catch (cause) {
    throw corrupt("is not a context that saveContext wrote", cause);
  }
  const { format, modelId, strength, texts, probe } = json;
  if (format !== FORMAT) throw corrupt(`has the format ${JSON.stringify(format)}, this version reads "${FORMAT}"`);
  const [count, dimensions] = file.tensors.get("vectors")?.shape ?? [];
  if (
    typeof modelId !== "string" ||
    typeof probe !== "string" ||
    !Array.isArray(texts) ||
    !texts.every((text) => SHA256.test(String(text))) ||
    count !== texts.length ||
    file.tensors.get("probe")?.shape[0] !== dimensions
  ) {
    throw corrupt("has a header that doesn't describe what it holds");
  }
  const [vectors, probeVector] = [await file.readFloat32("vectors"), await file.readFloat32("probe")];
  if (file.metadata.get("checksum") !== checksum(header, vectors, probeVector)) {
    throw corrupt("does not match its checksum: it was altered after it was saved");
  }
  try {
    const context = await functionContext({
      modelId,
      strength: strength as SpectralStrength | "off",
      texts,
      vectors,
      calibration: readCalibration(json.calibration, corrupt),
    });
    return { context, probe: { text: probe, vector: probeVector } };
  } catch (cause) {
    if (cause instanceof CdeError) throw corrupt("holds what can't be a context", cause);
    throw cause;
  }
}

/** Over the header and the numbers, so that an altered file is told from a saved one. */
function checksum(header: string, ...numbers: readonly Float32Array[]): string {
  const hash = createHash("sha256").update(header);
  for (const data of numbers) hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return hash.digest("hex");
}
