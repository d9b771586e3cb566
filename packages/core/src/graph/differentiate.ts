/** Reverse-mode differentiation: extends a graph with the gradients of some of its values. */
import { InvalidInputError, internal } from "../errors.js";
import { sameShape } from "./dim.js";
import { add } from "./ops/elementwise.js";
import { reduceSum } from "./ops/matrix.js";
import { reshape } from "./ops/shape.js";
import { nodesInOrder } from "./traverse.js";
import { absoluteScope, type Float, type GraphNode, scalar, type Value } from "./value.js";

/** A value and the gradient that arrives at it from outside. */
export type Seed = readonly [value: Float, gradient: Float];

/**
 * The gradient of Σ⟨value, gradient⟩ over the seeds, for each target. With a loss the seed is `[loss, 1]`
 * (`gradientsOf`); with `[embeddings, dEmbeddings]`, where `dEmbeddings` is an input of the graph, the same walk is the
 * second half of gradient caching (Gao et al. 2021).
 */
export function differentiate(seeds: readonly Seed[], targets: readonly Float[]): Float[] {
  const nodes = nodesInOrder(seeds.map(([value]) => value));
  const relevant = dependentsOf(targets, nodes);
  const gradientOf = new Map<Value, Float>();
  const accumulate = (value: Value, gradient: Float) => {
    const fitted = undoBroadcast(gradient, value);
    const sum = gradientOf.get(value);
    gradientOf.set(value, sum ? add(sum, fitted) : fitted);
  };
  for (const [value, gradient] of seeds) {
    if (gradient.dtype !== value.dtype || !sameShape(gradient.shape, value.shape)) {
      throw new InvalidInputError(`differentiate: the gradient ${gradient} does not fit its value ${describe(value)}.`);
    }
    accumulate(value, gradient);
  }

  for (const node of nodes.toReversed()) {
    const dys = node.outputs.map((output) => gradientOf.get(output));
    if (!relevant.has(node) || !dys.some(Boolean)) continue;
    absoluteScope(node.scope ? `gradient/${node.scope}` : "gradient", () => {
      propagate(node, dys).forEach((dx, i) => {
        const x = node.inputs[i];
        if (dx && x && (targets.includes(x as Float) || dependsOn(x, relevant))) accumulate(x, dx as Float);
      });
    });
  }
  return targets.map((target) => {
    const gradient = gradientOf.get(target);
    if (!gradient) throw new InvalidInputError(`differentiate: no path leads from the seeds to ${describe(target)}.`);
    return gradient;
  });
}

/** Gradients of a scalar loss. */
export function gradientsOf(loss: Float, targets: readonly Float[]): Float[] {
  if (loss.rank !== 0) throw new InvalidInputError(`gradientsOf: the loss must be a single number, got ${loss}.`);
  return differentiate([[loss, scalar(1, loss.dtype)]], targets);
}

function propagate(node: GraphNode, dys: readonly (Float | undefined)[]): readonly (Value | null | undefined)[] {
  const { op, inputs, attributes, outputs } = node;
  if (op.gradient === "none") {
    throw new InvalidInputError(
      `differentiate: ${op.name} (${node.scope || "top"}) has no gradient, and a target lies behind it.`,
    );
  }
  const [dy] = dys;
  // Only ops with several outputs may lack the gradient of the first; those read `dys`.
  return op.gradient({ inputs, attributes, outputs, y: outputs[0] as Float, dys, dy: dy as Float });
}

/** The nodes through which some target reaches the seeds. */
function dependentsOf(targets: readonly Value[], nodes: readonly GraphNode[]): Set<GraphNode> {
  const wanted = new Set<Value>(targets);
  const relevant = new Set<GraphNode>();
  for (const node of nodes) {
    if (node.inputs.some((x) => x && (wanted.has(x) || dependsOn(x, relevant)))) relevant.add(node);
  }
  return relevant;
}

function dependsOn(value: Value, nodes: ReadonlySet<GraphNode>): boolean {
  return value.source.kind === "node" && nodes.has(value.source.node);
}

/** Sums a gradient over the axes along which its value was broadcast. */
function undoBroadcast(gradient: Float, value: Value): Float {
  if (sameShape(gradient.shape, value.shape)) return gradient;
  const missing = gradient.rank - value.rank;
  if (missing < 0) throw internal(`a gradient ${gradient} of lower rank than its value ${value}`);
  const axes = gradient.shape.flatMap((dim, axis) =>
    axis < missing || (value.shape[axis - missing] === 1 && dim !== 1) ? [axis] : [],
  );
  const summed = axes.length > 0 ? reduceSum(gradient, { axes, keep: true }) : gradient;
  return sameShape(summed.shape, value.shape) ? summed : reshape(summed, value.shape);
}

function describe(value: Value): string {
  return value.source.kind === "input" || value.source.kind === "parameter"
    ? `${value.source.name} ${value}`
    : String(value);
}
