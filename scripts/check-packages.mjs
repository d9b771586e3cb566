/** Holds what npm would publish against publint and attw, and looks for files that don't belong in it. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { packAll, root } from "./pack.mjs";

const folder = mkdtempSync(join(tmpdir(), "cde-pack-"));
let failures = 0;

/**
 * @param {string} what
 * @param {string} command
 * @param {string[]} args
 * @param {(output: string) => boolean} [accepts] a second condition on what was printed
 */
function check(what, command, args, accepts = () => true) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
  const passed = status === 0 && accepts(stdout);
  console.log(`${passed ? "passed" : "FAILED"}  ${what}`);
  if (passed) return;
  failures++;
  console.log([stdout, stderr, error?.message].filter(Boolean).join("\n"));
}

const bin = (/** @type {string} */ name) => join(root, "node_modules/.bin", name);
const unwanted = /\.test\.|\.tsbuildinfo|node_modules/;
try {
  for (const tarball of packAll(folder)) {
    const name = basename(tarball);
    check(`${name}: publint`, bin("publint"), ["run", tarball, "--strict"]);
    check(`${name}: attw`, bin("attw"), [tarball, "--profile", "esm-only", "--no-emoji", "--no-color"]);
    check(
      `${name}: has LICENSE and README, no tests`,
      "tar",
      ["-tzf", tarball],
      (files) => files.includes("package/LICENSE\n") && files.includes("package/README.md\n") && !unwanted.test(files),
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failures === 0 ? 0 : 1;
