/**
 * The adapters, as they are packed, beside products that can't be installed beside the workspace: the lowest that we
 * support, heavy ones, ones for a newer Node. Each suite is a folder that npm fills and `node --test` runs in:
 * `node scripts/test-peers.mjs langchain-lowest langchain-stores ai-sdk-7`. Needs a build and a registry; what can't be
 * installed is a failure, never a skip.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./pack.mjs";

/**
 * @typedef {object} Suite
 * @property {Record<string, string>} install exact versions
 * @property {Record<string, string>} [optional] may fail to compile; the tests then skip what needs them, and say so
 * @property {string[]} files of scripts/peers, the test first
 * @property {number} [node] the lowest major version of Node, where it is above ours
 */

/** @type {Record<string, Suite>} */
const suites = {
  "langchain-lowest": {
    install: { "@langchain/core": "1.1.47" },
    files: ["langchain.test.mjs", "langchain-types.ts"],
  },
  "langchain-stores": {
    install: {
      "@langchain/classic": "1.0.50",
      "@langchain/community": "1.1.29",
      "@langchain/core": "1.4.0",
      "@langchain/qdrant": "1.0.3",
    },
    optional: { "hnswlib-node": "3.0.0" },
    files: ["langchain-stores.test.mjs", "qdrant-stub.mjs"],
  },
  "ai-sdk-7": {
    install: { "@mastra/core": "1.71.0", ai: "7.0.173", zod: "4.6.6" },
    files: ["ai-sdk.test.mjs"],
    node: 22,
  },
};

/** @param {string} command @param {string[]} args @param {string} cwd */
function run(command, args, cwd) {
  // No command here takes five minutes; a test that waits for ever is to be seen.
  const { status, error } = spawnSync(command, args, { cwd, stdio: "inherit", timeout: 300_000 });
  if (error) console.log(`${command}: ${error.message}`);
  return status === 0;
}

/** @param {string} folder @param {Suite} suite */
function prepare(folder, { install, optional = {}, files }) {
  const manifest = { private: true, type: "module", dependencies: install, optionalDependencies: optional };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  // legacy-peer-deps: @langchain/community has peers of a hundred products. Scripts run only where something compiles.
  const flags = ["--no-audit", "--no-fund", "--prefer-offline", "--legacy-peer-deps", "--no-package-lock"];
  if (Object.keys(optional).length === 0) flags.push("--ignore-scripts");
  if (!run("npm", ["install", ...flags], folder)) return false;
  // The adapters are a copy, so that they find the products here; what they stand on is linked and finds its own.
  const ours = join(folder, "node_modules/@cde-js");
  mkdirSync(join(ours, "adapters"), { recursive: true });
  for (const name of ["core", "retriever", "model-mini"]) symlinkSync(join(root, "packages", name), join(ours, name));
  if (!run("npm", ["pack", "--workspace", "@cde-js/adapters", "--silent", "--pack-destination", folder], root)) {
    return false;
  }
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"));
  const unpack = ["-xzf", join(folder, tarball ?? ""), "--strip-components=1", "-C", join(ours, "adapters")];
  if (!run("tar", unpack, folder)) return false;
  for (const file of files) copyFileSync(join(root, "scripts/peers", file), join(folder, file));
  cpSync(join(root, "test/dist/support/stub-embedder.js"), join(folder, "stub-embedder.js"));
  return true;
}

/** The program is right for the types of the installed version too. @param {string} folder @param {string} file */
function typeCheck(folder, file) {
  const compilerOptions = {
    strict: true,
    noEmit: true,
    module: "nodenext",
    target: "es2023",
    lib: ["es2023", "esnext.disposable"],
    skipLibCheck: true,
    types: [],
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [file] }));
  return run(join(root, "node_modules/.bin/tsc"), ["-p", folder], folder);
}

/** @param {string} name */
function test(name) {
  const suite = suites[name];
  if (!suite) throw new Error(`test-peers: no suite ${name}; there are ${Object.keys(suites).join(", ")}`);
  if (Number(process.versions.node.split(".")[0]) < (suite.node ?? 0)) {
    console.log(`${name} needs Node ${suite.node}, this is ${process.version}`);
    return false;
  }
  const folder = mkdtempSync(join(tmpdir(), `cde-${name}-`));
  try {
    if (!prepare(folder, suite)) return false;
    const types = suite.files.filter((file) => file.endsWith(".ts"));
    return (
      types.every((file) => typeCheck(folder, file)) &&
      run(process.execPath, ["--test", "--test-reporter=spec", suite.files[0] ?? ""], folder)
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const names = process.argv.slice(2);
if (names.length === 0) throw new Error(`test-peers: name suites of ${Object.keys(suites).join(", ")}`);
for (const name of names) {
  const passed = test(name);
  if (!passed) process.exitCode = 1;
  console.log(`${passed ? "passed" : "FAILED"}  ${name} on Node ${process.versions.node}`);
}
