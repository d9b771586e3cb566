/** Walks a graph from its outputs. */
import type { GraphNode, Value } from "./value.js";

/** The nodes that `outputs` depend on, each after its inputs. Without recursion: models are deep. */
export function nodesInOrder(outputs: readonly Value[]): GraphNode[] {
  const order: GraphNode[] = [];
  const state = new Map<GraphNode, "open" | "done">();
  const stack = outputs.toReversed().flatMap(nodeOf);
  while (stack.length > 0) {
    const node = stack.at(-1)!;
    if (state.get(node) === undefined) {
      state.set(node, "open");
      for (const input of node.inputs.toReversed()) {
        for (const before of nodeOf(input)) if (!state.has(before)) stack.push(before);
      }
    } else {
      stack.pop();
      if (state.get(node) === "open") {
        state.set(node, "done");
        order.push(node);
      }
    }
  }
  return order;
}

/** The leaves (inputs, parameters, constants) that `outputs` read, in order of first use. */
export function leavesOf(outputs: readonly Value[]): Value[] {
  const leaves = new Set<Value>();
  const visit = (value: Value | undefined) => {
    if (value && value.source.kind !== "node") leaves.add(value);
  };
  for (const node of nodesInOrder(outputs)) node.inputs.forEach(visit);
  outputs.forEach(visit);
  return [...leaves];
}

function nodeOf(value: Value | undefined): GraphNode[] {
  return value?.source.kind === "node" ? [value.source.node] : [];
}
