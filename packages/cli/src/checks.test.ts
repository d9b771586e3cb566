import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import {
  checkCache,
  checkHnsw,
  checkMachine,
  checkModel,
  checkNode,
  checkOffline,
  checkPlatform,
  checkRuntime,
} from "./checks.js";

const folder = mkdtempSync(join(tmpdir(), "cde-doctor-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const { signal } = new AbortController();

test.each([
  ["linux", "x64", "2.36", "ok"],
  ["linux", "x64", undefined, "fault"],
  ["linux", "arm64", "2.31", "ok"],
  ["linux", "riscv64", "2.31", "fault"],
  ["darwin", "arm64", undefined, "ok"],
  ["darwin", "x64", undefined, "fault"],
  ["win32", "x64", undefined, "ok"],
])("of the platform %s-%s with glibc %s it says: %s", (platform, arch, glibc, status) => {
  const check = checkPlatform(platform, arch, glibc);
  expect(check.status).toBe(status);
  expect(check.command === undefined).toBe(status === "ok");
});

test.each([
  ["20.19.0", "ok"],
  ["20.18.9", "fault"],
  ["18.20.0", "fault"],
  ["22.0.0", "ok"],
  ["100.1.0", "ok"],
])("of Node %s it says: %s", (version, status) => {
  expect(checkNode(version).status).toBe(status);
});

test("warns of little memory", () => {
  expect(checkMachine(4, 8 * 2 ** 30, 2 ** 30).status).toBe("ok");
  expect(checkMachine(4, 8 * 2 ** 30, 2 ** 28)).toMatchObject({
    status: "warning",
    finding: expect.stringContaining("0.3 of 8.0 GiB"),
  });
});

test("names the providers, or the command that installs a library that can't be loaded", async () => {
  expect(await checkRuntime(async () => ["cpu", "webgpu"])).toMatchObject({
    status: "ok",
    finding: expect.stringContaining("cpu, webgpu"),
  });
  const broken = await checkRuntime(async () =>
    Promise.reject(new Error("libonnxruntime.so.1: cannot open shared object file")),
  );
  expect(broken).toMatchObject({
    status: "fault",
    finding: expect.stringContaining("cannot open shared"),
    command: expect.stringMatching(/^npm install onnxruntime-node/),
  });
});

test("hnswlib-node is optional: a note where it is missing, a warning where it wasn't built, each with its command", async () => {
  expect((await checkHnsw(async () => ({ state: "ready" }))).status).toBe("ok");
  for (const [state, status] of [
    ["missing", "note"],
    ["not built", "warning"],
  ] as const) {
    expect(await checkHnsw(async () => ({ state, message: "m", command: "npm x" }))).toMatchObject({
      status,
      command: "npm x",
    });
  }
});

test("a cache folder that is there, one that isn't yet, and one that a file is in the way of", async () => {
  expect((await checkCache(folder)).status).toBe("ok");
  expect(await checkCache(join(folder, "a", "b"))).toMatchObject({
    status: "ok",
    finding: expect.stringContaining("not there yet"),
  });
  writeFileSync(join(folder, "file"), "");
  expect(await checkCache(join(folder, "file", "hub"))).toMatchObject({
    status: "warning",
    command: expect.stringContaining("HF_HOME"),
  });
});

test("a model that is nowhere is a fault, with the command that fetches a repository", async () => {
  process.env.HF_HUB_CACHE = join(folder, "empty");
  const repository = await checkModel("acme/nothing", signal);
  expect(repository).toMatchObject({
    status: "fault",
    command: expect.stringContaining('downloadModel("acme/nothing")'),
  });
  expect(await checkOffline("acme/nothing")).toMatchObject({ status: "warning", command: repository.command });
  delete process.env.HF_HUB_CACHE;
  expect(await checkModel(folder, signal)).toMatchObject({ status: "fault", command: "check --model" });
  expect((await checkOffline(folder)).status).toBe("ok");
});
