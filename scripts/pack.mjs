/** Packs every package of the workspace as `npm publish` would. */
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../", import.meta.url));

/**
 * The tarballs of all packages, written into an empty folder. Needs a build.
 * @param {string} folder
 * @returns {string[]} absolute paths, by name
 */
export function packAll(folder) {
  // npm 11 and 12 print different JSON here, so the folder is what we read.
  execFileSync("npm", ["pack", "--workspaces", "--silent", "--pack-destination", folder], {
    cwd: root,
    stdio: "ignore",
  });
  const tarballs = readdirSync(folder).filter((name) => name.endsWith(".tgz"));
  return tarballs.sort().map((name) => join(folder, name));
}
