/** Shows a graph as text, one node a line: for snapshots and for reading. */
import { nodesInOrder } from "./traverse.js";
import type { Attribute, Value } from "./value.js";

/** Prints what `outputs` depend on: `%2 float32[B, 384] = Gemm(%1, p/w, transB=1)  # layer.0`. */
export function printGraph(outputs: Readonly<Record<string, Value>>): string {
  const names = new Map<Value, string>();
  const nameOf = (value: Value | undefined): string => {
    if (!value) return "–";
    const { source } = value;
    if (source.kind === "node") return names.get(value)!;
    if (source.kind === "constant") return source.data.length === 1 ? String(source.data[0]) : `constant ${value}`;
    return `${source.kind === "input" ? "in" : "p"}/${source.name}`;
  };
  const lines = nodesInOrder(Object.values(outputs)).map((node) => {
    const results = node.outputs.map((output) => {
      names.set(output, `%${names.size}`);
      return `${names.get(output)} ${output}`;
    });
    const attributes = Object.entries(node.attributes).map(([key, value]) => `${key}=${formatAttribute(value)}`);
    const call = `${node.op.name}(${[...node.inputs.map(nameOf), ...attributes].join(", ")})`;
    return `${results.join(", ")} = ${call}${node.scope ? `  # ${node.scope}` : ""}`;
  });
  return [...lines, ...Object.entries(outputs).map(([name, value]) => `${name}: ${nameOf(value)} ${value}`)].join("\n");
}

function formatAttribute(value: Attribute): string {
  if (Array.isArray(value)) return `[${value}]`;
  return typeof value === "object" ? String((value as { float: number }).float) : String(value);
}
