/** Brings a model from the Hugging Face hub into the shared cache; a model that is there already costs no request. */

import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type CachedModel, RepoCache, readJsonFile } from "./cache.js";
import { HubError, wrapDiskError } from "./errors.js";
import { modelFiles } from "./files.js";
import { type Reply, request, requestJson, withRetries } from "./http.js";
import { withLock } from "./lock.js";
import { COMMIT, checkListedName } from "./names.js";
import { type DownloadOptions, resolveSettings, type Settings } from "./settings.js";

const CONCURRENCY = 4;
/** An attempt that brought this much was worth it and doesn't count towards giving up. */
const WORTHWHILE_BYTES = 16_384;

interface Blob {
  /** sha256 of the bytes (large files) or sha1 of the git object (small ones), in hexadecimal. */
  readonly etag: string;
  readonly size: number;
}

/**
 * The snapshot directory of a model, from the cache or the hub: configuration, tokenizer and safetensors, each file
 * checked against the hash that the hub announced. Processes that ask at the same time share one download; a broken
 * one is resumed. Nothing is executed.
 *
 * Errors: `HubError`; `InvalidInputError` for names and options; the signal's reason.
 *
 * @example
 * const { directory, revision } = await downloadModel("jxm/cde-small-v2", { revision: "main", signal });
 */
export async function downloadModel(repoId: string, options: DownloadOptions = {}): Promise<CachedModel> {
  options.signal?.throwIfAborted();
  const settings = await resolveSettings(repoId, options);
  const cache = new RepoCache(settings.cacheDir, repoId);
  try {
    const cached = await cache.find(settings);
    if (cached) return cached;
    return await withLock(cache.lockPath, { signal: settings.signal }, async (signal) => {
      // Whoever held the lock before may have brought it.
      return (await cache.find(settings)) ?? (await fetchModel({ ...settings, signal }, cache));
    });
  } catch (error) {
    throw settings.signal?.aborted ? settings.signal.reason : wrapDiskError(error, settings.cacheDir);
  }
}

async function fetchModel(settings: Settings, cache: RepoCache): Promise<CachedModel> {
  const { repoId, revision } = settings;
  const { commit, names } = await listRepository(settings);
  const address = (name: string) => `${repoId}/resolve/${commit}/${name.split("/").map(encodeURIComponent).join("/")}`;
  const blobs = new Map<string, Blob>();
  const locate = async (name: string, session: Settings) => {
    const blob = blobs.get(name) ?? (await describeFile(session, address(name), commit));
    blobs.set(name, blob);
    return blob;
  };
  const readJson = async (name: string): Promise<unknown> => {
    if (await cache.has(commit, name)) return readJsonFile(join(cache.directory(commit), name));
    const blob = await locate(name, settings);
    await fetchBlob(settings, cache, address(name), blob, () => {});
    return readJsonFile(cache.blobPath(blob.etag));
  };
  const { present, absent } = await modelFiles({ has: (name) => names.has(name), readJson }, repoId);

  // What another tool, or another branch at this commit, has placed is there for good.
  const there = await Promise.all(present.map((name) => cache.has(commit, name)));
  const lacking = present.filter((_, i) => !there[i]);
  await inParallel(settings, lacking, (name, session) => locate(name, session));
  // Two files of the same content are one blob.
  const wanted = new Map(lacking.map((name) => [blobs.get(name)!.etag, name]));
  const total = [...wanted.values()].reduce((sum, name) => sum + blobs.get(name)!.size, 0);
  const onDisk = new Map<string, number>();
  await inParallel(settings, [...wanted.values()], (name, session) =>
    fetchBlob(session, cache, address(name), blobs.get(name)!, (bytes) => {
      onDisk.set(name, bytes);
      const done = [...onDisk.values()].reduce((sum, value) => sum + value, 0);
      settings.onProgress?.({ file: name, done, total });
    }),
  );
  // Only now, and the weights last: an aborted download leaves no snapshot that looks like a model.
  for (const name of lacking) await cache.place(commit, name, blobs.get(name)!.etag);
  await cache.markAbsent(commit, absent);
  await cache.writeRef(revision, commit);
  return { directory: cache.directory(commit), revision: commit };
}

async function listRepository(settings: Settings): Promise<{ commit: string; names: Set<string> }> {
  const { repoId, revision } = settings;
  const path = `api/models/${repoId}/revision/${encodeURIComponent(revision)}`;
  const answer = (await requestJson(settings, path)) as { sha?: unknown; siblings?: unknown } | null;
  const commit = answer?.sha;
  const siblings = Array.isArray(answer?.siblings) ? (answer.siblings as ({ rfilename?: unknown } | null)[]) : [];
  const names = siblings.map((sibling) => sibling?.rfilename);
  const good = typeof commit === "string" && COMMIT.test(commit) && (!COMMIT.test(revision) || revision === commit);
  if (!good || names.length === 0 || !names.every((name) => typeof name === "string")) {
    const message = `downloadModel: ${settings.endpoint.origin} describes ${repoId} at ${revision} without its commit or its files. Check HF_ENDPOINT or { endpoint }.`;
    throw new HubError("HUB_RESPONSE", message);
  }
  for (const name of names) checkListedName(name, repoId);
  return { commit, names: new Set(names) };
}

/** Hash and size as the hub announces them. */
function describeFile(session: Settings, address: string, commit: string): Promise<Blob> {
  return withRetries(session, async () => {
    const reply = await request(session, "HEAD", address);
    reply.close();
    const etag = etagOf(reply);
    const isRedirect = reply.status >= 300;
    const size = Number(reply.headers["x-linked-size"] ?? (isRedirect ? undefined : reply.headers["content-length"]));
    const stated = reply.headers["x-repo-commit"] ?? commit;
    if (etag !== undefined && Number.isSafeInteger(size) && size >= 0 && stated === commit) return { etag, size };
    const what = stated === commit ? "no hash or size to check it by" : `the commit ${stated}, asked for ${commit}`;
    const message = `downloadModel: ${session.endpoint.origin} announces ${address} with ${what}. Check HF_ENDPOINT or { endpoint }.`;
    throw new HubError("HUB_RESPONSE", message);
  });
}

/** The hash in an ETag; undefined where it is not one, as of a store's own. It becomes a file name, so nothing else will do. */
function etagOf({ headers, fromEndpoint }: Pick<Reply, "headers" | "fromEndpoint">): string | undefined {
  const value = headers["x-linked-etag"] ?? (fromEndpoint ? headers.etag : undefined);
  return /^(?:W\/)?"?([0-9a-f]{40}|[0-9a-f]{64})"?$/.exec(String(value))?.[1];
}

/** Brings one blob, from where a partial file ends. Calls `onBytes` with the bytes on disk. */
async function fetchBlob(
  session: Settings,
  cache: RepoCache,
  address: string,
  blob: Blob,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const path = cache.blobPath(blob.etag);
  const partial = cache.partialPath(blob.etag);
  if ((await stat(path).catch(() => undefined))?.size === blob.size) return onBytes(blob.size);
  await mkdir(dirname(path), { recursive: true });
  let startedOver = false;
  let furthest = 0;
  await withRetries(session, async (progressed) => {
    const handle = await open(partial, constants.O_RDWR | constants.O_CREAT, 0o644);
    try {
      const { size } = await handle.stat();
      if (size > blob.size) await handle.truncate(0);
      const start = size > blob.size ? 0 : size;
      if (start > 0) onBytes(start);
      furthest = Math.max(furthest, start);
      if (start < blob.size) {
        await receive(session, handle, address, blob, start, (bytes) => {
          // Against the furthest point: a server that always sends from the start and breaks must not go on for ever.
          if (bytes - furthest >= WORTHWHILE_BYTES) {
            furthest = bytes;
            progressed();
          }
          onBytes(bytes);
        });
      }
      const actual = await hash(handle, blob, session.signal);
      if (actual !== blob.etag) {
        await handle.truncate(0);
        // The part of an earlier run may be at fault (a crash of the machine): once from the start, then it is the hub.
        const retryable = start > 0 && !startedOver;
        startedOver = true;
        throw corrupt(address, `announced ${blob.etag}, received ${actual}`, retryable);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(partial, path);
  }).catch(async (error: unknown) => {
    // Left over from a corrupt answer; anything with bytes in it is resumed by the next call.
    if (hasNothing(await stat(partial).catch(() => undefined))) await rm(partial, { force: true });
    throw error;
  });
}

async function receive(
  session: Settings,
  handle: FileHandle,
  address: string,
  blob: Blob,
  start: number,
  onBytes: (bytes: number) => void,
): Promise<void> {
  // No If-Range: stores have ETags of their own and would always send all. The etag is compared here, the hash below.
  const headers: Record<string, string> = start > 0 ? { range: `bytes=${start}-` } : {};
  const reply = await request(session, "GET", address, headers).catch(async (error: unknown) => {
    if (error instanceof HubError && error.status === 416) await handle.truncate(0);
    throw error;
  });
  try {
    const etag = etagOf(reply) ?? blob.etag;
    if (etag !== blob.etag) throw corrupt(address, `announced ${blob.etag}, now sends ${etag}`);
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(String(reply.headers["content-range"]));
    let offset = reply.status === 206 ? Number(range?.[1] ?? Number.NaN) : 0;
    if (offset !== 0 && offset !== start) {
      await handle.truncate(0);
      throw new HubError(
        "HUB_RESPONSE",
        `downloadModel: ${address} was asked for from byte ${start}, sends another part. Check the proxy.`,
        { retryable: true },
      );
    }
    const announced = range ? Number(range[2]) : offset + Number(reply.headers["content-length"]);
    if (announced !== blob.size && !Number.isNaN(announced)) {
      throw corrupt(address, `announced ${blob.size} bytes, now ${announced}`);
    }
    for await (const chunk of reply.chunks) {
      if (offset + chunk.length > blob.size) {
        await handle.truncate(0);
        throw corrupt(address, `announced ${blob.size} bytes, sends more`);
      }
      await writeAll(handle, chunk, offset);
      offset += chunk.length;
      onBytes(offset);
    }
    if (offset === blob.size) return;
    const message = `downloadModel: ${address} ended after ${offset} of ${blob.size} bytes. Call again to resume.`;
    throw new HubError("HUB_UNREACHABLE", message, { retryable: true });
  } finally {
    reply.close();
  }
}

async function writeAll(handle: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let written = 0; written < chunk.length; ) {
    const { bytesWritten } = await handle.write(chunk, written, chunk.length - written, position + written);
    written += bytesWritten;
  }
}

/** Of what is on disk, not of what passed by: it covers the part of an earlier run, and the disk itself. */
async function hash(handle: FileHandle, blob: Blob, signal: AbortSignal | undefined): Promise<string> {
  const digest = createHash(blob.etag.length === 64 ? "sha256" : "sha1");
  // The id of a git object: sha1 of "blob <size>\0" and the content.
  if (blob.etag.length === 40) digest.update(`blob ${blob.size}\0`);
  const buffer = Buffer.allocUnsafe(2 ** 20);
  for (let position = 0; ; ) {
    signal?.throwIfAborted();
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) return digest.digest("hex");
    digest.update(buffer.subarray(0, bytesRead));
    position += bytesRead;
  }
}

/** `work` on every item, four at a time. The first failure stops the others, and is thrown when they have stopped. */
async function inParallel<T>(
  settings: Settings,
  items: readonly T[],
  work: (item: T, session: Settings) => Promise<unknown>,
): Promise<void> {
  const stop = new AbortController();
  const signal = settings.signal ? AbortSignal.any([settings.signal, stop.signal]) : stop.signal;
  const queue = items.values();
  let failure: { error: unknown } | undefined;
  const run = async () => {
    try {
      for (const item of queue) await work(item, { ...settings, signal });
    } catch (error) {
      failure ??= { error };
      stop.abort(error);
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, run));
  if (failure) throw failure.error;
}

function corrupt(address: string, what: string, retryable = false): HubError {
  const advice = "Nothing of it was kept; try again, and if it stays so, the mirror or a proxy alters files.";
  return new HubError("HUB_CORRUPT", `downloadModel: ${address} is not what the hub announced: ${what}. ${advice}`, {
    retryable,
  });
}

function hasNothing(found: { size: number } | undefined): boolean {
  return found?.size === 0;
}
