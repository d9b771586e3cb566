import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cde, folderOf, hasModel, modelArguments, type Running, start } from "./support.js";

const documents = [
  ["ferry", "Ferry", "The ferry to the island leaves at noon.", 2020],
  ["bees", "Bees", "Bees make honey from the nectar of flowers.", 2021],
  ["lease", "Lease", "The landlord repairs what a burst pipe has flooded.", 2022],
  [
    "attack",
    "<img src=x onerror=alert(1)>",
    "A text with <script>alert('x')</script> in it & an \u202eodd mark.",
    2023,
  ],
  ["dogs", "Dogs", "A shepherd's dog keeps the flock together.", 2024],
] as const;
const jsonl = documents
  .map(([id, title, text, year]) => JSON.stringify({ id, title, text, metadata: { year } }))
  .join("\n");

interface Hit {
  readonly id: string;
  readonly title: string;
  readonly score: number;
  readonly point: readonly number[] | null;
}
interface Searched {
  readonly with: { readonly milliseconds: number; readonly hits: readonly Hit[] };
  readonly without: Searched["with"] | null;
}

let folder: Awaited<ReturnType<typeof folderOf>>;
const servers: ChildProcess[] = [];

/** Starts `cde serve` on a free port and says where it is. */
async function serving(...args: string[]): Promise<{ url: URL; running: Running }> {
  const running = start(["serve", ...args, "--port", "0", "--json"], folder.path);
  servers.push(running.child);
  const line = await Promise.race([
    new Promise<string>((resolve) => running.child.stdout?.once("data", resolve)),
    running.finished.then(({ stderr }) => Promise.reject(new Error(stderr))),
  ]);
  return { url: new URL(JSON.parse(line).url), running };
}

const post = (url: URL, path: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(new URL(path, url), {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
  });
const search = async (url: URL, body: object): Promise<Searched> =>
  (await post(url, "/api/search", body)).json() as Promise<Searched>;

/** A request as a browser would never let a page make it: any host, origin and path. */
function raw(
  url: URL,
  headers: Record<string, string>,
  options: { path?: string; method?: string; body?: string } = {},
) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const { path = "/api/index", method = "GET", body } = options;
    const sent = request({ host: url.hostname, port: url.port, path, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

beforeAll(async () => {
  folder = await folderOf({ "docs.jsonl": jsonl });
  if (!hasModel) return;
  for (const args of [
    ["--out", "with"],
    ["--out", "plain", "--no-context"],
  ]) {
    const { code, stderr } = await cde(["index", "docs.jsonl", ...args, ...modelArguments], folder.path);
    expect(code, stderr).toBe(0);
  }
}, 120_000);
afterAll(async () => {
  for (const child of servers) child.kill("SIGKILL");
  await folder.remove();
});

test("needs one index, a port that there is, and names where it listens on every address", async () => {
  for (const [args, message] of [
    [[], "the folder of an index is missing"],
    [["a", "b"], "more than one index"],
    [["a", "--port", "70000"], "at most 65535"],
    [["a", "--host", "0.0.0.0"], "--allow-host"],
  ] as const) {
    const { code, stderr } = await cde(["serve", ...args], folder.path);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(message) });
  }
  const missing = await cde(["serve", "nowhere"], folder.path);
  expect(missing).toMatchObject({ code: 1, stderr: expect.stringContaining("manifest.json is missing") });
});

describe.skipIf(!hasModel)("serves an index (skipped without the bundled model or the reference material)", () => {
  let url: URL;
  let running: Running;
  beforeAll(async () => {
    ({ url, running } = await serving("with"));
  }, 60_000);

  test("says what it holds, and draws every passage", async () => {
    const index = await (await fetch(new URL("/api/index", url))).json();
    expect(index).toMatchObject({
      documents: 5,
      passages: 5,
      dimensions: 384,
      context: { size: 5, stage: "spectral" },
      modes: ["dense", "lexical", "hybrid"],
      comparison: { state: "possible" },
    });
    const map = (await (await fetch(new URL("/api/map", url))).json()) as {
      names: string[];
      points: [number, number, number][];
      share: number;
    };
    expect(map.points.map(([, , name]) => map.names[name])).toEqual(documents.map(([, title]) => title));
    expect(map.points.every(([x, y]) => Math.min(x, y) >= 0 && Math.max(x, y) <= 1)).toBe(true);
    expect(new Set(map.points.map(([x, y]) => `${x} ${y}`)).size).toBe(5);
    // Five unit vectors spread in four directions; two of them hold more than half, and not all.
    expect(map.share).toBeGreaterThan(0.5);
    expect(map.share).toBeLessThan(0.95);
    const { with: found } = await search(url, { query: "honey", k: 1 });
    expect(found.hits[0]?.point).toEqual(map.points[1]?.slice(0, 2));
  });

  test("searches in every mode, with filters, and places the hits", async () => {
    const found = await search(url, { query: "who pays for water damage?", k: 2, mode: "dense" });
    expect(found.with.hits[0]).toMatchObject({ id: "lease", scoring: "cosine", metadata: { year: 2022 } });
    expect(found.with.hits).toHaveLength(2);
    expect(found.with.milliseconds).toBeGreaterThan(0);
    expect(found.without).toBe(null);
    const lexical = await search(url, { query: "honey", mode: "lexical" });
    expect(lexical.with.hits.map(({ id }) => id)).toEqual(["bees"]);
    const filter = { must: [{ key: "year", range: { gte: 2023 } }] };
    const filtered = await search(url, { query: "who pays for water damage?", filter });
    expect(filtered.with.hits.map(({ id }) => id).sort()).toEqual(["attack", "dogs"]);
  });

  test("embeds the corpus without context when asked, and then searches both", async () => {
    expect(await (await post(url, "/api/compare", {})).json()).toMatchObject({ state: "building", total: 5 });
    for (let state = ""; state !== "ready"; ) {
      const { comparison } = (await (await fetch(new URL("/api/index", url))).json()) as {
        comparison: { state: string };
      };
      state = comparison.state;
      expect(["building", "ready"]).toContain(state);
    }
    const body = { query: "who pays for water damage?", mode: "dense", compare: true };
    const both = await search(url, body);
    expect(both.without?.hits).toHaveLength(5);
    const direct = await cde(["search", "plain", body.query, "--mode", "dense", "--json"], folder.path);
    const scores = JSON.parse(direct.stdout).hits.map(({ score }: { score: number }) => score);
    for (const [i, { score }] of (both.without?.hits ?? []).entries()) expect(score).toBeCloseTo(scores[i], 5);
    // The control: the context changes them.
    expect(Math.abs((both.with.hits[0]?.score ?? 0) - scores[0])).toBeGreaterThan(0.001);
  });

  test.each([
    ["no JSON", "{", 400, "not JSON"],
    ["bytes that are no UTF-8", Uint8Array.of(0x22, 0xff, 0x22), 400, "not JSON in UTF-8"],
    ["a list", [], 400, "must be a JSON object"],
    ["no query", {}, 400, "query must be a text"],
    ["a blank query", { query: " " }, 400, "query must be a text"],
    ["a k of 0", { query: "x", k: 0 }, 400, "k must be an integer from 1 to 100, got 0"],
    ["a fractional k", { query: "x", k: 1.5 }, 400, "k must be"],
    ["a k beyond all bounds", { query: "x", k: 1e9 }, 400, "k must be"],
    ["an unknown mode", { query: "x", mode: "magic" }, 400, "mode must be one of"],
    ["an unknown field", { query: "x", limit: 4 }, 400, 'no field "limit"'],
    ["an unknown filter", { query: "x", filter: { must: [{ key: "a", near: 1 }] } }, 400, "near"],
    ["a long query", { query: "x".repeat(10_001) }, 400, "at most 10000"],
    ["a body beyond 64 kB", { query: "x".repeat(70_000) }, 413, "larger than 65536 bytes"],
  ])("refuses %s", async (_, body, status, message) => {
    const response = await post(url, "/api/search", body);
    expect({ status: response.status, ...((await response.json()) as object) }).toMatchObject({
      status,
      error: expect.stringContaining(message),
    });
  });

  test("limits a body that doesn't say how long it is, and answers afterwards", async () => {
    const socket = connect(Number(url.port), url.hostname);
    socket.write(
      `POST /api/search HTTP/1.1\r\nHost: ${url.host}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const block = `8000\r\n${"x".repeat(0x8000)}\r\n`;
    socket.write(block.repeat(4));
    const text = await new Promise<string>((resolve) => socket.once("data", (data) => resolve(String(data))));
    expect(text).toMatch(/^HTTP\/1\.1 413/);
    socket.destroy();
    expect((await search(url, { query: "honey", k: 1 })).with.hits).toHaveLength(1);
  });

  test("refuses other hosts, other origins and what a form can send", async () => {
    const own = url.host;
    const localhost = own.replace("127.0.0.1", "localhost");
    expect((await raw(url, { host: own })).status).toBe(200);
    expect((await raw(url, { host: localhost, origin: `http://${localhost}` })).status).toBe(200);
    for (const headers of [
      { host: "evil.example" },
      { host: `evil.example:${url.port}` },
      { host: "127.0.0.1" },
      { host: `127.0.0.1:${Number(url.port) + 1}` },
      { host: `127.0.0.1.evil.example:${url.port}` },
      { host: own, origin: "http://evil.example" },
      { host: own, origin: "null" },
      { host: own, origin: `https://${own}` },
      { host: own, origin: `http://${localhost}` },
      { host: own, "sec-fetch-site": "cross-site" },
      { host: own, "sec-fetch-site": "same-site" },
    ] as Record<string, string>[]) {
      for (const path of ["/", "/api/index", "/api/map"]) {
        const { status, text } = await raw(url, headers, { path });
        expect({ headers, status }).toEqual({ headers, status: 403 });
        expect(text).not.toContain("documents");
      }
    }
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]) {
      const body = JSON.stringify({ query: "honey" });
      const sent = { host: own, "content-type": type, "content-length": String(body.length) };
      expect((await raw(url, sent, { path: "/api/search", method: "POST", body })).status).toBe(415);
    }
    const preflight = await fetch(new URL("/api/search", url), { method: "OPTIONS" });
    expect(preflight.status).toBe(405);
    expect([...preflight.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
  });

  test("serves its own files and nothing else, each with the headers that hold a page together", async () => {
    for (const [path, type] of [
      ["/", "text/html"],
      ["/app.js", "text/javascript"],
      ["/style.css", "text/css"],
      ["/icon.svg", "image/svg+xml"],
    ] as const) {
      const { status, headers } = await fetch(new URL(path, url));
      expect(status).toBe(200);
      expect(headers.get("content-type")).toContain(type);
      const policy = headers.get("content-security-policy") ?? "";
      expect(policy).toContain("default-src 'none'; script-src 'self'");
      expect(policy).not.toMatch(/unsafe|\*|http/);
      expect(headers.get("x-content-type-options")).toBe("nosniff");
    }
    for (const path of ["/../package.json", "/%2e%2e/package.json", "/app.js/", "/api", "//evil/x", "/docs.jsonl"]) {
      expect((await raw(url, { host: url.host }, { path })).status).toBe(404);
    }
    const html = await (await fetch(url)).text();
    expect(html).not.toMatch(/<script(?![^>]*src=)|\son\w+=|style=|https?:/);
    expect((await fetch(new URL("/api/search", url))).status).toBe(405);
    expect((await post(url, "/", {})).status).toBe(405);
  });

  test("a port that is taken ends with 3 and says so; Ctrl-C ends the server with 0", async () => {
    const { code, stderr } = await cde(["serve", "with", "--port", url.port], folder.path);
    expect({ code, stderr }).toEqual({
      code: 3,
      stderr: expect.stringContaining("is taken; give another with --port"),
    });
    const other = await serving("plain");
    const index = await (await fetch(new URL("/api/index", other.url))).json();
    expect(index).toMatchObject({
      context: null,
      comparison: { state: "unavailable", reason: expect.stringContaining("without context") },
    });
    other.running.child.kill("SIGINT");
    expect(await other.running.finished).toMatchObject({ code: 0, stderr: "" });
  });

  const browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
  test.skipIf(!browser)(
    "the page searches, compares, filters and draws in a browser, and runs nothing of a document (skipped without Chromium)",
    async () => {
      const { url: fresh } = await serving("with");
      const chrome = await chromium.launch({ executablePath: browser as string, args: ["--no-sandbox"] });
      try {
        const page = await chrome.newPage();
        const complaints: string[] = [];
        const hosts = new Set<string>();
        page.on("console", (message) => complaints.push(message.text()));
        page.on("pageerror", (error) => complaints.push(String(error)));
        page.on("dialog", (dialog) => complaints.push(dialog.message()));
        page.on("request", (sent) => hosts.add(new URL(sent.url()).host));
        await page.goto(String(fresh));
        await page.locator("#map-facts", { hasText: "5 passages" }).waitFor();
        expect(await page.textContent("#corpus")).toBe("with");
        /** Pixels of the map that are as blue as a hit. */
        const blue = () =>
          page.evaluate<number>(`{
            const canvas = document.querySelector("canvas");
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let at = 0; at < data.length; at += 4) {
              if (data[at] === 0x2f && data[at + 1] === 0x5f && data[at + 2] === 0xd0) count++;
            }
            count;
          }`);
        expect(await blue()).toBe(0);
        await page.fill("#query", "honey of bees");
        await page.press("#query", "Enter");
        await page.waitForSelector("#with-hits .hit");
        expect(await page.textContent("#with-hits .hit h3 .name")).toBe("Bees");
        expect(await page.locator("#with-hits .hit").first().locator("mark").allTextContents()).toEqual([
          "Bees",
          "honey",
        ]);
        expect(await page.textContent("#with-time")).toMatch(/^5 hits in [\d.]+ ms$/);
        expect(await blue()).toBeGreaterThan(100);
        expect(await page.locator("#with-hits .hit", { hasText: "<script>alert('x')</script>" }).count()).toBe(1);
        expect(await page.locator("#with-hits img, #with-hits script").count()).toBe(0);

        expect(await page.isVisible("#without")).toBe(false);
        await page.check("#compare");
        await page.click("#comparison-start");
        await page.waitForSelector("#without-hits .hit");
        expect(await page.locator("#without-hits .hit").count()).toBe(5);
        expect(await page.locator("#with-hits .move").count()).toBe(5);

        await page.click("#filter-toggle");
        await page.fill("#filter", '{"must": [{"key": "year", "match": {"value": 2024}}]}');
        await page.click("#go");
        await page.locator("#with-time", { hasText: "1 hit in" }).waitFor();
        expect(await page.textContent("#without-hits .hit h3 .name")).toBe("Dogs");
        await page.fill("#filter", '{"must": [');
        await page.click("#go");
        expect(await page.textContent("#message.bad")).toContain("The filter is not JSON");
        expect(complaints).toEqual([]);
        expect([...hosts]).toEqual([fresh.host]);
      } finally {
        await chrome.close();
      }
    },
    120_000,
  );

  afterAll(async () => {
    running.child.kill("SIGTERM");
    expect((await running.finished).code).toBe(0);
  });
});
