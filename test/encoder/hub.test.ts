/** Loading by a repository's name: through the cache, from a hub on loopback that serves the bundled model. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ContextualEncoder, HubError, InvalidInputError, type LoadOptions, MissingFileError } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { COMMIT, FakeHub } from "../hub/fake-hub.js";
import { isolate } from "../hub/support.js";
import { largestDifference } from "../support/vectors.js";

type LoadProgress = Parameters<NonNullable<LoadOptions["onProgress"]>>[0];

const NAMES = [
  "1_Pooling/config.json",
  "config.json",
  "config_sentence_transformers.json",
  "model.safetensors",
  "modules.json",
  "sentence_bert_config.json",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer_config.json",
];
const files = Object.fromEntries(NAMES.map((name) => [name, readFileSync(join(modelDirectory, name))]));
const REPO = "acme/mini-int8";
const place = isolate();
let hub: FakeHub;

beforeEach(async () => {
  hub = await FakeHub.start(files);
});
afterEach(() => hub.close());

test("downloads once, loads, and embeds as the directory does; the name is the model's id", async () => {
  const seen: LoadProgress[] = [];
  await using encoder = await ContextualEncoder.load(REPO, {
    endpoint: hub.url,
    token: "secret",
    onProgress: (progress) => seen.push(progress),
  });
  await using local = await ContextualEncoder.load(modelDirectory);
  expect(encoder.modelId).toBe(REPO);
  expect(local.modelId).toBe("all-MiniLM-L6-v2-int8");
  expect(encoder.fingerprint).toBe(local.fingerprint);
  const [a, b] = [await encoder.withoutContext().embedQuery("flood"), await local.withoutContext().embedQuery("flood")];
  expect(largestDifference([a], [b])).toBe(0);

  const steps = seen.map(({ step }) => step);
  expect(steps).toEqual([...steps].sort()); // "download" before "load"
  const bytes = NAMES.reduce((sum, name) => sum + files[name]!.length, 0);
  expect(seen.findLast(({ step }) => step === "download")).toEqual({ step: "download", done: bytes, total: bytes });
  expect(seen.at(-1)).toMatchObject({ step: "load", done: seen.at(-1)!.total });
  expect(hub.requests.some(({ authorization }) => authorization === "Bearer secret")).toBe(true);

  hub.forget();
  await using again = await ContextualEncoder.load(REPO, { endpoint: hub.url });
  expect(hub.requests).toEqual([]);
  await using offline = await ContextualEncoder.load(REPO, { offline: true, revision: COMMIT });
  expect([again.fingerprint, offline.fingerprint]).toEqual([local.fingerprint, local.fingerprint]);
});

test("uses the cache folder that is given", async () => {
  const cacheDir = join(place.home, "elsewhere");
  await using encoder = await ContextualEncoder.load(REPO, { endpoint: hub.url, cacheDir });
  const path = join(cacheDir, `models--acme--mini-int8/snapshots/${COMMIT}/config.json`);
  expect(readFileSync(path).equals(files["config.json"]!)).toBe(true);
  expect(encoder.dimensions).toBe(384);
});

test("an abort stops the download with the signal's reason", async () => {
  const reason = new Error("no longer wanted");
  const controller = new AbortController();
  const onProgress = () => controller.abort(reason);
  const loading = ContextualEncoder.load(REPO, { endpoint: hub.url, signal: controller.signal, onProgress });
  await expect(loading).rejects.toBe(reason);
});

describe("what is no model", () => {
  test("neither a directory nor a name: one error says both, and nothing is asked", async () => {
    for (const source of ["./models/nothing", "/nothing/here", "a/b/c", "nothing", "", "a b/c", "../x/y"]) {
      const error = await ContextualEncoder.load(source, { endpoint: hub.url }).catch((reason: unknown) => reason);
      expect(error, source).toBeInstanceOf(MissingFileError);
      expect((error as Error).message).toContain("neither a model directory nor a repository of the hub");
    }
    await expect(ContextualEncoder.load(join(modelDirectory, "config.json"))).rejects.toThrow(MissingFileError);
    expect(hub.requests).toEqual([]);
  });

  test("a name that the hub doesn't know: the error says that there is no such directory either", async () => {
    hub.fault = (_, response) => {
      response.writeHead(404).end();
      return true;
    };
    const error = await ContextualEncoder.load("models/mini", { endpoint: hub.url }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(HubError);
    expect(error).toMatchObject({ code: "HUB_NOT_FOUND", status: 404 });
    expect((error as Error).message).toContain("there is no directory models/mini here");
    const offline = ContextualEncoder.load("models/mini", { offline: true });
    await expect(offline).rejects.toMatchObject({
      code: "HUB_OFFLINE",
      message: expect.stringContaining("no directory"),
    });
  });

  test("a repository of something else: the error of the reader, with the snapshot's path", async () => {
    hub.files.set("config.json", Buffer.from('{"model_type":"t5"}'));
    await expect(ContextualEncoder.load(REPO, { endpoint: hub.url })).rejects.toMatchObject({ code: "MODEL" });
    const revision = "../../etc";
    await expect(ContextualEncoder.load(REPO, { endpoint: hub.url, revision })).rejects.toThrow(InvalidInputError);
  });
});
