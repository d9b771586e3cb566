/** The files of this repository, as git sees them. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));

/** Whether this is a git checkout; a copy without history has no list of its files. */
export const isCheckout: boolean = existsSync(`${root}.git`);

/** Paths from the root, with `/`: tracked files and those that would be. */
export function repositoryFiles(): string[] {
  const output = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: root,
    encoding: "utf8",
  });
  return [...new Set(output.split("\0"))].filter((path) => path !== "" && existsSync(root + path)).sort();
}

export function readText(path: string): string {
  return readFileSync(root + path, "utf8");
}

export interface Manifest {
  readonly name: string;
  readonly version?: string;
  readonly private?: boolean;
  readonly license: string;
  readonly engines: { readonly node: string };
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly peerDependenciesMeta?: Readonly<Record<string, { readonly optional?: boolean }>>;
}

export function readManifest(path: string): Manifest {
  return JSON.parse(readText(path)) as Manifest;
}
