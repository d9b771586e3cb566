/**
 * A checkpoint's float weights on their way into sessions: used where they lie in the file, if ONNX Runtime can map them,
 * else read, converted and copied.
 */
import type { Value } from "../graph/index.js";
import { checkTensors, loadWeights } from "../model/load-weights.js";
import { type MappedWeights, mappedWeights } from "../model/mapped-weights.js";
import type { SafetensorsFile } from "../model/safetensors.js";
import { encodeModel, plainName } from "../onnx/encode.js";
import type { Runtime, Session } from "../runtime/runtime.js";

export interface FloatWeightsOptions {
  /** What the checkpoint puts before our names, such as `"bert."`. @default "" */
  readonly prefix?: string;
  readonly signal?: AbortSignal | undefined;
  /** Called once a weight that was handed over. */
  readonly onTensor?: () => void;
}

export class FloatWeights {
  /** Names in the file of all tensors that the graphs read. */
  readonly names: ReadonlySet<string>;
  readonly #file: SafetensorsFile;
  readonly #runtime: Runtime;
  readonly #mapped: MappedWeights | undefined;
  readonly #options: FloatWeightsOptions;

  private constructor(
    file: SafetensorsFile,
    runtime: Runtime,
    names: ReadonlySet<string>,
    mapped: MappedWeights | undefined,
    options: FloatWeightsOptions,
  ) {
    this.#file = file;
    this.#runtime = runtime;
    this.names = names;
    this.#mapped = mapped;
    this.#options = options;
  }

  /**
   * Checks what all `graphs` ask for against the file, before any weight is moved. Raises ModelError for missing and
   * misshapen tensors, by name.
   */
  static async of(
    file: SafetensorsFile,
    graphs: readonly Readonly<Record<string, Value>>[],
    runtime: Runtime,
    options: FloatWeightsOptions = {},
  ): Promise<FloatWeights> {
    const { prefix = "" } = options;
    const ports = graphs.flatMap((outputs) => encodeModel(outputs).parameters);
    const wanted = [...new Map(ports.map((port) => [plainName(port), port]))].map(([name, port]) => ({ name, port }));
    checkTensors(file, wanted, prefix);
    const names = wanted.map(({ name }) => prefix + name);
    return new FloatWeights(file, runtime, new Set(names), await mappedWeights(file, names), options);
  }

  /** Opens one of the graphs. Copies, where they have to be made, exist of one graph at a time. */
  async open(outputs: Readonly<Record<string, Value>>): Promise<Session> {
    const { prefix = "", signal, onTensor } = this.#options;
    signal?.throwIfAborted();
    const mapped = this.#mapped;
    if (mapped) {
      const place = (name: string) => mapped.place(prefix + name);
      const model = encodeModel(outputs, { weights: { kind: "mapped", place } });
      const session = await this.#runtime.open(model, { folder: mapped.folder });
      for (const _ of model.parameters) onTensor?.();
      signal?.throwIfAborted();
      return session;
    }
    const model = encodeModel(outputs, { weights: { kind: "external" } });
    const store = this.#runtime.createStore();
    try {
      await loadWeights(this.#file, model.parameters, store, { prefix, signal, ...(onTensor && { onTensor }) });
      return await this.#runtime.open(model, { weights: store });
    } finally {
      await store.drop();
    }
  }
}
