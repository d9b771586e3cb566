/**
 * The cache that Hugging Face's tools share, one folder a repository: `blobs/<etag>` hold the bytes,
 * `snapshots/<commit>/<file>` link to them, `refs/<revision>` hold a commit, `.no_exist/<commit>/<file>` are empty and
 * say that the repository has no such file, `trees/<commit>.json` lists all its files.
 */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { HubError } from "./errors.js";
import { modelFiles } from "./files.js";
import { hasCode } from "./lock.js";
import { COMMIT } from "./names.js";
import type { Settings } from "./settings.js";

/** What `downloadModel` returns. */
export interface CachedModel {
  /** Absolute path of the snapshot; its files are links and are not to be written to. */
  readonly directory: string;
  /** The commit, 40 hexadecimal digits. */
  readonly revision: string;
}

export class RepoCache {
  readonly #folder: string;
  /** One lock for a repository, not one a file: whoever comes second finds everything. Not a name that other tools lock. */
  readonly lockPath: string;

  constructor(cacheDir: string, repoId: string) {
    const name = `models--${repoId.replaceAll("/", "--")}`;
    this.#folder = join(cacheDir, name);
    this.lockPath = join(cacheDir, ".locks", name, "cde-js.lock");
  }

  blobPath(etag: string): string {
    return join(this.#folder, "blobs", etag);
  }

  /** Not `<etag>.incomplete`: that one other tools may be writing to, under a lock that Node can't take. */
  partialPath(etag: string): string {
    return `${this.blobPath(etag)}.cde-js.incomplete`;
  }

  directory(commit: string): string {
    return join(this.#folder, "snapshots", commit);
  }

  has(commit: string, name: string): Promise<boolean> {
    return isFile(join(this.directory(commit), name));
  }

  /**
   * The model, if nothing of it is missing. Offline, a file of which the cache doesn't know whether the repository has
   * it counts as absent (older tools leave no trace of that); `HUB_OFFLINE` then names what can't be done without.
   */
  async find({ repoId, revision, offline }: Settings): Promise<CachedModel | undefined> {
    const commit = await this.#commitOf(revision);
    if (commit === undefined) {
      if (offline) throw notCached(repoId, revision, `the cache knows no revision ${revision}`);
      return undefined;
    }
    const directory = this.directory(commit);
    const listed = await this.#listing(commit);
    const has = async (name: string) => {
      if (await this.has(commit, name)) return true;
      if (listed && !listed.has(name)) return false;
      if (await isFile(join(this.#folder, ".no_exist", commit, name))) return false;
      if (offline && !listed?.has(name)) return false;
      throw new NotCachedError(name);
    };
    const readJson = (name: string) => readJsonFile(join(directory, name));
    try {
      await modelFiles({ has, readJson }, repoId);
      return { directory, revision: commit };
    } catch (error) {
      if (!offline && error instanceof NotCachedError) return undefined;
      if (error instanceof NotCachedError) throw notCached(repoId, revision, `${error.message} is not in ${directory}`);
      if (offline && error instanceof HubError && error.code !== "HUB_CORRUPT") {
        throw notCached(repoId, revision, `configuration or safetensors weights are not all in ${directory}`, error);
      }
      throw error;
    }
  }

  /** Makes a blob appear in a snapshot. `link` is replaced by tests only. */
  async place(commit: string, name: string, etag: string, link: typeof symlink = symlink): Promise<void> {
    const path = join(this.directory(commit), name);
    if (await isFile(path)) return;
    await mkdir(dirname(path), { recursive: true });
    await rm(path, { force: true }); // a link to a blob that is gone
    try {
      await link(relative(dirname(path), this.blobPath(etag)), path);
    } catch (error) {
      if (hasCode(error, "EEXIST") && (await isFile(path))) return; // another tool was faster
      // Windows without the right to link (EPERM, or UNKNOWN), file systems without links.
      if (!hasCode(error, "EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "UNKNOWN")) throw error;
      const copy = `${this.blobPath(etag)}.${randomUUID()}.incomplete`;
      await copyFile(this.blobPath(etag), copy);
      await rename(copy, path);
    }
  }

  /** Notes what the repository doesn't have, so that a complete snapshot can be told from one that lacks a file. */
  async markAbsent(commit: string, names: readonly string[]): Promise<void> {
    for (const name of names) {
      const path = join(this.#folder, ".no_exist", commit, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, "");
    }
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const path = join(this.#folder, "refs", revision);
    await mkdir(dirname(path), { recursive: true });
    const temporary = join(this.#folder, `.ref-${randomUUID()}`);
    await writeFile(temporary, commit);
    await rename(temporary, path);
  }

  async #commitOf(revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision;
    const text = await readFile(join(this.#folder, "refs", revision), "utf8").catch(() => "");
    return COMMIT.test(text.trim()) ? text.trim() : undefined;
  }

  /** All files of a commit, where huggingface_hub noted them (its releases of 2026 do). */
  async #listing(commit: string): Promise<Set<string> | undefined> {
    const text = await readFile(join(this.#folder, "trees", `${commit}.json`), "utf8").catch(() => undefined);
    if (text === undefined) return undefined;
    try {
      const { format_version, files } = JSON.parse(text) as { format_version?: unknown; files?: object };
      return format_version === 1 ? new Set(Object.keys(files ?? {})) : undefined;
    } catch {
      return undefined; // only a hint of another tool: without it the hub is asked
    }
  }
}

export async function readJsonFile(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    const message = `downloadModel: ${path} is not JSON. If it was altered, delete it and the file it links to, then try again; else pick another { revision }.`;
    throw new HubError("HUB_CORRUPT", message, { cause });
  }
}

class NotCachedError extends Error {}

function notCached(repoId: string, revision: string, what: string, cause?: HubError): HubError {
  const message = `downloadModel: ${repoId} at ${revision} is not complete in the cache and the network is off ({ offline } or HF_HUB_OFFLINE): ${what}. Download it once with the network on, or correct { cacheDir }.`;
  return new HubError("HUB_OFFLINE", message, { cause });
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}
