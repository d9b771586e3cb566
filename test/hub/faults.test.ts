/** Servers that fail, lie or attack: how each ends, and that nothing of it reaches a snapshot, another host or a message. */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { inspect } from "node:util";
import { downloadModel, InvalidInputError } from "@cde-js/core";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  COMMIT,
  FakeHub,
  type Fault,
  linkedHeaders,
  modelFiles,
  type SeenRequest,
  sendFile,
  sha256,
} from "./fake-hub.js";
import { hubError, isolate } from "./support.js";

const TOKEN = "hf_secretsecretsecret";
const place = isolate();
let hub: FakeHub;

beforeEach(async () => {
  hub = await FakeHub.start(modelFiles(Buffer.alloc(50_000, "weights ")));
  vi.stubEnv("HF_ENDPOINT", hub.url);
});
afterEach(() => hub.close());

const download = (options = {}) => downloadModel("org/model", { retryDelay: 2, ...options });
const snapshots = () => join(place.cacheDir, "models--org--model/snapshots");
const blobs = () => readdir(join(place.cacheDir, "models--org--model/blobs"));
const weightsBlob = () => sha256(hub.files.get("model.safetensors")!);
/** A fault of the store only, which holds the weights. */
const ofStore = (answer: (response: ServerResponse, content: Buffer, seen: SeenRequest) => void): Fault => {
  return (seen, response, content) => {
    if (seen.where === "store") answer(response, content!, seen);
    return seen.where === "store";
  };
};

describe("the token", () => {
  test("goes to the hub with every request, and not to the store that it redirects to", async () => {
    await download({ token: TOKEN });
    const [atHub, atStore] = ["hub", "store"].map((where) => hub.requests.filter((seen) => seen.where === where));
    expect(atHub!.length).toBeGreaterThan(5);
    expect(new Set(atHub!.map(({ authorization }) => authorization))).toEqual(new Set([`Bearer ${TOKEN}`]));
    expect(atStore!.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  test("follows a redirect inside the hub, as small files have, and describes the file by where it ends", async () => {
    hub.fault = ({ where, path }, response) => {
      if (where === "store" || !/^\/org\/.*\.json$/.test(path)) return false;
      response.writeHead(307, { location: `/elsewhere${path}`, etag: '"of-the-redirect"' }).end();
      return true;
    };
    await download({ token: TOKEN });
    const moved = hub.requests.filter(({ path }) => path.startsWith("/elsewhere"));
    expect(moved).toHaveLength(8); // HEAD and GET of four files
    expect(new Set(moved.map(({ authorization }) => authorization))).toEqual(new Set([`Bearer ${TOKEN}`]));
  });

  test("comes from HF_TOKEN or the file of a login, the option first, and can be switched off", async () => {
    const sent = async (options = {}) => {
      hub.forget();
      await download({ revision: `r${Math.random()}`, ...options });
      return hub.requests[0]?.authorization;
    };
    expect(await sent()).toBeUndefined();
    await writeFile(join(place.home, "token"), "hf_file\n");
    expect(await sent()).toBe("Bearer hf_file");
    vi.stubEnv("HF_TOKEN", "hf_env");
    expect(await sent()).toBe("Bearer hf_env");
    expect(await sent({ token: "hf_option" })).toBe("Bearer hf_option");
    expect(await sent({ token: false })).toBeUndefined();
  });

  test.each(["hub.invalid", "127.0.0.1.hub.invalid", "10.0.0.1"])("is refused over plain http to %s", async (host) => {
    const error = await hubError(download({ token: TOKEN, endpoint: `http://${host}` }));
    expect(error.code).toBe("HUB_INSECURE");
    expect(error.message).toContain(host);
  });

  test("with a line break in it is refused without being shown", async () => {
    const end: unknown = await download({ token: `${TOKEN}\r\nx: y` }).catch((error: unknown) => error);
    expect(end).toBeInstanceOf(InvalidInputError);
    expect(inspect(end)).not.toContain(TOKEN);
  });

  test.each([
    ["401", 401, "HUB_UNAUTHORIZED"],
    ["403", 403, "HUB_UNAUTHORIZED"],
    ["404", 404, "HUB_NOT_FOUND"],
    ["500", 500, "HUB_UNREACHABLE"],
    ["a redirect loop", 302, "HUB_RESPONSE"],
    ["a broken connection", 0, "HUB_UNREACHABLE"],
    ["no JSON", 200, "HUB_RESPONSE"],
  ])("does not show in the error of %s", async (_, status, code) => {
    hub.fault = ({ path, authorization }, response) => {
      if (status === 0) response.socket?.destroy();
      // A server may well echo what it was sent.
      else
        response.writeHead(status, { location: path, "x-echo": authorization ?? "" }).end(`you sent ${authorization}`);
      return true;
    };
    const error = await hubError(download({ token: TOKEN }));
    expect(error.code).toBe(code);
    if (status >= 400) expect(error.status).toBe(status);
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain(TOKEN);
    expect(existsSync(snapshots())).toBe(false);
  });
});

describe("repetition", () => {
  /** Refuses the first `times` requests for the weights at the hub. */
  const failing = (times: number, status: number, headers = {}) => {
    const at: number[] = [];
    hub.fault = (seen, response) => {
      if (!seen.path.endsWith("model.safetensors") || seen.where !== "hub") return false;
      at.push(performance.now());
      if (at.length > times) return false;
      response.writeHead(status, headers).end();
      return true;
    };
    return at;
  };

  test("gets over four failures of the server", async () => {
    const at = failing(4, 503);
    await download();
    expect(at).toHaveLength(6); // HEAD five times, GET once
  });

  test("waits as long as Retry-After says", async () => {
    const at = failing(1, 429, { "retry-after": "1" });
    await download();
    expect(at[1]! - at[0]!).toBeGreaterThan(990);
  });

  test.each<[string, () => Record<string, string>, number]>([
    ["seconds", () => ({ "retry-after": "301" }), 301],
    ["a window", () => ({ ratelimit: '"api";r=0;t=999' }), 999],
    ["a date", () => ({ "retry-after": new Date(Date.now() + 1e6).toUTCString() }), 1000],
  ])(
    "does not wait longer than five minutes, and says for how long the hub wants it: %s",
    async (_, headers, seconds) => {
      const at = failing(1, 429, headers());
      const error = await hubError(download());
      expect(error).toMatchObject({ code: "HUB_RATE_LIMITED", status: 429 });
      expect(Math.abs(error.retryAfter! - seconds)).toBeLessThan(5);
      expect(at).toHaveLength(1);
    },
  );

  test("does not help a 404, and a long wait ends with the caller's abort", async () => {
    const at = failing(1, 404);
    expect((await hubError(download())).code).toBe("HUB_NOT_FOUND");
    expect(at).toHaveLength(1);
    failing(9, 429, { "retry-after": "200" });
    const controller = new AbortController();
    const reason = new Error("enough");
    setTimeout(() => controller.abort(reason), 50);
    await expect(download({ signal: controller.signal })).rejects.toBe(reason);
  });

  test("asks the hub again where the store says that its address has expired", async () => {
    let refused = 0;
    hub.fault = (seen, response) => {
      if (seen.where === "hub" || refused++ > 0) return false;
      response.writeHead(403).end();
      return true;
    };
    await download();
    expect(hub.of("model.safetensors", "GET").map(({ where }) => where)).toEqual(["hub", "store", "hub", "store"]);
  });
});

describe("a slow loris", () => {
  test.each(["headers", "body"])("that trickles the %s is left", async (part) => {
    const timers: NodeJS.Timeout[] = [];
    hub.fault = ofStore((response, content) => {
      if (part === "body") response.writeHead(200, { "content-length": content.length });
      else response.socket?.write("HTTP/1.1 200 OK\r\nx-slow: ");
      timers.push(setInterval(() => (part === "body" ? response.write("w") : response.socket?.write("s")), 5));
      response.on("close", () => clearInterval(timers.shift()));
    });
    const error = await hubError(download({ idleTimeout: 60 }));
    for (const timer of timers) clearInterval(timer);
    expect(error.code).toBe("HUB_TIMEOUT");
    expect(error.message).toContain("60 ms");
  });

  test("is not suspected in a server that sends steadily for longer than the limit", async () => {
    hub.fault = ofStore((response, content) => {
      response.writeHead(200, { "content-length": content.length });
      let sent = 0;
      const timer = setInterval(() => {
        response.write(content.subarray(sent, sent + 5000));
        sent += 5000;
        if (sent >= content.length) response.end(() => clearInterval(timer));
      }, 50);
    });
    await download({ idleTimeout: 400 }); // 10 pieces, 500 ms
    expect(hub.of("model.safetensors", "GET")).toHaveLength(2);
  });
});

describe("wrong bytes", () => {
  const expectNothingKept = async () => {
    expect(existsSync(snapshots())).toBe(false);
    expect((await blobs()).filter((name) => name.startsWith(weightsBlob()))).toEqual([]);
  };

  test("of the right size are refused by their hash, and the right ones taken afterwards", async () => {
    hub.fault = ofStore((response, content, seen) => sendFile(seen, response, Buffer.alloc(content.length)));
    const error = await hubError(download());
    expect(error.code).toBe("HUB_CORRUPT");
    expect(error.message).toContain(weightsBlob());
    expect(error.message).toContain(sha256(Buffer.alloc(50_000)));
    await expectNothingKept();
    hub.fault = undefined;
    await download();
    expect(await blobs()).toContain(weightsBlob());
  });

  test("of a small file are refused by its git hash", async () => {
    hub.fault = (seen, response, content) => {
      if (!seen.path.endsWith("/config.json") || seen.method === "HEAD") return false;
      response.end(Buffer.alloc(content!.length, "x"));
      return true;
    };
    expect((await hubError(download())).code).toBe("HUB_CORRUPT");
    expect(existsSync(snapshots())).toBe(false);
  });

  test("of an earlier run are thrown away and fetched anew", async () => {
    for (const length of [1000, 50_000, 60_000]) {
      const cacheDir = join(place.home, `cache-${length}`);
      const partial = join(cacheDir, "models--org--model/blobs", `${weightsBlob()}.cde-js.incomplete`);
      await mkdir(join(partial, ".."), { recursive: true });
      await writeFile(partial, Buffer.alloc(length));
      const { directory } = await download({ cacheDir });
      expect(sha256(await readFile(join(directory, "model.safetensors")))).toBe(weightsBlob());
      expect(existsSync(partial)).toBe(false);
    }
  });

  test.each(["with its length", "without a length"])("more than announced, %s, are refused", async (how) => {
    hub.fault = ofStore((response, content) => {
      const more = Buffer.concat([content, content]);
      response.writeHead(200, how === "with its length" ? { "content-length": more.length } : {});
      response.write(more.subarray(0, 60_000));
      setTimeout(() => response.end(more.subarray(60_000)), 20);
    });
    const error = await hubError(download());
    expect(error.code).toBe("HUB_CORRUPT");
    expect(error.message).toContain("50000");
    await expectNothingKept();
  });

  test("of another range than asked for never reach the disk at the wrong place", async () => {
    const partial = join(place.cacheDir, "models--org--model/blobs", `${weightsBlob()}.cde-js.incomplete`);
    await mkdir(join(partial, ".."), { recursive: true });
    await writeFile(partial, hub.files.get("model.safetensors")!.subarray(0, 1000));
    let lied = false;
    hub.fault = (seen, response, content) => {
      if (seen.where !== "store" || lied) return false;
      lied = true;
      sendFile({ ...seen, range: "bytes=2000-" }, response, content!);
      return true;
    };
    await download();
    expect(lied).toBe(true);
    expect(await blobs()).toContain(weightsBlob());
  });

  test("of a file that changed since its announcement are refused before they are read", async () => {
    hub.fault = (seen, response, content) => {
      if (seen.where !== "hub" || seen.method !== "GET" || !seen.path.endsWith("model.safetensors")) return false;
      const headers = { ...linkedHeaders(content!), "x-linked-etag": `"${"0".repeat(64)}"` };
      response.writeHead(302, { ...headers, location: `${hub.storeUrl}${seen.path}` }).end();
      return true;
    };
    expect((await hubError(download())).code).toBe("HUB_CORRUPT");
  });
});

describe("names that leave the repository", () => {
  const outside = "../../../../evil.json";
  test.each([
    ["the listing", "../evil/config.json"],
    ["the listing", "/etc/config.json"],
    ["the listing", "a\\..\\config.json"],
    ["the listing", "a/./config.json"],
    ["the listing", "C:/config.json"],
    ["the listing", "con\u0000fig.json"],
    ["modules.json", outside],
    ["modules.json", "/abs"],
    ["the shard index", `${outside}.safetensors`],
    ["the shard index", "a\\b.safetensors"],
    ["the shard index", "model.bin"],
  ])("are refused in %s: %j", async (where, name) => {
    if (where === "the listing") hub.files.set(name, Buffer.from("{}"));
    else if (where === "modules.json") hub.files.set(where, Buffer.from(JSON.stringify([{ path: name }])));
    else {
      hub.files.delete("model.safetensors");
      hub.files.set("model.safetensors.index.json", Buffer.from(JSON.stringify({ weight_map: { t: name } })));
    }
    const error = await hubError(download());
    expect(error.code).toBe("HUB_RESPONSE");
    expect(error.message).toContain(JSON.stringify(name));
    expect(existsSync(snapshots())).toBe(false);
    expect((await readdir(place.home)).sort()).toEqual(["hub"]);
  });

  test.each([
    ["commit", { sha: "../../evil", siblings: [{ rfilename: "config.json" }] }],
    ["listing", { sha: COMMIT, siblings: "config.json" }],
    ["object", null],
  ])("are refused where they come as the %s", async (_, answer) => {
    hub.fault = (_seen, response) => !!response.end(JSON.stringify(answer));
    expect((await hubError(download())).code).toBe("HUB_RESPONSE");
  });

  test("are refused where they come as the hash, which becomes a file name", async () => {
    hub.fault = ({ path }, response) => {
      if (!path.endsWith("config.json")) return false;
      response.writeHead(200, { etag: '"../../../evil"', "content-length": 2 }).end();
      return true;
    };
    expect((await hubError(download())).code).toBe("HUB_RESPONSE");
  });
});

describe("other ends", () => {
  test("a repository with pickled weights only is refused before anything is fetched", async () => {
    hub.files.delete("model.safetensors");
    const error = await hubError(download());
    expect(error.code).toBe("HUB_UNSUPPORTED");
    expect(hub.of("pytorch_model.bin")).toEqual([]);
  });

  test("another commit than the one asked for is refused", async () => {
    expect((await hubError(download({ revision: "1".repeat(40) }))).code).toBe("HUB_RESPONSE");
  });

  test.skipIf(!existsSync("/dev/full"))("a full disk is typed (where there is a /dev/full)", async () => {
    const folder = join(place.cacheDir, "models--org--model/blobs");
    await mkdir(folder, { recursive: true });
    await symlink("/dev/full", join(folder, `${weightsBlob()}.cde-js.incomplete`));
    const error = await hubError(download());
    expect(error.code).toBe("HUB_DISK_FULL");
    expect(error.message).toContain(place.cacheDir);
    expect(existsSync(snapshots())).toBe(false);
  });

  test("a cache that can't be written to is typed", async () => {
    await writeFile(join(place.home, "file"), "");
    expect((await hubError(download({ cacheDir: join(place.home, "file", "hub") }))).code).toBe("HUB_DISK");
  });

  test.each(["ftp://hub.test", "https://user:password@hub.test", "hub.test", "https://hub.test/?x"])(
    "the endpoint %s is refused, its credentials not shown",
    async (endpoint) => {
      const end: unknown = await download({ endpoint }).catch((error: unknown) => error);
      expect(end).toBeInstanceOf(InvalidInputError);
      expect(String(end)).not.toContain("password");
    },
  );
});
