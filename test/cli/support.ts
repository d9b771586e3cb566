/** Runs the compiled `cde` as users do: in a process of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { modelDirectory } from "cde-js";
import { sharedPath } from "../support/shared.js";

const program = fileURLToPath(new URL("../../../packages/cli/dist/cde.js", import.meta.url));
const bundled = existsSync(modelDirectory);

/** Arguments that name a model where the bundled one isn't there; undefined where there is none at all. */
const modelPath = bundled ? undefined : sharedPath("models/all-MiniLM-L6-v2");
export const hasModel: boolean = bundled || modelPath !== undefined;
export const modelArguments: readonly string[] = modelPath === undefined ? [] : ["--model", modelPath];

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  /** Resolves when stderr holds `text`, rejects where the process ends before. */
  said(text: string): Promise<void>;
}

export function start(args: readonly string[], cwd: string, env: Readonly<Record<string, string>> = {}): Running {
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (chunk: string) => {
      output[name] += chunk;
    });
  }
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, ...output }));
  });
  const said = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => output.stderr.includes(text) && resolve();
      child.stderr.on("data", look);
      look();
      void finished.then(({ stderr }) => reject(new Error(`cde ended without "${text}": ${stderr}`)));
    });
  return { child, finished, said };
}

export function cde(args: readonly string[], cwd: string): Promise<Finished> {
  return start(args, cwd).finished;
}

/** A new folder with these files; `remove` takes it away. */
export async function folderOf(
  files: Readonly<Record<string, string | Uint8Array>>,
): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "cde-cli-"));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), content);
  }
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** Names and digests of a folder's files. */
export async function contentsOf(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder)).sort();
  const digests = names.map(async (name) => {
    const bytes = await readFile(join(folder, name));
    return [name, createHash("sha256").update(bytes).digest("hex")] as const;
  });
  return Object.fromEntries(await Promise.all(digests));
}
