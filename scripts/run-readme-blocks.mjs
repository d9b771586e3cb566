/**
 * Type-checks and runs the TypeScript blocks of Markdown files whose fence says "ts run", each as a program of its own
 * in an empty folder: `node scripts/run-readme-blocks.mjs README.md …`. Needs a build.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./pack.mjs";

// Inside the repository, so that imports of our packages resolve as a user's would.
const blocksFolder = join(root, ".cache/blocks");
rmSync(blocksFolder, { recursive: true, force: true });
mkdirSync(blocksFolder, { recursive: true });

/** @type {{ place: string, name: string }[]} */
const blocks = [];
let failures = 0;
for (const path of process.argv.slice(2)) {
  if (!existsSync(path)) {
    failures++;
    console.log(`FAILED  ${path}: no such file`);
    continue;
  }
  const text = readFileSync(path, "utf8");
  const fences = [...text.matchAll(/^```ts run[ \t]*\r?\n(.*?)^```/gms)];
  if (fences.length === 0) {
    failures++;
    console.log(`FAILED  ${path}: no block is marked "ts run"`);
  }
  for (const fence of fences) {
    const line = text.slice(0, fence.index).split("\n").length;
    const name = `${path.replaceAll(/[^\w]+/g, "-")}-${line}`;
    blocks.push({ place: `${path}:${line}`, name });
    writeFileSync(join(blocksFolder, `${name}.ts`), fence[1] ?? "");
  }
}

writeFileSync(
  join(blocksFolder, "tsconfig.json"),
  JSON.stringify({
    extends: "../../tsconfig.base.json",
    compilerOptions: { composite: false, declaration: false, declarationMap: false, isolatedDeclarations: false },
    include: ["*.ts"],
    references: [],
  }),
);
const compiled = spawnSync(join(root, "node_modules/.bin/tsc"), ["-p", blocksFolder], { stdio: "inherit" });
if (compiled.status !== 0) failures++;

for (const { place, name } of blocks) {
  const cwd = mkdtempSync(join(tmpdir(), "cde-block-"));
  const { status } = spawnSync(process.execPath, [join(blocksFolder, `${name}.js`)], {
    cwd,
    stdio: ["ignore", "inherit", "inherit"],
    timeout: 300_000,
  });
  rmSync(cwd, { recursive: true, force: true });
  if (status !== 0) failures++;
  console.log(`${status === 0 ? "passed" : "FAILED"}  ${place}`);
}
process.exitCode = failures === 0 ? 0 : 1;
