/** What a download leaves on disk, what it asks for, and how it goes on after it was stopped. */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type DownloadProgress, downloadModel, InvalidInputError } from "@cde-js/core";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { COMMIT, cutAt, FakeHub, gitSha1, modelFiles, sha256 } from "./fake-hub.js";
import { hubError, isolate } from "./support.js";

const REPO = "org/model";
const FETCHED = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "tokenizer.json"];
const place = isolate();
let hub: FakeHub;

beforeEach(async () => {
  hub = await FakeHub.start(modelFiles());
  vi.stubEnv("HF_ENDPOINT", hub.url);
});
afterEach(() => hub.close());

const repoFolder = () => join(place.cacheDir, "models--org--model");
const download = (options = {}) => downloadModel(REPO, { retryDelay: 2, ...options });
/** Hashes are compared, not buffers: comparing 300 kB entry by entry takes seconds. */
const digest = async (directory: string, name = "model.safetensors") => sha256(await readFile(join(directory, name)));
async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

describe("a complete download", () => {
  test("holds configuration, tokenizer and safetensors, and never code, pickles or ONNX", async () => {
    const { directory, revision } = await download();
    expect(revision).toBe(COMMIT);
    expect(directory).toBe(join(repoFolder(), "snapshots", COMMIT));
    expect(await filesIn(directory)).toEqual(FETCHED);
    for (const name of FETCHED) expect(await digest(directory, name)).toBe(sha256(hub.files.get(name)!));
    for (const name of ["model.py", "pytorch_model.bin", "onnx/model.onnx"]) expect(hub.of(name)).toEqual([]);
  });

  test("is laid out as Hugging Face's tools do: blobs by hash, relative links, refs", async () => {
    const { directory } = await download();
    const weights = sha256(hub.files.get("model.safetensors")!);
    const pooling = gitSha1(hub.files.get("1_Pooling/config.json")!);
    expect((await lstat(join(directory, "model.safetensors"))).isSymbolicLink()).toBe(true);
    expect(await readlink(join(directory, "model.safetensors"))).toBe(`../../blobs/${weights}`);
    expect(await readlink(join(directory, "1_Pooling/config.json"))).toBe(`../../../blobs/${pooling}`);
    expect(await readFile(join(repoFolder(), "refs/main"), "utf8")).toBe(COMMIT);
    expect(await filesIn(join(repoFolder(), "blobs"))).toEqual(
      FETCHED.map((name) => (name === "model.safetensors" ? weights : gitSha1(hub.files.get(name)!))).sort(),
    );
    expect(await filesIn(join(place.cacheDir, ".locks"))).toEqual([]);
  });

  test("costs no request the next time, by branch or by commit", async () => {
    const first = await download();
    hub.forget();
    expect(await download()).toEqual(first);
    expect(await download({ revision: COMMIT })).toEqual(first);
    expect(await download({ offline: true })).toEqual(first);
    expect(hub.requests).toEqual([]);
    await download({ revision: "v2" }); // control: a revision that the cache doesn't know is asked for
    expect(hub.requests.map(({ path }) => path)).toEqual(["/api/models/org/model/revision/v2"]);
  });

  test("reports bytes up to the sum of the file sizes", async () => {
    const seen: DownloadProgress[] = [];
    await download({ onProgress: (progress: DownloadProgress) => seen.push(progress) });
    const total = FETCHED.reduce((sum, name) => sum + hub.files.get(name)!.length, 0);
    expect(seen.at(-1)).toMatchObject({ done: total, total });
    expect(seen.every(({ done }, i) => i === 0 || done >= seen[i - 1]!.done)).toBe(true);
  });

  test("takes the shards of an index where there is no single file", async () => {
    const weights = hub.files.get("model.safetensors")!;
    const [one, two] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;
    hub.files.delete("model.safetensors");
    hub.files.set(one, weights.subarray(0, 1000)).set(two, weights.subarray(1000));
    const map = { weight_map: { a: one, b: two, c: one } };
    hub.files.set("model.safetensors.index.json", Buffer.from(JSON.stringify(map)));
    const { directory } = await download();
    expect(await digest(directory, two)).toBe(sha256(weights.subarray(1000)));
    hub.forget();
    await download();
    expect(hub.requests).toEqual([]);
  });

  test("brings two files of the same content once", async () => {
    hub.files.set("1_Pooling/config.json", hub.files.get("config.json")!);
    const { directory } = await download();
    expect(hub.of("config.json", "GET").length + hub.of("1_Pooling/config.json", "GET").length).toBe(1);
    expect(await readFile(join(directory, "1_Pooling/config.json"))).toEqual(hub.files.get("config.json"));
  });
});

describe("a cache that another tool filled", () => {
  async function fill(names: readonly string[]) {
    const directory = join(repoFolder(), "snapshots", COMMIT);
    for (const name of names) {
      const blob = join(repoFolder(), "blobs", gitSha1(hub.files.get(name)!));
      await mkdir(join(directory, name, ".."), { recursive: true });
      await mkdir(join(blob, ".."), { recursive: true });
      await writeFile(blob, hub.files.get(name)!);
      await symlink(blob, join(directory, name));
    }
    await mkdir(join(repoFolder(), "refs"), { recursive: true });
    await writeFile(join(repoFolder(), "refs/main"), COMMIT);
  }

  test("is used without a request where the tool listed the repository, and completed where files lack", async () => {
    await fill(FETCHED);
    await mkdir(join(repoFolder(), "trees"));
    const files = Object.fromEntries([...hub.files.keys()].map((name) => [name, { size: 1, blob_id: "" }]));
    const listing = JSON.stringify({ format_version: 1, files: { ...files, "vocab.txt": {} } });
    await writeFile(join(repoFolder(), "trees", `${COMMIT}.json`), listing);
    hub.files.set("vocab.txt", Buffer.from("[PAD]"));
    expect((await hubError(download({ offline: true }))).message).toContain("vocab.txt");
    const { directory } = await download();
    expect(hub.of("vocab.txt", "GET")).toHaveLength(1);
    expect(hub.of("model.safetensors")).toEqual([]);
    expect(await filesIn(directory)).toEqual([...FETCHED, "vocab.txt"].sort());
    hub.forget();
    await download();
    expect(hub.requests).toEqual([]);
  });

  test("is used offline as it is", async () => {
    await fill(FETCHED);
    expect((await download({ offline: true })).revision).toBe(COMMIT);
    expect(hub.requests).toEqual([]);
  });

  test.each(["the weights lack", "a shard lacks"])("is refused offline where %s", async (what) => {
    hub.files.set("model.safetensors.index.json", Buffer.from('{"weight_map":{"t":"model-1.safetensors"}}'));
    const others = FETCHED.filter((name) => name !== "model.safetensors");
    await fill(what === "a shard lacks" ? [...others, "model.safetensors.index.json"] : others);
    expect((await hubError(download({ offline: true }))).code).toBe("HUB_OFFLINE");
    expect(hub.requests).toEqual([]);
  });
});

describe("offline", () => {
  test("an empty cache is an error that says what to do, without a request", async () => {
    const error = await hubError(download({ offline: true }));
    expect(error.code).toBe("HUB_OFFLINE");
    expect(error.message).toContain("Download it once with the network on");
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect((await hubError(download())).code).toBe("HUB_OFFLINE");
    expect(hub.requests).toEqual([]);
    expect(existsSync(place.cacheDir)).toBe(false);
    await download({ offline: false }); // the option wins
  });
});

describe("a connection's break", () => {
  const weights = randomBytes(40);
  const partialName = `${sha256(weights)}.cde-js.incomplete`;
  const storeRanges = () =>
    hub.of("model.safetensors", "GET").flatMap(({ where, range }) => (where === "store" ? [range] : []));
  const shrink = () => {
    hub.files.clear();
    hub.files.set("config.json", Buffer.from("{}")).set("model.safetensors", weights);
  };

  test("may be at every byte", async () => {
    shrink();
    for (let byte = 0; byte <= weights.length; byte++) {
      let cuts = 0;
      hub.forget();
      hub.fault = (seen, response, content) => {
        if (seen.where !== "store" || cuts++ > 0) return false;
        cutAt(byte)(seen, response, content!);
        return true;
      };
      const { directory } = await download({ cacheDir: join(place.home, `cut-${byte}`) });
      expect(await digest(directory)).toBe(sha256(weights));
      expect(storeRanges()).toHaveLength(byte === weights.length ? 1 : 2); // at the last byte nothing is missing
    }
  });

  test("is resumed from every byte that reached the disk", async () => {
    shrink();
    for (let byte = 0; byte <= weights.length; byte++) {
      const cacheDir = join(place.home, `partial-${byte}`);
      const blobs = join(cacheDir, "models--org--model/blobs");
      await mkdir(blobs, { recursive: true });
      await writeFile(join(blobs, partialName), weights.subarray(0, byte));
      hub.forget();
      const { directory } = await download({ cacheDir });
      expect(await digest(directory)).toBe(sha256(weights));
      const asked = byte === 0 ? [undefined] : [`bytes=${byte}-`];
      expect(storeRanges()).toEqual(byte === weights.length ? [] : asked);
      expect(existsSync(join(blobs, partialName))).toBe(false);
    }
  });

  test("may come more often than we repeat, as long as it brings something", async () => {
    const large = randomBytes(1_500_000);
    hub.files.set("model.safetensors", large);
    hub.fault = (seen, response, content) => {
      const start = Number(/\d+/.exec(seen.range ?? "")?.[0] ?? 0);
      if (seen.where !== "store" || start + 200_000 >= large.length) return false;
      cutAt(start + 200_000)(seen, response, content!);
      return true;
    };
    const { directory } = await download();
    expect(await digest(directory)).toBe(sha256(large));
    expect(storeRanges().length).toBeGreaterThan(7); // 1.5e6 / 2e5, and more than five attempts
  });

  test.each(["ignores", "refuses"])(
    "is given up where a server that %s ranges always breaks at the same byte",
    async (how) => {
      hub.fault = (seen, response, content) => {
        if (seen.where !== "store") return false;
        if (seen.range && how === "refuses") response.writeHead(416).end();
        else cutAt(100_000)({ ...seen, range: undefined }, response, content!);
        return true;
      };
      expect((await hubError(download())).retryable).toBe(true);
      expect(storeRanges().length).toBeLessThan(30); // 100000 bytes are at most 7 steps of 16 KiB, then five attempts
    },
  );

  test("that never brings anything is given up after five attempts", async () => {
    hub.fault = (seen, response) => {
      if (seen.where === "store") response.socket?.destroy();
      return seen.where === "store";
    };
    expect((await hubError(download())).code).toBe("HUB_UNREACHABLE");
    expect(hub.requests.filter(({ where }) => where === "store")).toHaveLength(5);
  });

  test("is started over where the server ignores ranges, or refuses them", async () => {
    for (const refuse of [false, true]) {
      const cacheDir = join(place.home, `refuse-${refuse}`);
      let cuts = 0;
      hub.fault = (seen, response, content) => {
        if (seen.where !== "store" || (cuts > 0 && !seen.range)) return false;
        if (cuts++ === 0) cutAt(1000)(seen, response, content!);
        else if (refuse) response.writeHead(416).end();
        else response.end(content);
        return true;
      };
      const { directory } = await download({ cacheDir });
      expect(await digest(directory)).toBe(sha256(hub.files.get("model.safetensors")!));
      expect(cuts).toBe(2);
    }
  });
});

describe("an aborted download", () => {
  test("rejects with the reason, leaves a partial file, no snapshot and no lock, and is resumed", async () => {
    const reason = new Error("enough");
    const controller = new AbortController();
    hub.fault = (seen, response, content) => {
      if (seen.where !== "store") return false;
      response.writeHead(200, { "content-length": content!.length });
      response.write(content!.subarray(0, 100_000));
      return true; // and then nothing
    };
    const onProgress = ({ file, done }: DownloadProgress) => {
      if (file === "model.safetensors" && done >= 100_000) controller.abort(reason);
    };
    await expect(download({ signal: controller.signal, onProgress })).rejects.toBe(reason);
    const blobs = await filesIn(join(repoFolder(), "blobs"));
    expect(blobs.filter((name) => name.endsWith(".incomplete"))).toHaveLength(1);
    expect(existsSync(join(repoFolder(), "snapshots"))).toBe(false);
    expect(await filesIn(join(place.cacheDir, ".locks"))).toEqual([]);

    hub.fault = undefined;
    hub.forget();
    const { directory } = await download();
    expect(hub.of("model.safetensors", "GET").map(({ range }) => range)).toEqual(["bytes=100000-", "bytes=100000-"]);
    expect(await digest(directory)).toBe(sha256(hub.files.get("model.safetensors")!));
    expect((await filesIn(join(repoFolder(), "blobs"))).filter((name) => name.endsWith(".incomplete"))).toEqual([]);
  });

  test("makes no request where the signal has fired before", async () => {
    const reason = new Error("never");
    await expect(download({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(hub.requests).toEqual([]);
  });
});

describe("arguments", () => {
  test.each(["", "a/b/c", "../x", "org/..", "/etc", "org\\x", "org/a--b", "org/a\n", "C:/x", "org/.hidden", "a b/c"])(
    "refuses %j as a repository id",
    async (repoId) => {
      await expect(downloadModel(repoId)).rejects.toBeInstanceOf(InvalidInputError);
    },
  );

  test.each(["", "..", "a/../b", "/main", "main/", "a\\b", "a\nb", "a:b", "-"])(
    "refuses %j as a revision",
    async (revision) => {
      const call = download({ revision });
      if (revision === "-")
        expect((await call).revision).toBe(COMMIT); // control: odd, but a name
      else await expect(call).rejects.toBeInstanceOf(InvalidInputError);
    },
  );

  test("takes a revision with slashes, encoded in the address and as folders on disk", async () => {
    await download({ revision: "refs/pr/1" });
    expect(hub.requests[0]?.path).toBe("/api/models/org/model/revision/refs%2Fpr%2F1");
    expect(await readFile(join(repoFolder(), "refs/refs/pr/1"), "utf8")).toBe(COMMIT);
  });
});
