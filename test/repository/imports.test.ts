import { describe, expect, test } from "vitest";
import { isCheckout, readText, repositoryFiles } from "./files.js";
import { readImports, wrongImports } from "./imports.js";

test.skipIf(!isCheckout)("every import of every package points the right way (needs a git checkout)", () => {
  const sources = repositoryFiles().filter((path) => /^packages\/[^/]+\/src\/.*\.ts$/.test(path));
  expect(sources).toContain("packages/core/src/index.ts");
  expect(sources.flatMap((path) => wrongImports(path, readText(path)))).toEqual([]);
});

test("reads every way to import, and no import that stands in a comment or a string", () => {
  const source = `
    import { a } from "./static.js";
    import type { B } from "./type.js";
    import "./effect.js";
    export * from "./star.js";
    export { c } from "./named.js";
    type D = import("./inline-type.js").D;
    const e = await import("./dynamic.js");
    const f = require("./required.js");
    const g = await import(\`./\${a}.js\`);
    // import { h } from "./comment.js";
    const i = 'import { j } from "./string.js"';
  `;
  expect(readImports("x.ts", source).map(({ specifier, kind, line }) => `${line} ${kind} ${specifier}`)).toEqual([
    "2 static ./static.js",
    "3 type ./type.js",
    "4 static ./effect.js",
    "5 static ./star.js",
    "6 static ./named.js",
    "7 type ./inline-type.js",
    "8 dynamic ./dynamic.js",
    "9 static ./required.js",
    "10 dynamic undefined",
  ]);
});

describe("a planted violation is found", () => {
  const planted: [file: string, source: string, message: string][] = [
    ["core/src/graph/op.ts", 'import { run } from "../runtime/runtime.js";', "graph may not import runtime"],
    ["core/src/graph/op.ts", 'type R = import("../runtime/runtime.js").R;', "graph may not import runtime"],
    ["core/src/onnx/encode.ts", 'export * from "../model/load.js";', "onnx may not import model"],
    ["core/src/model/bert.ts", 'import { x } from "../encoder/encoder.js";', "model may not import encoder"],
    ["core/src/encoder/encoder.ts", 'import { x } from "../training/loss.js";', "encoder may not import training"],
    ["core/src/index.ts", 'export { x } from "./training/index.js";', "index may not import training"],
    ["core/src/models/bert.ts", 'import { x } from "../errors.js";', "no layer is known for models/bert.ts"],
    ["core/src/index.ts", 'import { x } from "@cde-js/retriever";', 'core may not import "@cde-js/retriever"'],
    ["retriever/src/index.ts", 'import { x } from "@cde-js/adapters/langchain";', "retriever may not import"],
    ["retriever/src/index.ts", 'import { modelDirectory } from "@cde-js/model-mini";', "retriever may not import"],
    ["adapters/src/langchain/index.ts", 'import { x } from "cde-js";', 'adapters may not import "cde-js"'],
    ["retriever/src/index.ts", 'import { x } from "@cde-js/core/training";', "only the CLI imports training"],
    ["retriever/src/index.ts", 'import { x } from "../../core/src/errors.js";', "leaves the package"],
    ["core/src/graph/op.ts", 'import { Tensor } from "onnxruntime-node";', "only in packages/core/src/runtime/"],
    ["core/src/index.ts", 'const x = await import("@langchain/core/documents");', "only in packages/adapters/"],
    ["adapters/src/langchain/index.ts", 'import { x } from "@qdrant/js-client-rest";', "only in packages/adapters/"],
    ["adapters/src/qdrant/store.ts", 'import { x } from "@qdrant/js-client-rest";', "use import() or a type import"],
    ["retriever/src/index.ts", 'import { x } from "lodash";', "has no home"],
    ["core/src/graph/op.ts", 'import { test } from "vitest";', "is for tests"],
    ["adapters/src/qdrant/store.ts", "const x = await import(name);", "imports a computed name"],
  ];
  test.each(planted)("packages/%s with %s", (file, source, message) => {
    const problems = wrongImports(`packages/${file}`, source);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(message);
  });
});

test("what points the right way passes", () => {
  const right: [file: string, source: string][] = [
    [
      "core/src/runtime/runtime.ts",
      'import { x } from "../graph/op.js"; import { Worker } from "node:worker_threads";',
    ],
    ["core/src/runtime/worker.ts", 'import { InferenceSession } from "onnxruntime-node";'],
    ["core/src/graph/gradient.test.ts", 'import { x } from "../runtime/runtime.js"; import { test } from "vitest";'],
    ["core/src/training/index.ts", 'import { x } from "../index.js";'],
    ["retriever/src/index.ts", 'import { x } from "@cde-js/core/evaluation";'],
    ["adapters/src/qdrant/store.ts", 'const x = await import("@qdrant/js-client-rest");'],
    ["adapters/src/langchain/index.ts", 'import { Embeddings } from "@langchain/core/embeddings";'],
    ["cli/src/evaluate/reranker.ts", "const x = await import(name);"],
    ["cli/src/train.ts", 'import { x } from "@cde-js/core/training";'],
  ];
  expect(right.flatMap(([file, source]) => wrongImports(`packages/${file}`, source))).toEqual([]);
});
