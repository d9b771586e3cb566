/**
 * One process at a time, by a lock file that its holder keeps touching. Not a guarantee (no lock file on a shared file
 * system is): what it protects must survive two holders, and the cache does, because every file is hashed before its
 * atomic rename.
 */
import { randomUUID } from "node:crypto";
import { readlinkSync } from "node:fs";
import { link, mkdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds between two touches of a held lock. @default 2000 */
  readonly heartbeat?: number;
  /** Milliseconds without a touch, by the waiter's own clock, after which a lock counts as abandoned. @default 20000 */
  readonly staleAfter?: number;
}

/**
 * Runs `work` while holding the lock at `path`. Its signal fires when the caller's does, or when another process took
 * the lock over because this one slept too long; in the latter case the lock is awaited and `work` runs again.
 */
export async function withLock<T>(
  path: string,
  { signal, heartbeat = 2000, staleAfter = 20_000 }: LockOptions,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  for (;;) {
    const content = await acquire(path, staleAfter, signal);
    const lost = new AbortController();
    const beat = async () => {
      const found = await readFile(path, "utf8").catch(absentAsEmpty);
      if (found !== content) lost.abort(new Error("the lock was taken over"));
      else await utimes(path, new Date(), new Date());
    };
    // A failed touch is repeated by the next one.
    const timer = setInterval(() => void beat().catch(() => {}), heartbeat);
    try {
      return await work(signal ? AbortSignal.any([signal, lost.signal]) : lost.signal);
    } catch (error) {
      if (!lost.signal.aborted || signal?.aborted) throw error;
    } finally {
      clearInterval(timer);
      const found = await readFile(path, "utf8").catch(() => undefined);
      if (found === content) await rm(path, { force: true });
    }
  }
}

async function acquire(path: string, staleAfter: number, signal: AbortSignal | undefined): Promise<string> {
  const content = JSON.stringify({ pid: process.pid, place: place(), id: randomUUID() });
  await mkdir(dirname(path), { recursive: true });
  let seen = "";
  let since = 0;
  for (;;) {
    signal?.throwIfAborted();
    try {
      await writeFile(path, content, { flag: "wx" });
      return content;
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
    }
    const held = await readFile(path, "utf8").catch(absentAsEmpty);
    const touched = await stat(path).catch(() => undefined);
    const state = `${touched?.mtimeMs} ${held}`;
    // Only changes of the time stamp count, never its value: the clock of the holder's machine may be another.
    if (state !== seen) {
      seen = state;
      since = performance.now();
    }
    if (isDead(held) || performance.now() - since > staleAfter) await takeAway(path, held);
    else await sleep(50 + 100 * Math.random(), undefined, signal ? { signal } : {}).catch(() => {});
  }
}

/** Removes the lock that reads `stale`. Moved before it is read: two waiters must not both remove, one the other's new lock. */
async function takeAway(path: string, stale: string): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return;
    throw error;
  }
  // It was a fresh lock after all: back with it, unless there is a third by now (then its holder notices).
  if ((await readFile(aside, "utf8")) !== stale) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

/** Whether the holder is a process of this very place that no longer runs. */
function isDead(held: string): boolean {
  try {
    const holder = JSON.parse(held) as { pid: number; place: string };
    if (holder.place !== place()) return false;
    process.kill(holder.pid, 0);
    return false;
  } catch (error) {
    // Anything else is a lock just being written, or a process of another user: neither is dead.
    return hasCode(error, "ESRCH");
  }
}

/** Where process ids mean the same: a machine, and on Linux the container in it. */
function place(): string {
  try {
    return `${hostname()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}

function absentAsEmpty(error: unknown): string {
  if (hasCode(error, "ENOENT")) return "";
  throw error;
}

export function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}
