import { CdeError } from "@cde-js/core";
import { afterEach, describe, expect, test } from "vitest";
import { CorpusIndex } from "./corpus-index.js";
import type { CorpusDocument } from "./documents.js";
import { naiveVectorIndex, opaqueStub, type SpectralStub, spectralStub } from "./spectral-stub.test.support.js";
import { OpenGeneration } from "./storage/index-reader.js";
import { logFile } from "./storage/manifest.js";
import {
  SimulatedFileSystem,
  systemError,
  type UnsyncedContents,
} from "./storage/simulated-file-system.test.support.js";
import { LogWriter } from "./storage/update-log.js";
import { type EncodedUpdate, encodeUpsert } from "./storage/update-records.js";

const full = process.env.CDE_FULL === "1";
const DIRECTORY = "index";
const document = (id: string, text: string, n = 0): CorpusDocument => ({ id, text, metadata: { n } });
const corpus = Array.from({ length: 6 }, (_, i) => document(`d${i}`, `Rule ${i} says word${i} and word${i * 7}.`));

/** One step of a history, and what the documents are after it. */
interface Step {
  readonly name: string;
  run(index: CorpusIndex): Promise<unknown>;
  change(documents: Map<string, CorpusDocument>): void;
}

const put = (...added: CorpusDocument[]): Step => ({
  name: `upsert of ${added.length}`,
  run: (index) => index.upsert(added),
  change: (documents) => {
    for (const one of added) {
      const known = documents.get(one.id);
      // A new text comes at the end.
      if (known?.text !== one.text) documents.delete(one.id);
      documents.set(one.id, one);
    }
  },
});
const nothing = (name: string, run: (index: CorpusIndex) => Promise<unknown>): Step => ({
  name,
  run,
  change: () => {},
});

const history: readonly Step[] = [
  put(document("new", "A rule that came later."), document("d1", "Rule 1 was rewritten.")),
  {
    name: "delete",
    run: (index) => index.delete({ ids: ["d0", "nobody"] }),
    change: (documents) => documents.delete("d0"),
  },
  {
    name: "metadata",
    run: (index) => index.updateMetadata("d2", { n: 2, seen: true }),
    change: (documents) =>
      documents.set("d2", { ...(documents.get("d2") as CorpusDocument), metadata: { n: 2, seen: true } }),
  },
  nothing("compact", (index) => index.compact()),
  put(document("after", "Written after the compaction.")),
  nothing("recontext", (index) => index.recontext({ contextSize: 4, seed: 3 })),
  put(document("d3", "Rule 3 under a new context."), document("d4", "Rule 4 says word4 and word28.", 9)),
  nothing("rollback", (index) => index.rollback()),
  {
    name: "delete",
    run: (index) => index.delete({ filter: { must: [{ key: "n", match: { value: 9 } }] } }),
    change: (d) => d.delete("d4"),
  },
];

/** The documents after each number of steps. */
const states: string[] = [];
{
  const documents = new Map(corpus.map((one) => [one.id, one]));
  states.push(JSON.stringify([...documents.values()]));
  for (const { change } of history) {
    change(documents);
    states.push(JSON.stringify([...documents.values()]));
  }
}

const open: CorpusIndex[] = [];
afterEach(async () => {
  for (const index of open.splice(0)) await index.close().catch(() => {});
});

async function built(stub: SpectralStub): Promise<SimulatedFileSystem> {
  const disk = new SimulatedFileSystem();
  const context = await stub.buildContext(corpus.slice(0, 3).map(({ text }) => text));
  const options = { directory: DIRECTORY, fileSystem: disk, vectorIndex: naiveVectorIndex };
  await using _ = await CorpusIndex.build(stub.withContext(context), corpus, options);
  return disk.clone();
}

async function opened(fileSystem: SimulatedFileSystem, stub: SpectralStub): Promise<CorpusIndex> {
  return await CorpusIndex.open(DIRECTORY, stub, { fileSystem, vectorIndex: naiveVectorIndex });
}

/** The documents, each of which a search by its own text finds with the score 1. */
async function contentsOf(index: CorpusIndex): Promise<string> {
  const documents: CorpusDocument[] = [];
  for await (const one of index.documents()) documents.push(one);
  for (const { id, text } of documents) {
    const hits = await index.search(text, { mode: "dense", k: 10 });
    const own = hits.find((hit) => hit.id === id);
    expect(own?.score).toBeCloseTo(1, 5);
    expect((await index.search(text, { mode: "lexical", k: 10 })).map((hit) => hit.id)).toContain(id);
  }
  const every = await index.search("rule", { mode: "dense", k: 100 });
  expect(every).toHaveLength(documents.length);
  return JSON.stringify(documents);
}

/** Runs the history until it fails; says how many steps were acknowledged. */
async function play(disk: SimulatedFileSystem, stub: SpectralStub): Promise<number> {
  let acknowledged = 0;
  let index: CorpusIndex | undefined;
  try {
    index = await opened(disk, stub);
    for (const { run } of history) {
      await run(index);
      acknowledged++;
    }
  } catch (error) {
    expect(error).toBeInstanceOf(CdeError);
  }
  // After a cut this reaches no disk any more: it only frees what this process holds.
  await index?.close();
  return acknowledged;
}

const stub = spectralStub();
const start = await built(stub);

test("the history itself leaves each of its states, before and after it is opened again", async () => {
  const disk = start.clone();
  for (const [i, { run, name }] of history.entries()) {
    const index = await opened(disk, stub);
    expect(await contentsOf(index), `before ${name}`).toBe(states[i]);
    await run(index);
    expect(await contentsOf(index), name).toBe(states[i + 1]);
    await index.close();
  }
  expect(new Set(states).size).toBeGreaterThan(6);
});

describe("a power cut at any operation of a history of updates", () => {
  test("leaves all acknowledged ones, and the one in flight wholly or not at all", async () => {
    const whole = start.clone();
    const names: string[] = [];
    whole.beforeOperation = (_, name) => names.push(name);
    expect(await play(whole, stub)).toBe(history.length);
    // Fewer of them in a short run, and among these the moments between a write and its sync.
    const cuts = [...names.keys()].filter((i) => full || i % 17 === 1 || (names[i] === "sync" && i % 4 === 0));
    let [inFlight, torn] = [0, 0];
    for (const cut of cuts) {
      const disk = start.clone();
      disk.beforeOperation = (number) => {
        if (number >= cut) throw systemError("EIO", "power");
      };
      const acknowledged = await play(disk, stub);
      for (const unsynced of ["lost", "torn", "kept"] satisfies UnsyncedContents[]) {
        const most = disk.pendingNames;
        for (const names of full ? Array.from({ length: most + 1 }, (_, i) => i) : [unsynced === "lost" ? 0 : most]) {
          const rebooted = disk.afterPowerCut(names, unsynced);
          const index = await opened(rebooted, stub);
          const found = await contentsOf(index);
          const at = states.indexOf(found, acknowledged);
          expect([acknowledged, acknowledged + 1], `cut ${cut}, ${unsynced}, ${names} names: ${found}`).toContain(at);
          if (at > acknowledged) inFlight++;
          if (unsynced === "torn") torn++;
          // And it takes the next update, which is there afterwards (a torn lock is waited for: not each time).
          if (unsynced !== "kept" || names !== most) {
            await index.close();
            continue;
          }
          await index.upsert([document("last", "The last one.")]);
          await index.close();
          const again = await opened(rebooted, stub);
          expect(await again.get("last")).toBeDefined();
          expect(again.count).toBe(JSON.parse(found).length + 1);
          await again.close();
        }
      }
    }
    expect(inFlight).toBeGreaterThan(0);
    expect(torn).toBeGreaterThan(10);
  }, 600_000);

  test("is noticed by this test where a sync is left out (the control)", async () => {
    const lazy = start.clone();
    const { create } = lazy;
    lazy.create = async (path) => ({ ...(await create.call(lazy, path)), sync: async () => {} });
    const acknowledged = await play(lazy, stub);
    expect(acknowledged).toBe(history.length);
    const rebooted = lazy.afterPowerCut(lazy.pendingNames, "lost");
    const found = await opened(rebooted, stub).then(contentsOf, () => "refused");
    expect(found).not.toBe(states.at(-1));
  });
});

test("a full disk refuses the update and keeps the index; with room again, the next update is taken", async () => {
  let refused = 0;
  for (let at = 0; at < 60; at += full ? 1 : 7) {
    const disk = start.clone();
    const index = await opened(disk, stub);
    open.push(index);
    const from = disk.operations + at;
    disk.beforeOperation = (number, name) => {
      if (!["list", "open", "remove"].includes(name) && number >= from) throw systemError("ENOSPC", name);
    };
    let expected = states[0];
    for (const [i, { run, name }] of history.slice(0, 4).entries()) {
      const error = await run(index).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      if (!error) {
        expected = states[i + 1];
        continue;
      }
      refused++;
      expect(error, name).toMatchObject({ code: "STORAGE", errno: "ENOSPC" });
      break;
    }
    disk.beforeOperation = () => {};
    expect(await contentsOf(index)).toBe(expected);
    // A compaction that failed at its last step leaves open which generation counts: then only opening again helps.
    const put = await index.upsert([document("last", "The last one.")]).then(
      () => true,
      () => false,
    );
    const count = index.count;
    await index.close();
    const again = await opened(disk, stub);
    expect(again.count).toBe(count);
    expect((await again.get("last")) !== undefined).toBe(put);
    await again.close();
  }
  expect(refused).toBeGreaterThan(5);
});

describe("damage to any file of an index with updates", () => {
  const runs = full ? 1000 : 60;
  test(`gives a typed error or a state that was acknowledged, at ${runs} random places`, async () => {
    const disk = start.clone();
    const writer = await opened(disk, stub);
    for (const { run } of history.slice(0, 7)) await run(writer);
    await writer.close();
    const sizes = [...disk.files()].map(([path, { length }]) => ({ path, length }));
    const bytes = sizes.reduce((sum, { length }) => sum + length, 0);
    // A linear congruential generator: the places are the same in every run.
    let random = 12345;
    const next = (below: number): number => {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      return Math.floor((random / 2 ** 32) * below);
    };
    let [refused, older] = [0, 0];
    for (let i = 0; i < runs; i++) {
      const damaged = disk.clone();
      let at = next(bytes);
      const { path } = sizes.find(({ length }) => {
        if (at < length) return true;
        at -= length;
        return false;
      }) as { path: string };
      const copy = Buffer.from(damaged.files().get(path) as Buffer);
      copy[at] = (copy[at] as number) ^ (1 + next(255));
      damaged.place(path, copy);
      try {
        const index = await opened(damaged, stub);
        const found = await contentsOf(index);
        // Only the log's end may be lost, and none of it is made up.
        expect(states.slice(5, 8), path).toContain(found);
        if (found !== states[7]) older++;
        await index.close();
      } catch (error) {
        if (!(error instanceof CdeError)) throw error;
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(0.5 * runs);
    // A log that was closed says where it ends, so that even its last record can't be lost unseen.
    expect(older).toBe(0);
  }, 600_000);

  test("a log that a crash has cut is read up to there, one that is cut in the middle is refused", async () => {
    const disk = start.clone();
    const writer = await opened(disk, stub);
    for (const { run } of history.slice(0, 3)) await run(writer);
    // No close: the process was killed.
    open.push(writer);
    const [path, log] = [...disk.files()].find(([name]) => name.includes("log-")) as [string, Buffer];
    const seen = new Set<string>();
    for (let length = log.length; length >= 0; length -= full ? 1 : 29) {
      const cut = disk.clone();
      cut.place(path, log.subarray(0, length));
      const index = await opened(cut, stub);
      seen.add(await contentsOf(index));
      await index.close();
    }
    expect([...seen]).toEqual(states.slice(0, 4).toReversed());
    const hole = disk.clone();
    const bytes = Buffer.from(log);
    bytes.fill(0, 300, 340);
    hole.place(path, bytes);
    await expect(opened(hole, stub)).rejects.toThrow(/the record of update 1 is damaged, and others follow/);
  });

  test("a log file that is missing between two others is refused", async () => {
    const disk = start.clone();
    for (const { run } of history.slice(0, 3)) {
      const index = await opened(disk, stub);
      await run(index);
      await index.close();
    }
    const logs = [...disk.files().keys()].filter((name) => name.includes("log-")).sort();
    expect(logs).toHaveLength(3);
    await disk.remove(logs[1] as string);
    await expect(opened(disk, stub)).rejects.toThrow(/update 2 is missing/);
  });
});

describe("a log with right checksums that says what can't be", () => {
  /** An index whose log was made by `write`, as another program could. */
  async function forged(
    write: (log: LogWriter) => Promise<unknown>,
    head: object = { vectorFingerprint: stub.withoutContext().fingerprint },
  ): Promise<SimulatedFileSystem> {
    const disk = start.clone();
    const name = logFile("log", 1, 1);
    const log = await LogWriter.create(disk, DIRECTORY, name, { head: { ...head }, sequence: 0 });
    await write(log);
    await log.close(true);
    return disk;
  }
  const upsertOf = (rows: Float32Array, text = "A text."): EncodedUpdate =>
    encodeUpsert([
      { document: document("x", text), passages: [{ start: 0, end: 7 }], rows, titleLeftOut: false, truncated: false },
    ]);
  const row = new Float32Array(16).fill(0.25);
  const append =
    ({ kind, parts }: EncodedUpdate) =>
    (log: LogWriter) =>
      log.append(kind, parts);

  test("is followed where it is sound (the control)", async () => {
    const index = await opened(await forged(append(upsertOf(row))), stub);
    expect(await index.get("x")).toEqual(document("x", "A text."));
    await index.close();
  });

  const bad: [string, () => Promise<SimulatedFileSystem>, RegExp][] = [
    [
      "vectors with NaN",
      () => forged(append(upsertOf(row.map((x, i) => (i === 3 ? Number.NaN : x))))),
      /update 1 can't be followed/,
    ],
    [
      "too few components",
      () => forged(append(upsertOf(row.subarray(1)))),
      /other vectors than passages|can't be followed/,
    ],
    [
      "two rows for one passage",
      () => forged(append(upsertOf(new Float32Array(32).fill(0.25)))),
      /other vectors than passages/,
    ],
    ["a kind that nobody knows", () => forged((log) => log.append(99, [Buffer.from("?")])), /kind 99/],
    ["ids that are none", () => forged((log) => log.append(17, [Buffer.from("[1]")])), /which documents/],
    ["no JSON", () => forged((log) => log.append(18, [Buffer.from("{")])), /not JSON/],
    [
      "metadata that is a list",
      () => forged((log) => log.append(18, [Buffer.from('[["d1",[1]]]')])),
      /which documents/,
    ],
    [
      "parts longer than itself",
      () => forged((log) => log.append(16, [Buffer.from([9, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0])])),
      /shorter than its parts/,
    ],
    [
      "another index's vectors",
      () => forged(append(upsertOf(row)), { vectorFingerprint: "another" }),
      /log of another index/,
    ],
  ];
  test.each(bad)("is refused with %s", async (_, make, message) => {
    const refused = opened(await make(), stub);
    await expect(refused).rejects.toMatchObject({ code: "CORRUPT_FILE", message: expect.stringMatching(message) });
  });
});

test("a compaction keeps the context that the embedder doesn't say", async () => {
  const disk = new SimulatedFileSystem();
  const context = await stub.buildContext(["one text", "another text"]);
  const plain = opaqueStub("before");
  const options = { fileSystem: disk, vectorIndex: naiveVectorIndex };
  await (await CorpusIndex.build({ ...plain, context }, corpus, { ...options, directory: DIRECTORY })).close();
  const index = await CorpusIndex.open(DIRECTORY, plain, options);
  await index.compact();
  await index.recontext({ embedder: opaqueStub("after") });
  await index.compact();
  await index.rollback({ embedder: plain });
  await index.close();
  const generation = await OpenGeneration.open(disk, DIRECTORY);
  expect(Buffer.from((await generation.bytes("context"))?.bytes ?? []).equals(Buffer.from(context.toBytes()))).toBe(
    true,
  );
  await generation.close();
});

test("a record that was written and not acknowledged is void once another session has written", async () => {
  const disk = start.clone();
  const first = await opened(disk, stub);
  await first.upsert([document("one", "The first.")]);
  let syncs = 0;
  disk.beforeOperation = (_, name) => {
    if (name === "sync" && syncs++ === 0) throw systemError("EIO", "fsync");
  };
  // Its bytes are there, its sync failed: nobody knows.
  await expect(first.upsert([document("unsure", "Unsure.")])).rejects.toMatchObject({ code: "STORAGE" });
  await first.upsert([document("two", "The second.")]);
  await first.close();
  const again = await opened(disk, stub);
  expect([await again.get("one"), await again.get("unsure"), await again.get("two")].map(Boolean)).toEqual([
    true,
    false,
    true,
  ]);
  await again.close();
});

describe("a context that is no map", () => {
  const before = opaqueStub("before");
  const after = opaqueStub("after");
  const options = { vectorIndex: naiveVectorIndex };

  test("embeds again, goes on after an interruption, and keeps the old vectors for the way back", async () => {
    const disk = new SimulatedFileSystem();
    let calls = 0;
    let failAt = Number.POSITIVE_INFINITY;
    const counted = {
      ...after,
      embedDocuments: async (texts: readonly string[]) => {
        if (++calls === failAt) throw new Error("the power went");
        return await after.embedDocuments(texts);
      },
    };
    // Two slices of 512 passages and a bit.
    const many = Array.from({ length: 1200 }, (_, i) => document(`m${i}`, `Number ${i} of many.`));
    const split = false;
    const build = { directory: DIRECTORY, fileSystem: disk, split, lexical: false, ...options } as const;
    await using index = await CorpusIndex.build(before, many, build);
    failAt = 2;
    await expect(index.recontext({ embedder: counted })).rejects.toThrow("the power went");
    expect(index.fingerprint).toBe(before.fingerprint);
    expect([...disk.files().keys()].some((name) => name.includes("build-"))).toBe(true);
    [calls, failAt] = [0, Number.POSITIVE_INFINITY];
    const report = await index.recontext({ embedder: counted });
    // The first slice was taken over: two of three calls.
    expect(calls).toBe(2);
    expect(report).toMatchObject({ embedded: true, after: { fingerprint: after.fingerprint } });
    expect((await index.search("Number 77 of many.", { k: 1 }))[0]).toMatchObject({ id: "m77" });
    await index.upsert([document("m5", "Another text."), document("extra", "Extra text.")]);
    await index.delete({ ids: ["m6"] });
    await index.compact();
    let again = 0;
    const back = {
      ...before,
      embedDocuments: async (texts: readonly string[]) => {
        again += texts.length;
        return await before.embedDocuments(texts);
      },
    };
    await index.rollback({ embedder: back });
    // Only what came since is embedded.
    expect(again).toBe(2);
    expect(index).toMatchObject({ count: 1200, fingerprint: before.fingerprint });
    for (const [id, text] of [
      ["m77", "Number 77 of many."],
      ["m5", "Another text."],
    ] as const) {
      expect((await index.search(text, { k: 1 }))[0]).toMatchObject({ id, score: expect.closeTo(1, 5) });
    }
    await expect(index.rollback({ embedder: before })).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
  }, 120_000);
});
