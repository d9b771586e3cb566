/** What an op is: its name in ONNX, shape inference and gradient side by side. */
import { internal } from "../errors.js";
import type { Shape } from "./dim.js";
import { type Attributes, type Float, type GraphNode, scopeNow, type TensorType, Value } from "./value.js";

type Inputs = readonly (Value | undefined)[];
type NoAttributes = Record<never, never>;

/** One gradient per input: a float's, `null` for integers, `undefined` for an optional input that was left out. */
type Gradients<I extends Inputs> = {
  readonly [K in keyof I]: I[K] extends Float
    ? Float | null
    : I[K] extends Float | undefined
      ? Float | null | undefined
      : null;
};

/** What a gradient rule sees. */
export interface GradientArguments<I extends Inputs, A> {
  readonly inputs: I;
  readonly attributes: A;
  /** The (first) output. */
  readonly y: Float;
  readonly outputs: readonly Value[];
  /** Gradient of the (first) output. */
  readonly dy: Float;
  /** Gradients of all outputs; undefined where nothing depends on that output. */
  readonly dys: readonly (Float | undefined)[];
}

/** Writes ONNX nodes; what `lower` is given. Names are ONNX value names. */
export interface Emitter {
  /** Whether the model may hold ops of the ONNX standard alone. */
  readonly standard: boolean;
  name(value: Value): string;
  node(
    opType: string,
    inputs: readonly string[],
    attributes?: Attributes,
    options?: { outputs?: readonly string[]; domain?: string },
  ): string;
  /** A 1-D int64 constant. */
  int64(values: readonly number[]): string;
  /** A 1-D int64 tensor of a shape whose symbols are read from the graph's inputs. */
  shape(shape: Shape): string;
}

/** The definition, as the registry and the encoder see it. */
export interface OpDefinition {
  /** The ONNX name. */
  readonly name: string;
  readonly domain?: string;
  readonly gradient: "none" | ((args: GradientArguments<Inputs, Attributes>) => readonly (Value | null | undefined)[]);
  /** Writes the node where ONNX wants something else than (inputs, attributes) → outputs. */
  readonly lower?: (emitter: Emitter, node: GraphNode, outputs: readonly string[]) => void;
}

interface OpSpec<I extends Inputs, A, O extends readonly Value[]> {
  /** Type and shape of each output; throws `InvalidInputError` with both shapes where they don't fit. */
  infer(inputs: I, attributes: A): { readonly [K in keyof O]: TensorType } | TensorType;
  gradient: "none" | ((args: GradientArguments<I, A>) => Gradients<I>);
  lower?: (
    emitter: Emitter,
    node: GraphNode & { readonly attributes: A & Attributes },
    outputs: readonly string[],
  ) => void;
  domain?: string;
}

type Arguments<I extends Inputs, A> = NoAttributes extends A ? [...I, attributes?: A] : [...I, attributes: A];

/** A function that adds one node to the graph. */
export interface Op<I extends Inputs, A = NoAttributes, Out extends Value = Float> {
  (...args: Arguments<I, A>): Out;
  readonly definition: OpDefinition;
}

/** An op with several outputs. */
export interface MultiOp<I extends Inputs, A, O extends readonly Value[]> {
  (...args: Arguments<I, A>): O;
  readonly definition: OpDefinition;
}

const registry = new Map<string, OpDefinition>();

/** Every op that was defined, by ONNX name (`domain.name` outside of the default one): the gradient test walks it. */
export function definedOps(): ReadonlyMap<string, OpDefinition> {
  return registry;
}

/** Defines an op with one output. `name` is the ONNX name. */
export function defineOp<I extends Inputs, A = NoAttributes, Out extends Value = Float>(
  name: string,
  spec: OpSpec<I, A, [Out]>,
): Op<I, A, Out> {
  const apply = makeOp(name, spec);
  return Object.assign((...args: Arguments<I, A>) => apply.run(args)[0] as Out, { definition: apply.definition });
}

/** Defines an op with several outputs. */
export function defineMultiOp<I extends Inputs, A, O extends readonly Value[]>(
  name: string,
  spec: OpSpec<I, A, O>,
): MultiOp<I, A, O> {
  const apply = makeOp(name, spec);
  return Object.assign((...args: Arguments<I, A>) => apply.run(args) as unknown as O, { definition: apply.definition });
}

function makeOp<I extends Inputs, A, O extends readonly Value[]>(name: string, spec: OpSpec<I, A, O>) {
  // The registry holds definitions of every op in one map, so their input types are forgotten here, once.
  const definition = {
    name,
    gradient: spec.gradient,
    ...(spec.lower && { lower: spec.lower }),
    ...(spec.domain && { domain: spec.domain }),
  } as unknown as OpDefinition;
  const key = spec.domain ? `${spec.domain}.${name}` : name;
  if (registry.has(key)) throw internal(`op ${key} is defined twice`);
  registry.set(key, definition);

  const run = (args: readonly unknown[]): readonly Value[] => {
    const last = args.at(-1);
    const hasAttributes = last !== undefined && !(last instanceof Value);
    const inputs = (hasAttributes ? args.slice(0, -1) : args) as unknown as I;
    const attributes = (hasAttributes ? last : {}) as A;
    const inferred = spec.infer(inputs, attributes);
    const types = (Array.isArray(inferred) ? inferred : [inferred]) as readonly TensorType[];
    const outputs: Value[] = [];
    const node: GraphNode = {
      op: definition,
      inputs,
      attributes: attributes as Attributes,
      outputs,
      scope: scopeNow(),
    };
    types.forEach((type, output) => {
      outputs.push(new Value(type, { kind: "node", node, output }));
    });
    return outputs;
  };
  return { run, definition };
}
