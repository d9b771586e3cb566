/** Graph to ONNX: names every value, writes every node, and returns the bytes of a model. */
import { create, toBinary } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TensorProto_DataType as TensorType,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "onnx-buf";
import { InvalidInputError, internal } from "../errors.js";
import { type Dim, parseDim, type Shape } from "../graph/dim.js";
import type { Emitter } from "../graph/op.js";
import { leavesOf, nodesInOrder } from "../graph/traverse.js";
import type { Attribute, ConstantData, DType, GraphNode, Value } from "../graph/value.js";

const OPSET = 20n; // LayerNormalization 17, Split 18, Gelu 20
const IR_VERSION = 10n;
const MICROSOFT = "com.microsoft";

const DATA_TYPE: Record<DType, TensorType> = {
  float32: TensorType.FLOAT,
  float64: TensorType.DOUBLE,
  int32: TensorType.INT32,
  int64: TensorType.INT64,
  int8: TensorType.INT8,
  uint8: TensorType.UINT8,
  bool: TensorType.BOOL,
};

/** A tensor that is an input or an output of an encoded model. */
export interface Port {
  /** The name in the model: `in/ids`, `p/layer.0.weight`, or an output's own. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

export interface EncodedModel {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What each run is given, under `in/…`. */
  readonly inputs: readonly Port[];
  /** Weights, under `p/…`. */
  readonly parameters: readonly Port[];
  /** How they enter: with the feeds of each run, from beside the model when it is opened, or they are in it. */
  readonly weights: WeightForm["kind"];
  readonly outputs: readonly Port[];
}

/** Where the little-endian numbers of a tensor lie. */
export interface FilePlace {
  /** Name of the file in its folder. */
  readonly file: string;
  /** In bytes. */
  readonly start: number;
  readonly byteLength: number;
}

/** How weights enter the model. */
export type WeightForm =
  /** Inputs of every run: for training. */
  | { readonly kind: "feeds" }
  /** Constants whose bytes are handed over beside the model, each as a file of the weight's name. */
  | { readonly kind: "external" }
  /** Constants that ONNX Runtime maps from files of one folder, which `Runtime.open` is told: nothing is copied. */
  | { readonly kind: "mapped"; place(name: string): FilePlace }
  /** Constants inside the model: for a file that other programs read. At most 2 GB. */
  | { readonly kind: "embedded"; read(name: string): ConstantData };

export interface EncodeOptions {
  /** @default { kind: "feeds" } */
  readonly weights?: WeightForm;
  /**
   * Names without the prefixes `in/` and `p/`, and ops of the ONNX standard where the graph doesn't name others itself:
   * for files that other programs read. @default false
   */
  readonly plainNames?: boolean;
}

/** Encodes what `outputs` (by name) depend on. */
export function encodeModel(outputs: Readonly<Record<string, Value>>, options: EncodeOptions = {}): EncodedModel {
  const { weights = { kind: "feeds" }, plainNames = false } = options;
  const values = Object.values(outputs);
  const writer = new ModelWriter(plainNames, leavesOf(values), weights);
  for (const [name, value] of Object.entries(outputs)) writer.reserve(name, value);
  for (const node of nodesInOrder(values)) writer.write(node);
  return writer.finish(outputs);
}

class ModelWriter implements Emitter {
  readonly #nodes: NodeProto[] = [];
  readonly #initializers: TensorProto[] = [];
  readonly #names = new Map<Value, string>();
  readonly #leafNames = new Set<string>();
  readonly #symbols = new Map<string, { value: Value; axis: number }>();
  readonly #computedDims = new Map<string, string>();
  readonly #int64s = new Map<string, string>();
  readonly #weights: WeightForm;
  readonly #plainNames: boolean;
  readonly #leaves: readonly Value[];
  #scope = "";
  #count = 0;
  #usesMicrosoft = false;

  constructor(plainNames: boolean, leaves: readonly Value[], weights: WeightForm) {
    this.#plainNames = plainNames;
    this.#leaves = leaves;
    this.#weights = weights;
    for (const leaf of leaves) {
      if (leaf.source.kind === "node" || leaf.source.kind === "constant") continue;
      const name = this.#leafName(leaf);
      if (this.#leafNames.has(name))
        throw new InvalidInputError(`encodeModel: two different tensors are named ${name}.`);
      this.#leafNames.add(name);
      this.#names.set(leaf, name);
      leaf.shape.forEach((dim, axis) => {
        if (typeof dim === "string" && leaf.source.kind === "input" && !this.#symbols.has(dim)) {
          this.#symbols.set(dim, { value: leaf, axis });
        }
      });
    }
  }

  get standard(): boolean {
    return this.#plainNames;
  }

  /** Gives a node's output its public name; a leaf, or a value with two names, gets an `Identity` at the end. */
  reserve(name: string, value: Value): void {
    if (this.#leafNames.has(name) || name.includes(":") || name === "") {
      throw new InvalidInputError(
        `encodeModel: an output can't be named "${name}": an input or weight has that name, or it has a colon.`,
      );
    }
    if (value.source.kind === "node" && !this.#names.has(value)) this.#names.set(value, name);
  }

  write(node: GraphNode): void {
    this.#scope = node.scope;
    const outputs = node.outputs.map((output) => {
      const name = this.#names.get(output) ?? this.#fresh(node.op.name);
      this.#names.set(output, name);
      return name;
    });
    if (node.op.lower) node.op.lower(this, node, outputs);
    else {
      const inputs = node.inputs.map((value) => (value ? this.name(value) : ""));
      this.node(node.op.name, inputs, node.attributes, { outputs, ...(node.op.domain && { domain: node.op.domain }) });
    }
  }

  finish(outputs: Readonly<Record<string, Value>>): EncodedModel {
    this.#scope = "outputs";
    for (const [name, value] of Object.entries(outputs)) {
      if (this.name(value) !== name) this.node("Identity", [this.name(value)], {}, { outputs: [name] });
    }
    const ports = (kind: "input" | "parameter") =>
      this.#leaves.flatMap((leaf) => (leaf.source.kind === kind ? [portOf(this.name(leaf), leaf)] : []));
    const inputs = ports("input");
    const parameters = ports("parameter");
    const outputPorts = Object.entries(outputs).map(([name, value]) => portOf(name, value));
    const fed = this.#weights.kind === "feeds" ? [...inputs, ...parameters] : inputs;
    if (this.#weights.kind !== "feeds") this.#addWeights();

    const model = create(ModelProtoSchema, {
      irVersion: IR_VERSION,
      producerName: "cde-js",
      opsetImport: [
        create(OperatorSetIdProtoSchema, { domain: "", version: OPSET }),
        ...(this.#usesMicrosoft ? [create(OperatorSetIdProtoSchema, { domain: MICROSOFT, version: 1n })] : []),
      ],
      graph: create(GraphProtoSchema, {
        name: "graph",
        node: this.#nodes,
        initializer: this.#initializers,
        input: fed.map(valueInfo),
        output: outputPorts.map(valueInfo),
      }),
    });
    const bytes = toBinary(ModelProtoSchema, model);
    return { bytes, inputs, parameters, weights: this.#weights.kind, outputs: outputPorts };
  }

  name(value: Value): string {
    const known = this.#names.get(value);
    if (known !== undefined) return known;
    if (value.source.kind !== "constant") throw internal(`${value} is used before it is made`);
    const name = this.#fresh("constant");
    this.#initializers.push(
      create(TensorProtoSchema, {
        name,
        dataType: DATA_TYPE[value.dtype],
        dims: value.shape.map((dim) => BigInt(dim)),
        rawData: bytesOf(value.source.data),
      }),
    );
    this.#names.set(value, name);
    return name;
  }

  node(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    options: { outputs?: readonly string[]; domain?: string } = {},
  ): string {
    const outputs = options.outputs ?? [this.#fresh(opType)];
    const trimmed = [...inputs];
    while (trimmed.at(-1) === "") trimmed.pop();
    if (options.domain === MICROSOFT) this.#usesMicrosoft = true;
    this.#nodes.push(
      create(NodeProtoSchema, {
        name: `${this.#scope ? `${this.#scope}/` : ""}${opType}_${this.#nodes.length}`,
        opType,
        domain: options.domain ?? "",
        input: trimmed,
        output: [...outputs],
        attribute: Object.entries(attributes).map(([name, value]) => attributeOf(name, value)),
      }),
    );
    return outputs[0]!;
  }

  int64(values: readonly number[]): string {
    const key = values.join();
    let name = this.#int64s.get(key);
    if (name === undefined) {
      name = this.#fresh("int64");
      this.#int64s.set(key, name);
      this.#initializers.push(
        create(TensorProtoSchema, {
          name,
          dataType: TensorType.INT64,
          dims: [BigInt(values.length)],
          rawData: bytesOf(BigInt64Array.from(values, BigInt)),
        }),
      );
    }
    return name;
  }

  shape(shape: Shape): string {
    if (shape.every((dim) => typeof dim === "number")) return this.int64(shape as number[]);
    const key = JSON.stringify(shape);
    const known = this.#computedDims.get(key);
    if (known !== undefined) return known;
    const parts = shape.map((dim) => this.#dim(dim));
    const name = parts.length === 1 ? parts[0]! : this.node("Concat", parts, { axis: 0 });
    this.#computedDims.set(key, name);
    return name;
  }

  /** A dimension as an int64 tensor of one entry, read from a graph input once. */
  #dim(dim: Dim): string {
    const parsed = parseDim(dim);
    if (typeof parsed === "number") return this.int64([parsed]);
    const known = this.#computedDims.get(JSON.stringify(dim));
    if (known !== undefined) return known;
    const source = this.#symbols.get(String(dim));
    let name: string;
    if (source || typeof parsed === "string") {
      if (!source) throw new InvalidInputError(`encodeModel: no input of the graph has the dimension "${dim}".`);
      name = this.node("Shape", [this.name(source.value)], { start: source.axis, end: source.axis + 1 });
    } else {
      const op = parsed.operation === "+" ? "Add" : "Mul";
      name = parsed.parts.map((part) => this.#dim(part)).reduce((a, b) => this.node(op, [a, b]));
    }
    this.#computedDims.set(JSON.stringify(dim), name);
    return name;
  }

  #addWeights(): void {
    for (const leaf of this.#leaves) {
      if (leaf.source.kind !== "parameter") continue;
      const proto = create(TensorProtoSchema, {
        name: this.name(leaf),
        dataType: DATA_TYPE[leaf.dtype],
        dims: leaf.shape.map((dim) => BigInt(dim)),
      });
      if (this.#weights.kind === "embedded") {
        const data = this.#weights.read(leaf.source.name);
        if (data.length !== leaf.shape.reduce<number>((a, b) => a * Number(b), 1)) {
          throw new InvalidInputError(`encodeModel: ${leaf.source.name} is ${leaf}, got ${data.length} numbers.`);
        }
        proto.rawData = bytesOf(data);
      } else {
        proto.dataLocation = TensorProto_DataLocation.EXTERNAL;
        proto.externalData = this.#placeOf(leaf.source.name, proto.name).map((entry) =>
          create(StringStringEntryProtoSchema, entry),
        );
      }
      this.#initializers.push(proto);
    }
  }

  /** ONNX's entries: a file, or the name under which the bytes come beside the model. */
  #placeOf(weight: string, name: string): { key: string; value: string }[] {
    if (this.#weights.kind !== "mapped") return [{ key: "location", value: name }];
    const { file, start, byteLength } = this.#weights.place(weight);
    return [
      { key: "location", value: file },
      { key: "offset", value: String(start) },
      { key: "length", value: String(byteLength) },
    ];
  }

  #leafName(leaf: Value): string {
    if (leaf.source.kind !== "input" && leaf.source.kind !== "parameter") throw internal("not a leaf");
    if (this.#plainNames) return leaf.source.name;
    return `${leaf.source.kind === "input" ? "in" : "p"}/${leaf.source.name}`;
  }

  #fresh(stem: string): string {
    return `${stem}:${this.#count++}`; // a colon can't stand in a name of ours, so the two never collide
  }
}

/** What the caller calls a port: its name in the model without the prefix `in/` or `p/`. */
export function plainName({ name }: Port): string {
  return name.replace(/^(in|p)\//, "");
}

function portOf(name: string, { dtype, shape }: Value): Port {
  return { name, dtype, shape };
}

function valueInfo({ name, dtype, shape }: Port): ValueInfoProto {
  const dims = shape.map((dim) =>
    create(TensorShapeProto_DimensionSchema, {
      value: typeof dim === "number" ? { case: "dimValue", value: BigInt(dim) } : { case: "dimParam", value: dim },
    }),
  );
  const tensor = create(TypeProto_TensorSchema, {
    elemType: DATA_TYPE[dtype],
    shape: create(TensorShapeProtoSchema, { dim: dims }),
  });
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, { value: { case: "tensorType", value: tensor } }),
  });
}

function attributeOf(name: string, value: Attribute): AttributeProto {
  if (typeof value === "number")
    return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) });
  if (typeof value === "string") {
    return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) });
  }
  if ("float" in value) return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: value.float });
  return create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: value.map(BigInt) });
}

/** The little-endian bytes of a typed array, without a copy. */
function bytesOf(data: ConstantData): Uint8Array<ArrayBuffer> {
  return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
}
