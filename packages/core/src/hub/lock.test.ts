import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { withLock } from "./lock.js";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-lock-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));
const path = () => join(folder, "a.lock");
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

describe("a lock", () => {
  test("is held by one at a time, and gone afterwards", async () => {
    let inside = 0;
    let most = 0;
    const work = async () => {
      most = Math.max(most, ++inside);
      await pause(5);
      inside--;
    };
    await Promise.all(Array.from({ length: 5 }, () => withLock(path(), {}, work)));
    expect(most).toBe(1);
    expect(await readdir(folder)).toEqual([]);
  });

  test("is released when the work fails, with the work's error", async () => {
    const failure = new Error("no");
    await expect(withLock(path(), {}, () => Promise.reject(failure))).rejects.toBe(failure);
    expect(existsSync(path())).toBe(false);
  });

  test("of a process that ended is taken over at once, of another machine's after staleAfter", async () => {
    const mine = await withLock(path(), {}, () => readFile(path(), "utf8"));
    const { place } = JSON.parse(mine) as { place: string };
    const dead = { pid: 2 ** 30, id: "1" };
    await writeFile(path(), JSON.stringify({ ...dead, place }));
    const start = performance.now();
    await withLock(path(), { staleAfter: 60_000 }, () => pause(0));
    expect(performance.now() - start).toBeLessThan(2000);

    await writeFile(path(), JSON.stringify({ ...dead, place: "another machine" }));
    await utimes(path(), 0, 0); // its clock is wrong by decades, which doesn't make the lock old
    const again = performance.now();
    await withLock(path(), { staleAfter: 300 }, () => pause(0));
    expect(performance.now() - again).toBeGreaterThan(300);
  });

  test("that is touched is never stale", async () => {
    const order: string[] = [];
    const holder = withLock(path(), { heartbeat: 20 }, async () => {
      await pause(900);
      order.push("holder");
    });
    await pause(50);
    await withLock(path(), { staleAfter: 500 }, async () => order.push("waiter"));
    await holder;
    expect(order).toEqual(["holder", "waiter"]);
  });

  test("that was lost to another ends the work, which runs again when the other is done", async () => {
    let runs = 0;
    const other = JSON.stringify({ pid: process.pid, place: "another machine", id: "2" });
    const result = await withLock(path(), { heartbeat: 10, staleAfter: 100 }, async (signal) => {
      if (runs++ > 0) return "done";
      await writeFile(path(), other);
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      return "not reached";
    });
    expect(result).toBe("done");
    expect(runs).toBe(2);
  });

  test("is not waited for after an abort", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    await withLock(path(), {}, async () => {
      const waiting = withLock(path(), { signal: controller.signal }, () => pause(0));
      controller.abort(reason);
      await expect(waiting).rejects.toBe(reason);
      expect(existsSync(path())).toBe(true); // still the holder's
    });
  });
});
