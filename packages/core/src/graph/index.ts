/** The graph builder: values, ops with their gradients, differentiation. */
export { differentiate, gradientsOf, type Seed } from "./differentiate.js";
export { addDims, type Dim, formatShape, multiplyDims, type Shape } from "./dim.js";
export { type Contrast, cosines, crossEntropy, infoNce, maskedLogits } from "./losses.js";
export { definedOps, defineMultiOp, defineOp, type Emitter, type MultiOp, type Op, type OpDefinition } from "./op.js";
export * from "./ops/elementwise.js";
export * from "./ops/matrix.js";
export * from "./ops/normalization.js";
export * from "./ops/quantized.js";
export * from "./ops/shape.js";
export { printGraph } from "./print.js";
export { leavesOf, nodesInOrder } from "./traverse.js";
export {
  type Attributes,
  constant,
  type DType,
  type Float,
  type FloatType,
  type GraphNode,
  type Int,
  input,
  parameter,
  scalar,
  scope,
  storedTensor,
  type TensorType,
  Value,
} from "./value.js";
