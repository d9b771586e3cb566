/** What only separate processes can show: one download for all of them, a killed holder, proxies and certificates. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { downloadModel } from "@cde-js/core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { COMMIT, FakeHub, modelFiles, sha256 } from "./fake-hub.js";
import { isolate } from "./support.js";

interface ChildEnd {
  readonly directory?: string;
  readonly revision?: string;
  readonly code?: string;
  readonly message?: string;
}

const CHILD = fileURLToPath(new URL("./child.js", import.meta.url));
const place = isolate();
const weights = randomBytes(200_000);
let hub: FakeHub;

beforeEach(async () => {
  hub = await FakeHub.start(modelFiles(weights));
});
afterEach(() => hub.close());

/** A process with nothing of our environment but what a download may read. */
function start(env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [CHILD, "org/model"], {
    env: { HF_HOME: place.home, HF_ENDPOINT: hub.url, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const end = new Promise<ChildEnd | undefined>((resolve) => {
    let output = "";
    child.stdout.on("data", (chunk) => {
      output += chunk;
    });
    child.once("close", () => resolve(output ? (JSON.parse(output) as ChildEnd) : undefined));
  });
  return { child, end };
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe("processes that want the same model", () => {
  test("share one download", async () => {
    const ends = await Promise.all(Array.from({ length: 5 }, () => start().end));
    for (const end of ends) expect(end).toEqual({ directory: expect.any(String), revision: COMMIT });
    expect(hub.requests.filter(({ path }) => path.startsWith("/api/"))).toHaveLength(1);
    for (const name of ["config.json", "tokenizer.json", "1_Pooling/config.json"]) {
      expect(hub.of(name).map(({ method }) => method)).toEqual(["HEAD", "GET"]);
    }
    expect(hub.of("model.safetensors").map(({ method, where }) => `${method} ${where}`)).toEqual([
      "HEAD hub",
      "GET hub",
      "GET store",
    ]);
  });

  test("go on where one of them was killed", async () => {
    hub.fault = (seen, response, content) => {
      if (seen.where !== "store") return false;
      response.writeHead(200, { "content-length": content!.length });
      response.write(content!.subarray(0, 50_000));
      return true; // and then nothing
    };
    const victim = start();
    const blob = join(place.cacheDir, "models--org--model/blobs", sha256(weights));
    await until(async () => ((await stat(`${blob}.cde-js.incomplete`).catch(() => undefined))?.size ?? 0) === 50_000);
    hub.fault = undefined;
    hub.forget();
    const waiter = start();
    victim.child.kill("SIGKILL");
    await victim.end;
    const end = await waiter.end;
    expect(sha256(readFileSync(join(end!.directory!, "model.safetensors")))).toBe(sha256(weights));
    expect(hub.of("model.safetensors", "GET").map(({ range }) => range)).toEqual(["bytes=50000-", "bytes=50000-"]);
  });
});

describe("an http proxy", () => {
  test("gets whole addresses and its credentials, for hosts that only it knows", async () => {
    vi.stubEnv("HTTP_PROXY", `${hub.url.replace("//", "//user:p%40ss@")}/`);
    await downloadModel("org/model", { endpoint: "http://hub.test:81/prefix" });
    const [first] = hub.requests;
    expect(first?.target).toBe("http://hub.test:81/prefix/api/models/org/model/revision/main");
    const credentials = `Basic ${Buffer.from("user:p@ss").toString("base64")}`;
    for (const seen of hub.requests) {
      expect(seen.proxyAuthorization).toBe(seen.where === "hub" ? credentials : undefined);
      expect(seen.authorization).toBeUndefined();
    }
  });
});

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;
describe.skipIf(!hasOpenssl)("https through a proxy (needs openssl for a certificate)", () => {
  let folder = "";
  let tls: Server;
  let proxy: Server;
  const tunnels: string[] = [];
  const sockets: Duplex[] = [];
  let refuse = false;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "cde-tls-"));
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const names = "subjectAltName=DNS:hub.test,DNS:store.test";
    const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    const where = ["-subj", "/CN=hub.test", "-addext", names, "-keyout", key, "-out", cert];
    execFileSync("openssl", ["req", "-x509", ...kind, ...where], { stdio: "ignore" });
    tls = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, response) =>
      hub.answer(request.headers.host === "store.test" ? "store" : "hub", request, response),
    );
    await new Promise<void>((resolve) => tls.listen(0, "127.0.0.1", resolve));
    proxy = createServer();
    proxy.on("connect", (request, socket) => {
      tunnels.push(`${request.url} ${request.headers["proxy-authorization"]}`);
      socket.on("error", () => {});
      sockets.push(socket); // closing a server leaves its tunnels open
      if (refuse) return socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
      const onward = connect((tls.address() as AddressInfo).port, "127.0.0.1", () => {
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        onward.pipe(socket).pipe(onward);
      });
      onward.on("error", () => socket.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  });
  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    tls.closeAllConnections();
    await Promise.all([tls, proxy].map((server) => new Promise((resolve) => server.close(resolve))));
    rmSync(folder, { recursive: true, force: true });
  });
  beforeEach(() => {
    tunnels.length = 0;
    refuse = false;
    hub.storeUrl = "https://store.test";
  });

  const run = (env: Record<string, string> = {}) => {
    const { port } = proxy.address() as AddressInfo;
    const HTTPS_PROXY = `http://user:hidden@127.0.0.1:${port}`;
    const NODE_EXTRA_CA_CERTS = join(folder, "cert.pem");
    return start({ HTTPS_PROXY, NODE_EXTRA_CA_CERTS, HF_ENDPOINT: "https://hub.test", HF_TOKEN: "hf_secret", ...env })
      .end;
  };

  test("goes through tunnels to the hub, with the token, and to the store, without it", async () => {
    expect(await run()).toMatchObject({ revision: COMMIT });
    const credentials = `Basic ${Buffer.from("user:hidden").toString("base64")}`;
    expect(new Set(tunnels)).toEqual(new Set([`hub.test:443 ${credentials}`, `store.test:443 ${credentials}`]));
    for (const { where, authorization, proxyAuthorization } of hub.requests) {
      expect(authorization).toBe(where === "hub" ? "Bearer hf_secret" : undefined);
      expect(proxyAuthorization).toBeUndefined(); // the tunnel's, not the host's
    }
  });

  test("does not follow a redirect out of https", async () => {
    hub.storeUrl = "http://127.0.0.1:9";
    expect((await run())?.code).toBe("HUB_INSECURE");
  });

  test("says that the proxy wants credentials, and does not show them", async () => {
    refuse = true;
    const end = await run();
    expect(end?.code).toBe("HUB_UNREACHABLE");
    expect(end?.message).toContain("407");
    expect(JSON.stringify(end)).not.toMatch(/hidden|hf_secret/);
  });

  test("refuses a certificate that nobody vouches for, at once", async () => {
    const end = await run({ NODE_EXTRA_CA_CERTS: "" });
    expect(end?.code).toBe("HUB_UNREACHABLE");
    expect(end?.message).toMatch(/CERT|SIGNED/);
    expect(tunnels).toHaveLength(1);
    expect(hub.requests).toEqual([]);
  });
});
