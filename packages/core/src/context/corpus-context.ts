/** What the first stage made of a corpus sample: context vectors, where they come from, and their fingerprint. */
import { createHash } from "node:crypto";
import { CdeError, CorruptFileError, FingerprintMismatchError, InvalidInputError } from "../errors.js";
import { canonicalJson, sha256Hex } from "../model/digest.js";
import {
  encodeSafetensors,
  openSafetensors,
  parseSafetensors,
  type SafetensorsFile,
  type TensorToWrite,
  writeSafetensors,
} from "../model/safetensors.js";
import { type Calibration, parseCalibration } from "./calibration/calibration.js";
import { checkStrength, DEFAULT_STRENGTH, SpectralMap, type SpectralStrength } from "./spectral-map.js";
import { type FloatTensor, Spectrum } from "./spectrum.js";
import { isSmoothing, TokenWeights, type TokenWeightsIdentity } from "./token-weights.js";

/** How a second stage uses the context: the paper's attention over all of it, cached keys and values, or the map. */
export type StageKind = "full" | "prefix" | "prefix+spectral" | "spectral";

/** Whether a stage ends in a spectral map, so that its contexts have a strength. */
export function isSpectral(stage: StageKind): boolean {
  return stage === "spectral" || stage === "prefix+spectral";
}

/** All that determines a context: equal identities are equal fingerprints, on every machine. */
export interface ContextIdentity {
  /** Fingerprint of the vectors without a map: the model's without context, or of its token weights for this corpus. */
  readonly model: string;
  readonly stage: StageKind;
  /** The spectral strength; null for stages without a spectral map. */
  readonly strength: SpectralStrength | "off" | null;
  /** sha256 of each context text, in order. */
  readonly texts: readonly string[];
}

interface ContextParts {
  readonly identity: ContextIdentity;
  readonly modelId: string;
  /** [size, dimensions], one row a context document, in order. */
  readonly vectors: Float32Array;
  readonly dimensions: number;
  readonly spectrum: Spectrum | undefined;
  /** @default [] */
  readonly truncated?: readonly number[];
  readonly calibration?: Calibration | undefined;
  /** Their fingerprint is the identity's model. */
  readonly tokenWeights?: TokenWeights | undefined;
}

const FORMAT = "cde-context/1";
const SPECTRUM = "spectrum.";
const TOKENS = "tokens";

/** sha256 of a context text, as identities hold it. */
export function textDigest(text: string): string {
  return sha256Hex(text);
}

/** The fingerprint of vectors made with a context; where nothing but a map reads it, "off" is the null context. */
export function contextFingerprint(identity: ContextIdentity): string {
  const off = identity.stage === "spectral" && identity.strength === "off";
  return off ? identity.model : sha256Hex(canonicalJson({ version: 1, ...identity }));
}

/** The context of one corpus for one model. Immutable. Made by `encoder.buildContext`, or read from a file. */
export class CorpusContext {
  /** sha256 (hex) of all that determines the vectors made with this context. */
  readonly fingerprint: string;
  readonly identity: ContextIdentity;
  readonly modelId: string;
  readonly dimensions: number;
  /** The map of a spectral context: from base vectors to those with this context. */
  readonly map: SpectralMap | undefined;
  /** @internal The map that the stage ends in; after a prefix it isn't one for base vectors. */
  readonly lastMap: SpectralMap | undefined;
  /** Positions of the context documents that were longer than the model reads and were cut at the end, ascending. */
  readonly truncated: readonly number[];
  /** Why the strength was chosen, where it was chosen for this corpus. */
  readonly calibration: Calibration | undefined;
  /** How much each token counts in the vectors, where the corpus says so. */
  readonly tokenWeights: TokenWeights | undefined;
  readonly #parts: ContextParts;

  /** @internal */
  constructor(parts: ContextParts) {
    const { modelId, dimensions, spectrum, truncated = [] } = parts;
    const { model, stage, strength, texts } = parts.identity;
    // Copies, since the fingerprint must go on describing them.
    const own = typeof strength === "object" && strength ? { a: strength.a, s: strength.s, b: strength.b } : strength;
    const identity = Object.freeze({ model, stage, strength: Object.freeze(own), texts: Object.freeze([...texts]) });
    this.#parts = { ...parts, identity, truncated };
    this.identity = identity;
    this.truncated = Object.freeze([...truncated]);
    this.calibration = parts.calibration && Object.freeze(parts.calibration);
    this.tokenWeights = parts.tokenWeights;
    this.modelId = modelId;
    this.dimensions = dimensions;
    this.lastMap = spectrum && new SpectralMap(spectrum, { strength: identity.strength ?? "off" });
    this.map = stage === "spectral" ? this.lastMap : undefined;
    this.fingerprint = contextFingerprint(identity);
  }

  /** Number of context documents, repeats counted. */
  get size(): number {
    return this.#parts.vectors.length / this.dimensions;
  }

  get stage(): StageKind {
    return this.identity.stage;
  }

  /** @internal The context vectors themselves, the same array at every strength: don't write into it. */
  get rows(): Float32Array {
    return this.#parts.vectors;
  }

  /** The context vectors packed [size, dimensions]; a copy. */
  vectors(): Float32Array {
    return this.#parts.vectors.slice();
  }

  /** The same spectral context at another strength: nothing is encoded again. */
  withStrength(strength: SpectralStrength | "off"): CorpusContext {
    if (!isSpectral(this.stage)) {
      throw new InvalidInputError(`withStrength: a ${this.stage} context has no strength; only a spectral one has.`);
    }
    return new CorpusContext({ ...this.#parts, identity: { ...this.identity, strength }, calibration: undefined });
  }

  /** @internal The same spectral context at the strength that was chosen for it. */
  withCalibration(calibration: Calibration): CorpusContext {
    const identity = { ...this.identity, strength: calibration.strength };
    return new CorpusContext({ ...this.#parts, identity, calibration });
  }

  /** Writes one safetensors file, wholly or not at all. */
  async save(path: string): Promise<void> {
    await writeSafetensors(path, ...this.#file());
  }

  /** The file that `save` writes, for a program that keeps contexts in a store of its own. */
  toBytes(): Uint8Array {
    return encodeSafetensors(...this.#file());
  }

  #file(): [TensorToWrite[], Record<string, string>] {
    const { identity, modelId, vectors, dimensions, spectrum, truncated = [], calibration, tokenWeights } = this.#parts;
    const header = canonicalJson({
      ...{ format: FORMAT, identity, modelId, truncated },
      ...(calibration && { calibration }),
      ...(tokenWeights && { tokenWeights: { ...tokenWeights.identity, documents: tokenWeights.documents } }),
    });
    const spectral = Object.entries(spectrum?.toTensors() ?? {});
    const counts = tokenWeights?.counts;
    return [
      [
        { name: "vectors", dtype: "F32", shape: [this.size, dimensions], data: vectors },
        ...spectral.map(([name, { shape, data }]) => ({ name: SPECTRUM + name, dtype: "F64" as const, shape, data })),
        ...(counts ? [{ name: TOKENS, dtype: "I32" as const, shape: [counts.length], data: counts }] : []),
      ],
      { cde: header, checksum: checksum(header, vectors, spectral, counts) },
    ];
  }

  /**
   * Reads a saved context. Raises MissingFileError, or CorruptFileError for one that was cut, altered or holds
   * numbers that aren't finite. Whether it belongs to a model is checked where it is bound, by `withContext`.
   */
  static async load(path: string): Promise<CorpusContext> {
    await using file = await openSafetensors(path);
    return await readContext(file, path);
  }

  /** Reads what `toBytes` gave, or the bytes of a file that `save` wrote. `path` is named in errors. */
  static async fromBytes(bytes: Uint8Array, path = "(bytes)"): Promise<CorpusContext> {
    return await readContext(parseSafetensors(bytes), path);
  }

  /**
   * The spectral context of texts whose base vectors are at hand: what `buildContext` makes of the texts, and nothing is
   * encoded. `vectors` holds their unit vectors [texts, dimensions] as `base` embeds them as documents.
   *
   * @throws InvalidInputError for no texts, other numbers of vectors, or vectors that aren't of unit length
   */
  static async fromBaseVectors(
    base: {
      readonly modelId: string;
      readonly fingerprint: string;
      readonly dimensions: number;
      readonly tokenWeights?: TokenWeights | undefined;
    },
    texts: readonly string[],
    vectors: Float32Array,
    { strength = DEFAULT_STRENGTH }: { readonly strength?: SpectralStrength | "off" } = {},
  ): Promise<CorpusContext> {
    checkStrength(strength);
    const { modelId, fingerprint, dimensions, tokenWeights } = base;
    if (vectors.length !== texts.length * dimensions) {
      throw new InvalidInputError(
        `fromBaseVectors: ${texts.length} texts of ${dimensions} dimensions are ${texts.length * dimensions} numbers, got ${vectors.length}.`,
      );
    }
    const own = vectors.slice();
    return new CorpusContext({
      identity: { model: fingerprint, stage: "spectral", strength, texts: texts.map(textDigest) },
      modelId,
      vectors: own,
      dimensions,
      spectrum: await Spectrum.fit({ rows: own, dimensions }),
      tokenWeights,
    });
  }

  /** @internal Refuses a context that another model, or the same one set up differently, made. */
  requireModel(operation: string, model: string): void {
    // The encoder of a context with token weights is the one without, or the embedder of its base vectors.
    const own = this.tokenWeights?.identity.model ?? this.identity.model;
    if (model === own || model === this.identity.model) return;
    throw new FingerprintMismatchError(
      model,
      own,
      `${operation}: the context was made by model ${own.slice(0, 12)} (${this.modelId}), this encoder is ${model.slice(0, 12)}. Build the context with the encoder that will use it.`,
    );
  }
}

export type Corrupt = (reason: string, cause?: unknown) => CorruptFileError;
/** A safetensors file, open or in memory. */
type Source = Pick<SafetensorsFile, "metadata" | "tensors"> & {
  read(name: string): unknown;
  readFloat32(name: string): Float32Array | Promise<Float32Array>;
};

async function readContext(file: Source, path: string): Promise<CorpusContext> {
  const corrupt = (reason: string, cause?: unknown) =>
    new CorruptFileError(path, `CorpusContext.load: ${path} ${reason}. Build the context again.`, { cause });
  const header = file.metadata.get("cde");
  if (header === undefined) throw corrupt("is a safetensors file without a context in it");
  const { identity, modelId, truncated, calibration, weights } = parseHeader(header, corrupt);
  const info = file.tensors.get("vectors");
  if (info?.shape.length !== 2 || info.shape[0] !== identity.texts.length || info.shape[1] === 0) {
    throw corrupt(`names ${identity.texts.length} context texts and holds vectors of shape [${info?.shape}]`);
  }
  const vectors = await file.readFloat32("vectors");
  const spectral: [string, FloatTensor][] = [];
  for (const [name, { dtype, shape }] of file.tensors) {
    if (!name.startsWith(SPECTRUM)) continue;
    if (dtype !== "F64") throw corrupt(`holds ${name} as ${dtype}, expected F64`);
    const data = (await file.read(name)) as Float64Array;
    spectral.push([name.slice(SPECTRUM.length), { dtype: "float64", shape, data }]);
  }
  const counts = weights && (await readCounts(file, weights.documents, corrupt));
  if (file.metadata.get("checksum") !== checksum(header, vectors, spectral, counts)) {
    throw corrupt("does not match its checksum: it was altered after it was saved");
  }
  if (!vectors.every(Number.isFinite)) throw corrupt("holds vectors that aren't finite");
  const dimensions = info.shape[1]!;
  const spectrum = isSpectral(identity.stage) ? readSpectrum(spectral, dimensions, corrupt) : undefined;
  const tokenWeights = weights && new TokenWeights(weights.identity, weights.documents, counts!);
  if (tokenWeights && tokenWeights.fingerprint !== identity.model) {
    throw corrupt("holds token weights that its vectors weren't made with");
  }
  return new CorpusContext({ identity, modelId, vectors, dimensions, spectrum, truncated, calibration, tokenWeights });
}

async function readCounts(file: Source, documents: number, corrupt: Corrupt): Promise<Int32Array> {
  const info = file.tensors.get(TOKENS);
  if (info?.dtype !== "I32" || info.shape.length !== 1) {
    throw corrupt(`holds no counts of tokens, I32 in one dimension, but ${info?.dtype} of shape [${info?.shape}]`);
  }
  const counts = (await file.read(TOKENS)) as Int32Array;
  if (!counts.every((count) => count >= 0 && count <= documents)) {
    throw corrupt(`counts tokens in fewer than 0 or more than ${documents} documents`);
  }
  return counts;
}

function readSpectrum(tensors: readonly [string, FloatTensor][], dimensions: number, corrupt: Corrupt): Spectrum {
  let spectrum: Spectrum;
  try {
    spectrum = Spectrum.fromTensors(Object.fromEntries(tensors));
  } catch (cause) {
    if (cause instanceof CdeError) throw corrupt("holds a spectrum that can't be one", cause);
    throw cause;
  }
  if (spectrum.dimensions !== dimensions) {
    throw corrupt(`holds vectors of ${dimensions} dimensions and a spectrum of ${spectrum.dimensions}`);
  }
  return spectrum;
}

/** Over the header and the numbers, so that an altered file is told from a saved one. */
function checksum(
  header: string,
  vectors: Float32Array,
  spectral: readonly [string, FloatTensor][],
  counts: Int32Array | undefined,
): string {
  const hash = createHash("sha256").update(header);
  const update = (data: Float32Array | Float64Array | Int32Array) =>
    hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  update(vectors);
  for (const [name, { data }] of [...spectral].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(name);
    update(data);
  }
  if (counts) update(counts);
  return hash.digest("hex");
}

const SHA256 = /^[0-9a-f]{64}$/;

type WeightsHeader = TokenWeightsIdentity & { readonly documents: number };

type Header = Required<Pick<ContextParts, "identity" | "modelId" | "truncated" | "calibration">> & {
  readonly weights: { readonly identity: TokenWeightsIdentity; readonly documents: number } | undefined;
};

function parseHeader(header: string, corrupt: Corrupt): Header {
  let json: unknown;
  try {
    json = JSON.parse(header);
  } catch (cause) {
    throw corrupt("has a header that isn't JSON", cause);
  }
  const { format, identity, modelId, truncated, calibration, tokenWeights } = (json ?? {}) as {
    format?: unknown;
    tokenWeights?: unknown;
    identity?: Partial<ContextIdentity>;
    modelId?: unknown;
    truncated?: unknown;
    calibration?: unknown;
  };
  if (format !== FORMAT) throw corrupt(`has the format ${JSON.stringify(format)}, this version reads "${FORMAT}"`);
  const digest = (value: unknown): value is string => typeof value === "string" && SHA256.test(value);
  const { model, stage, strength, texts } = identity ?? {};
  const stages: readonly unknown[] = ["full", "prefix", "prefix+spectral", "spectral"];
  if (
    typeof modelId !== "string" ||
    !digest(model) ||
    !stages.includes(stage) ||
    !Array.isArray(texts) ||
    !texts.every(digest) ||
    texts.length === 0 ||
    !Array.isArray(truncated) ||
    !truncated.every((position) => Number.isInteger(position) && position >= 0 && position < texts.length) ||
    !isStrength(strength) ||
    isSpectral(stage as StageKind) !== (strength !== null) ||
    !(tokenWeights === undefined || (stage === "spectral" && isWeights(tokenWeights)))
  ) {
    throw corrupt("has a header that doesn't describe a context");
  }
  return {
    identity: { model, stage: stage as StageKind, strength, texts },
    modelId,
    truncated,
    calibration: readCalibration(calibration, corrupt),
    weights: tokenWeights === undefined ? undefined : weightsOf(tokenWeights as WeightsHeader),
  };
}

function weightsOf({ documents, ...identity }: WeightsHeader): Header["weights"] {
  return { identity, documents };
}

function isWeights(value: unknown): boolean {
  const { model, smoothing, texts, documents, ...others } = (value ?? {}) as Record<string, unknown>;
  return (
    [model, texts].every((digest) => typeof digest === "string" && SHA256.test(digest)) &&
    isSmoothing(smoothing) &&
    Number.isSafeInteger(documents) &&
    (documents as number) > 0 &&
    Object.keys(others).length === 0
  );
}

/** @param value undefined where the strength was given */
export function readCalibration(value: unknown, corrupt: Corrupt): Calibration | undefined {
  if (value === undefined) return undefined;
  try {
    return parseCalibration(value);
  } catch (cause) {
    throw corrupt("has a header with a calibration that can't be one", cause);
  }
}

function isStrength(value: unknown): value is SpectralStrength | "off" | null {
  if (value === "off" || value === null) return true;
  const { a, s, b, ...others } = (value ?? {}) as Record<string, unknown>;
  const unit = (number: unknown) => typeof number === "number" && number >= 0 && number <= 1;
  return [a, s, b].every(unit) && s !== 0 && Object.keys(others).length === 0;
}
