/**
 * What a user gets: installs the packed packages into an empty folder and runs a small program there.
 * `node scripts/test-tarballs.mjs [folder]`; with a folder, what was installed stays there for another Node to run.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { packAll } from "./pack.mjs";

const program = `import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";
const embedder = (await ContextualEncoder.load(modelDirectory)).withoutContext();
const texts = ["The tenant pays for flood damage.", "Bees make honey from nectar."];
const index = await CorpusIndex.build(embedder, texts.map((text, i) => ({ id: ["lease", "bees"][i], text })));
const [hit] = await index.search("who bears the cost of water damage?", { k: 1 });
if (hit?.id !== "lease") throw new Error(\`expected "lease" first, got \${JSON.stringify(hit)}\`);
console.log(\`\${process.version}: \${hit.id}\`);
`;

const given = process.argv[2];
const folder = given === undefined ? mkdtempSync(join(tmpdir(), "cde-consumer-")) : resolve(given);
try {
  const tarballFolder = join(folder, "tarballs");
  mkdirSync(tarballFolder, { recursive: true });
  const others = readdirSync(folder).filter((name) => name !== "tarballs");
  if (others.length > 0) throw new Error(`test-tarballs: ${folder} holds ${others[0]}; give an empty folder`);
  const tarballs = packAll(tarballFolder);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  writeFileSync(join(folder, "program.js"), program);
  // --ignore-scripts: a dependency may have no install step that a user has to allow (npm 12 blocks them).
  const flags = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"];
  const run = (/** @type {string} */ command, /** @type {string[]} */ args) =>
    spawnSync(command, args, { cwd: folder, stdio: "inherit" }).status === 0;
  const passed = run("npm", ["install", ...flags, ...tarballs]) && run(process.execPath, ["program.js"]);
  process.exitCode = passed ? 0 : 1;
} finally {
  if (given === undefined) rmSync(folder, { recursive: true, force: true });
}
