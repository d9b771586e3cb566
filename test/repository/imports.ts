/** Reads the imports of a source file, types included, and says which of them point the wrong way. */
import { posix } from "node:path";
import { parseSync, Visitor } from "oxc-parser";

export interface Import {
  /** The module named, or undefined where the argument of `import()` is computed. */
  readonly specifier: string | undefined;
  readonly kind: "static" | "dynamic" | "type";
  readonly line: number;
}

/** Every import, export-from, `import()`, `import("…").Type` and `require()` of a TypeScript source. */
export function readImports(file: string, source: string): Import[] {
  const { program, errors } = parseSync(file, source);
  if (errors.length > 0) throw new Error(`readImports: ${file} does not parse: ${errors[0]?.message}`);
  const imports: Import[] = [];
  const add = (node: { type: string; start: number; value?: unknown } | null | undefined, kind: Import["kind"]) => {
    if (!node) return;
    const specifier = node.type === "Literal" && typeof node.value === "string" ? node.value : undefined;
    imports.push({ specifier, kind, line: source.slice(0, node.start).split("\n").length });
  };
  new Visitor({
    ImportDeclaration: (node) => add(node.source, node.importKind === "type" ? "type" : "static"),
    ExportNamedDeclaration: (node) => add(node.source, node.exportKind === "type" ? "type" : "static"),
    ExportAllDeclaration: (node) => add(node.source, node.exportKind === "type" ? "type" : "static"),
    ImportExpression: (node) => add(node.source, "dynamic"),
    TSImportType: (node) => add(node.source, "type"),
    CallExpression: (node) => {
      if (node.callee.type === "Identifier" && node.callee.name === "require") add(node.arguments[0], "static");
    },
  }).visit(program);
  return imports;
}

/** Which of our packages a package may name. `packages/cli` is what users install: it may name all. */
const mayName: Record<string, readonly string[]> = {
  core: [],
  "model-mini": [],
  retriever: ["@cde-js/core"],
  adapters: ["@cde-js/core", "@cde-js/retriever"],
  cli: ["@cde-js/core", "@cde-js/retriever", "@cde-js/adapters", "@cde-js/model-mini"],
};

/** The folders of `packages/core/src`, lowest first: a file may import from its own folder and from those before it. */
const coreLayers = [
  "errors",
  "random",
  "text",
  "graph",
  "onnx",
  "runtime",
  "simd",
  "hub",
  "model",
  "tokenizer",
  "context",
  "k-means",
  "encoder",
  "evaluation",
  "index",
  "training",
];

/** The one place where a package of someone else may be imported, as the start of a path. */
const homes: Record<string, string> = {
  "onnx-buf": "packages/core/src/onnx/",
  "@bufbuild/protobuf": "packages/core/src/onnx/",
  "onnxruntime-node": "packages/core/src/runtime/",
  "@huggingface/tokenizers": "packages/core/src/tokenizer/",
  "csv-parse": "packages/core/src/training/data/",
  stemmer: "packages/retriever/src/lexical/",
  "hnswlib-node": "packages/retriever/src/hnsw",
  "@langchain/core": "packages/adapters/src/langchain/",
  "@qdrant/js-client-rest": "packages/adapters/src/qdrant/",
  "@huggingface/transformers": "packages/adapters/src/transformers/",
};

/** May be missing at a user's: only `import()` or a type import, so that the file loads without it. */
const lazy = new Set(["hnswlib-node", "@qdrant/js-client-rest", "@huggingface/transformers"]);
const testOnly = new Set(["vitest", "fast-check", "ajv"]);
/** Files that may import what a user names. */
const mayCompute = new Set(["packages/cli/src/evaluate/reranker.ts"]);

/** The imports of one file below a package's `src` that break a rule, as `file:line: what, and what to do`. */
export function wrongImports(file: string, source: string): string[] {
  const [, packageName = "", , ...rest] = file.split("/");
  const isTest = /\.test(\.support)?\.ts$/.test(file);
  return readImports(file, source).flatMap((found) => {
    const problem = judge(found, { file, packageName, isTest, inside: rest.join("/") });
    return problem === undefined ? [] : [`${file}:${found.line}: ${problem}`];
  });
}

interface Place {
  readonly file: string;
  readonly packageName: string;
  readonly isTest: boolean;
  /** The path below `src`. */
  readonly inside: string;
}

function judge({ specifier, kind }: Import, { file, packageName, isTest, inside }: Place): string | undefined {
  if (specifier === undefined) {
    if (mayCompute.has(file) && kind === "dynamic") return undefined;
    return "imports a computed name; write it out, so that it can be checked";
  }
  if (specifier.startsWith("node:")) return undefined;

  if (specifier.startsWith(".")) {
    const target = posix.normalize(posix.join(posix.dirname(inside), specifier));
    if (target.startsWith("..")) return `"${specifier}" leaves the package; import it by the package's name`;
    // A test beside the file may use what is above it: a gradient is checked by running it.
    if (packageName !== "core" || isTest) return undefined;
    const [from, to] = [layerOf(inside), layerOf(target)];
    if (from < 0) return `no layer is known for ${inside}; add its folder to coreLayers in test/repository/imports.ts`;
    if (to < 0) return `no layer is known for ${target}; add its folder to coreLayers in test/repository/imports.ts`;
    return to <= from ? undefined : `"${specifier}" points up: ${coreLayers[from]} may not import ${coreLayers[to]}`;
  }

  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  if (name === "cde-js" || name.startsWith("@cde-js/")) {
    if (!mayName[packageName]?.includes(name)) return `packages/${packageName} may not import "${name}"`;
    if (specifier === "@cde-js/core/training" && packageName !== "cli") return "only the CLI imports training";
    return undefined;
  }
  if (testOnly.has(name)) return isTest ? undefined : `"${name}" is for tests`;
  const home = homes[name];
  if (home === undefined) return `"${name}" has no home; name one in test/repository/imports.ts`;
  if (!file.startsWith(home) && !isTest) return `"${name}" is imported only in ${home}`;
  if (lazy.has(name) && kind === "static" && !isTest) return `"${name}" is optional; use import() or a type import`;
  return undefined;
}

function layerOf(inside: string): number {
  return coreLayers.indexOf((inside.split("/")[0] ?? "").replace(/\.[jt]s$/, ""));
}
