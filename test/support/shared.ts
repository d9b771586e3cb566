/** Where the reference material lies on a developer's machine, and the skip that says so where it doesn't. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** `CDE_SHARED` names the folder where it isn't beside the repository. */
const { CDE_SHARED } = process.env;
const root = CDE_SHARED ? `${resolve(CDE_SHARED)}/` : fileURLToPath(new URL("../../../../shared/", import.meta.url));

/** The path of reference material, or undefined where this machine has none. */
export function sharedPath(relative: string): string | undefined {
  const path = root + relative;
  return existsSync(path) ? path : undefined;
}
