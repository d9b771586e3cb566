import { lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RepoCache } from "./cache.js";

const COMMIT = "a".repeat(40);
let cacheDir = "";
beforeEach(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), "cde-cache-"));
});
afterEach(() => rm(cacheDir, { recursive: true, force: true }));

describe("placing a blob in a snapshot", () => {
  const refuse = (code: string) => () => Promise.reject(Object.assign(new Error(code), { code }));
  async function prepare() {
    const cache = new RepoCache(cacheDir, "org/model");
    await mkdir(join(cache.blobPath("e"), ".."), { recursive: true });
    await writeFile(cache.blobPath("e"), "bytes");
    return { cache, path: join(cache.directory(COMMIT), "1_Pooling", "config.json") };
  }

  test("copies where links are not permitted, and leaves nothing else", async () => {
    const { cache, path } = await prepare();
    await cache.place(COMMIT, "1_Pooling/config.json", "e", refuse("EPERM"));
    expect((await lstat(path)).isFile()).toBe(true);
    expect(await readFile(path, "utf8")).toBe("bytes");
    expect(await readdir(join(cache.blobPath("e"), ".."))).toEqual(["e"]);
  });

  test("fails where the reason is another", async () => {
    const { cache } = await prepare();
    await expect(cache.place(COMMIT, "config.json", "e", refuse("ENOSPC"))).rejects.toThrow("ENOSPC");
  });

  test("replaces a link whose blob is gone", async () => {
    const { cache, path } = await prepare();
    await mkdir(join(path, ".."), { recursive: true });
    await symlink("../../../blobs/gone", path);
    expect(await cache.has(COMMIT, "1_Pooling/config.json")).toBe(false);
    await cache.place(COMMIT, "1_Pooling/config.json", "e");
    expect(await readFile(path, "utf8")).toBe("bytes");
  });
});
