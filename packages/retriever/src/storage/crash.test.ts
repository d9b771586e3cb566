import { describe, expect, test } from "vitest";
import { IndexLockedError, StorageError } from "../errors.js";
import { type Contents, DIRECTORY, read, sampleContents, write } from "./index-files.test.support.js";
import { IndexWriter } from "./index-writer.js";
import { SimulatedFileSystem, systemError, type UnsyncedContents } from "./simulated-file-system.test.support.js";

const before = sampleContents("before", 3);
const after = sampleContents("after", 4);

async function withIndex(contents: Contents): Promise<SimulatedFileSystem> {
  const disk = new SimulatedFileSystem();
  await write(disk, contents);
  return disk.clone();
}

/** Operations that one save takes. */
async function operationsOfSave(): Promise<number> {
  const disk = await withIndex(before);
  await write(disk, after);
  return disk.operations;
}

const which = (contents: Contents): string => {
  for (const [name, known] of Object.entries({ before, after })) {
    if (JSON.stringify(contents) === JSON.stringify(known)) return name;
  }
  return "something else";
};

describe("a power cut", () => {
  test("at any operation of a save leaves the old index or the new one, and after the save the new one", async () => {
    const total = await operationsOfSave();
    const seen = new Set<string>();
    for (let cut = 0; cut <= total; cut++) {
      const disk = await withIndex(before);
      disk.beforeOperation = (number) => {
        if (number >= cut) throw systemError("EIO", "power");
      };
      const saved = await write(disk, after).then(
        () => true,
        () => false,
      );
      for (const unsynced of ["lost", "torn", "kept"] satisfies UnsyncedContents[]) {
        for (let names = 0; names <= disk.pendingNames; names++) {
          const rebooted = disk.afterPowerCut(names, unsynced);
          const found = which(await read(rebooted));
          expect(["before", "after"]).toContain(found);
          if (saved) expect(found).toBe("after");
          seen.add(found);
          // And the next save finds nothing in its way (once a cut: an empty lock is waited for).
          if (names > 0 || unsynced !== "lost") continue;
          await write(rebooted, after);
          expect(which(await read(rebooted))).toBe("after");
        }
      }
    }
    expect(seen).toEqual(new Set(["before", "after"]));
  });

  test("is noticed by this test where a sync is left out", async () => {
    const faults = { "of files": ["sync"], "of the folder": ["syncDirectory"] };
    for (const [what, skipped] of Object.entries(faults)) {
      const disk = await withIndex(before);
      const lazy = new Proxy(disk, {
        get(target, key) {
          if (skipped.includes(String(key))) return async () => {};
          const value = Reflect.get(target, key, target) as unknown;
          if (key !== "create") return typeof value === "function" ? value.bind(target) : value;
          return async (path: string) => {
            const file = await target.create(path);
            return skipped.includes("sync") ? { ...file, sync: async () => {} } : file;
          };
        },
      });
      await write(lazy, after);
      const outcomes: string[] = [];
      for (let names = 0; names <= disk.pendingNames; names++) {
        outcomes.push(await read(disk.afterPowerCut(names, "lost")).then(which, () => "broken"));
      }
      expect(
        outcomes.some((outcome) => outcome !== "after"),
        what,
      ).toBe(true);
    }
  });
});

describe("a full disk", () => {
  test.each([false, true])(
    "at any operation gives a typed error and keeps the old index (full for good: %s)",
    async (forGood) => {
      const total = await operationsOfSave();
      let refused = 0;
      for (let full = 0; full < total; full++) {
        const disk = await withIndex(before);
        // After the rename nobody can tell which of the two a crash would leave.
        let renamed = false;
        disk.beforeOperation = (number, name) => {
          if (name === "rename") renamed = true;
          // Reading and removing need no room.
          if (["list", "open", "remove"].includes(name) || !(forGood ? number >= full : number === full)) return;
          throw systemError("ENOSPC", name);
        };
        const error = await write(disk, after).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        disk.beforeOperation = () => {};
        if (error) {
          refused++;
          expect(error).toBeInstanceOf(StorageError);
          expect(error).toMatchObject({
            code: "STORAGE",
            errno: "ENOSPC",
            message: expect.stringMatching(/disk is full/),
          });
          if (!renamed) expect(which(await read(disk))).toBe("before");
          else expect(["before", "after"]).toContain(which(await read(disk)));
          const leftOver = [...disk.files().keys()].filter((path) => !/manifest\.json$/.test(path));
          if (!renamed) expect(leftOver, `operation ${full}`).toHaveLength(3);
        }
        await write(disk, after);
        expect(which(await read(disk))).toBe("after");
        expect(disk.files().size).toBe(4);
      }
      expect(refused).toBeGreaterThan(8);
    },
  );
});

describe("two writers", () => {
  test("the second is refused while the first one writes, and not afterwards", async () => {
    const disk = await withIndex(before);
    const first = await IndexWriter.begin(disk, DIRECTORY);
    await expect(write(disk, after)).rejects.toThrow(IndexLockedError);
    await expect(write(disk, after)).rejects.toMatchObject({ code: "INDEX_LOCKED", pid: process.pid });
    await first.abort();
    await write(disk, after);
    expect(which(await read(disk))).toBe("after");
  });

  test.each([
    ["a process that has ended", { pid: 2 ** 22 + 5, token: "x" }],
    ["an earlier process of the same number", { pid: process.pid, token: "x" }],
  ])("takes over the lock of %s", async (_, holder) => {
    const disk = await withIndex(before);
    const { hostname } = await import("node:os");
    disk.place(`${DIRECTORY}/lock`, Buffer.from(JSON.stringify({ hostname: hostname(), ...holder })));
    await write(disk, after);
    expect(which(await read(disk))).toBe("after");
    expect([...disk.files().keys()].filter((path) => path.includes("lock"))).toEqual([]);
  });

  test("takes over a lock that was never written, and leaves that of a living process or another machine", async () => {
    const disk = await withIndex(before);
    disk.place(`${DIRECTORY}/lock`, Buffer.alloc(0));
    await write(disk, after);
    for (const holder of [
      { pid: process.ppid, hostname: (await import("node:os")).hostname() },
      { pid: 2 ** 22 + 5, hostname: "elsewhere.invalid" },
    ]) {
      disk.place(`${DIRECTORY}/lock`, Buffer.from(JSON.stringify(holder)));
      await expect(write(disk, before)).rejects.toMatchObject({ code: "INDEX_LOCKED", ...holder });
    }
    expect(which(await read(disk))).toBe("after");
  });

  test("gives back the lock that a living process took while the stale one was being removed", async () => {
    const disk = await withIndex(before);
    const { hostname } = await import("node:os");
    const lock = `${DIRECTORY}/lock`;
    disk.place(lock, Buffer.from(JSON.stringify({ pid: 2 ** 22 + 5, hostname: hostname(), token: "stale" })));
    const living = JSON.stringify({ pid: process.ppid, hostname: hostname(), token: "living" });
    disk.beforeOperation = (_, name) => {
      if (name !== "rename") return;
      disk.beforeOperation = () => {};
      disk.place(lock, Buffer.from(living));
    };
    await expect(write(disk, after)).rejects.toMatchObject({ code: "INDEX_LOCKED", pid: process.ppid });
    expect(disk.files().get(lock)?.toString()).toBe(living);
    expect(which(await read(disk))).toBe("before");
  });
});

test("a reader whose generation is replaced between manifest and files reads the new one", async () => {
  const disk = await withIndex(before);
  const writer = disk.clone();
  await write(writer, after);
  let opened = 0;
  disk.beforeOperation = (_, name) => {
    // After the manifest is open, the folder is as the writer left it.
    if (name === "open" && opened++ === 1) {
      disk.beforeOperation = () => {};
      for (const path of disk.files().keys()) void disk.remove(path);
      for (const [path, bytes] of writer.files()) disk.place(path, bytes);
    }
  };
  expect(which(await read(disk))).toBe("after");
});

test("refuses to replace a manifest that is not an index's", async () => {
  const disk = new SimulatedFileSystem();
  const foreign = Buffer.from('{ "name": "a web page" }');
  disk.place(`${DIRECTORY}/manifest.json`, foreign);
  await expect(write(disk, after)).rejects.toThrow(/not an index's. Choose another folder/);
  expect(disk.files().get(`${DIRECTORY}/manifest.json`)).toEqual(foreign);
});

test("a manifest with any figure altered is refused by its checksum", async () => {
  const disk = await withIndex(before);
  const path = `${DIRECTORY}/manifest.json`;
  const text = (disk.files().get(path) as Uint8Array).toString();
  const manifest = JSON.parse(text) as Record<string, unknown>;
  // What no data file contradicts.
  for (const [field, value] of Object.entries({
    settled: 1,
    modelId: "another",
    notes: { other: true },
    sequence: 7,
  })) {
    expect(manifest[field], field).not.toEqual(value);
    disk.place(path, Buffer.from(JSON.stringify({ ...manifest, [field]: value })));
    await expect(read(disk), field).rejects.toThrow(/does not match its own checksum/);
  }
  disk.place(path, Buffer.from(text));
  expect(which(await read(disk))).toBe("before");
});
