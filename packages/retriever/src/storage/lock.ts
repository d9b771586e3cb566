/** One writer a folder: a file with the writer's process, taken over where that process has ended. */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { IndexLockedError } from "../errors.js";
import type { FileSystem } from "./file-system.js";

const LOCK = "lock";

interface Holder {
  readonly pid: number;
  readonly hostname: string;
  /** Tells this holder from an earlier process of the same number: in a container it is always 1. */
  readonly token: string;
}

/** Tokens of the locks that this process holds. */
const held = new Set<string>();

/**
 * Takes the lock of a folder and returns what gives it back.
 *
 * @throws IndexLockedError while another writer holds it.
 */
export async function lockDirectory(fileSystem: FileSystem, directory: string): Promise<() => Promise<void>> {
  const path = join(directory, LOCK);
  const own: Holder = { pid: process.pid, hostname: hostname(), token: randomUUID() };
  for (let attempt = 0; ; attempt++) {
    try {
      held.add(own.token);
      await writeLock(fileSystem, path, own);
      return async () => {
        held.delete(own.token);
        await fileSystem.remove(path).catch(() => {});
      };
    } catch (error) {
      held.delete(own.token);
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const found = await readLock(fileSystem, path);
    if (found === undefined) continue; // given back just now
    const holder = parseHolder(found);
    // Empty for a moment while its writer writes it; for longer only after a crash in that moment.
    if (!holder && attempt < 10) {
      await pause(20);
      continue;
    }
    if ((holder && isAlive(holder)) || attempt > 20) {
      const who = holder ?? { pid: 0, hostname: "unknown" };
      throw new IndexLockedError(
        path,
        who.pid,
        who.hostname,
        `${directory}: process ${who.pid} on ${who.hostname} is writing this index. Wait for it, or remove ` +
          `${path} if you know that it has ended.`,
      );
    }
    await removeStale(fileSystem, path, found);
  }
}

async function writeLock(fileSystem: FileSystem, path: string, holder: Holder): Promise<void> {
  const file = await fileSystem.create(path);
  try {
    await file.write(Buffer.from(JSON.stringify(holder)));
  } catch (error) {
    await fileSystem.remove(path).catch(() => {});
    throw error;
  } finally {
    await file.close();
  }
}

/** The lock's text; undefined where there is none. */
async function readLock(fileSystem: FileSystem, path: string): Promise<string | undefined> {
  try {
    const file = await fileSystem.open(path);
    try {
      const bytes = Buffer.alloc(Math.min(file.size, 4096));
      await file.read(bytes, 0);
      return bytes.toString("utf8");
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function parseHolder(text: string): Holder | undefined {
  try {
    const { pid, hostname, token } = JSON.parse(text) as Record<string, unknown>;
    const sound = Number.isSafeInteger(pid) && (pid as number) > 0 && typeof hostname === "string";
    return sound ? { pid: pid as number, hostname: hostname as string, token: String(token) } : undefined;
  } catch {
    return undefined;
  }
}

function isAlive({ pid, hostname: host, token }: Holder): boolean {
  // Another machine's processes can't be seen from here, so its lock counts.
  if (host !== hostname()) return true;
  if (pid === process.pid) return held.has(token);
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * Moves the stale lock away before removing it: of two that found it stale, one moves it, the other finds the lock of
 * the first in its hands and puts it back.
 */
async function removeStale(fileSystem: FileSystem, path: string, stale: string): Promise<void> {
  const aside = `${path}-${randomUUID()}`;
  try {
    await fileSystem.rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if ((await readLock(fileSystem, aside)) === stale) await fileSystem.remove(aside);
  else await fileSystem.rename(aside, path);
}
