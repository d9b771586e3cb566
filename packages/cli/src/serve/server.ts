/** The HTTP server of `cde serve`: three files of a page and a small JSON interface. */
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { CdeError, RuntimeFailureError } from "@cde-js/core";
import { Guard, SECURITY_HEADERS } from "./guard.js";
import { type Playground, readQuery } from "./playground.js";

export interface ServeOptions {
  /** Address to listen on. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Names that requests may be for, beside the loopback ones and `host`. */
  readonly names: readonly string[];
}

export interface Served {
  readonly url: string;
  /** Ends all connections. */
  close(): Promise<void>;
}

/** Bytes of a request's body. */
const MAX_BODY = 64 * 1024;
/** Connections at the same time; a browser takes six. */
const MAX_CONNECTIONS = 64;

const PAGE: Readonly<Record<string, readonly [file: string, type: string]>> = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/app.js": ["app.js", "text/javascript; charset=utf-8"],
  "/style.css": ["style.css", "text/css; charset=utf-8"],
  "/icon.svg": ["icon.svg", "image/svg+xml"],
};

class Refusal extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** @throws RuntimeFailureError where the address can't be had */
export async function serve(playground: Playground, { host, port, names }: ServeOptions): Promise<Served> {
  const files = new Map<string, Buffer>();
  for (const [path, [file]] of Object.entries(PAGE)) {
    files.set(path, await readFile(new URL(`../../page/${file}`, import.meta.url)));
  }
  let guard: Guard | undefined;
  const server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000, maxHeaderSize: 16_384 });
  server.maxConnections = MAX_CONNECTIONS;
  server.on("request", (request, response) => {
    void answer(request, response, { guard: guard as Guard, playground, files });
  });
  const bound = await listen(server, host, port);
  guard = new Guard([host, ...names], bound);
  const shown = host.includes(":") ? `[${host}]` : host;
  return {
    url: `http://${shown}:${bound}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const why =
        cause.code === "EADDRINUSE" ? "is taken; give another with --port, or 0 for a free one" : cause.message;
      reject(new RuntimeFailureError(`serve: ${host}:${port} ${why}.`, { cause }));
    });
    server.listen({ host, port }, () => resolve((server.address() as AddressInfo).port));
  });
}

interface Parts {
  readonly guard: Guard;
  readonly playground: Playground;
  readonly files: ReadonlyMap<string, Buffer>;
}

async function answer(request: IncomingMessage, response: ServerResponse, parts: Parts): Promise<void> {
  const send = (
    status: number,
    type: string,
    body: string | Buffer,
    headers: Readonly<Record<string, string>> = {},
  ) => {
    if (response.destroyed) return;
    response.writeHead(status, { ...SECURITY_HEADERS, "content-type": type, ...headers });
    response.end(request.method === "HEAD" ? undefined : body);
  };
  const sendJson = (status: number, value: unknown, headers?: Readonly<Record<string, string>>) =>
    send(status, "application/json; charset=utf-8", JSON.stringify(value), headers);
  const gone = new AbortController();
  response.once("close", () => gone.abort(new Error("the page is gone")));
  try {
    const refusal = parts.guard.refusal(request.headers);
    if (refusal !== undefined) throw new Refusal(403, refusal);
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    const file = parts.files.get(path);
    if (file) {
      requireMethod(request, "GET", "HEAD");
      send(200, (PAGE[path] as readonly [string, string])[1], file);
      return;
    }
    const action = ACTIONS[path];
    if (!action) throw new Refusal(404, `there is nothing at ${path}`);
    requireMethod(request, action.method);
    const body = action.method === "POST" ? await readBody(request) : undefined;
    sendJson(200, await action.run(parts.playground, body, gone.signal));
  } catch (error) {
    if (gone.signal.aborted) return;
    if (error instanceof Refusal) {
      // What is left of a body is not waited for.
      sendJson(error.status, { error: error.message }, { ...error.headers, connection: "close" });
    } else if (error instanceof CdeError) sendJson(400, { error: error.message, code: error.code });
    else if (error instanceof TypeError && (error as NodeJS.ErrnoException).code === "ERR_INVALID_URL") {
      sendJson(400, { error: "the path is none" });
    } else sendJson(500, { error: "a defect of cde", detail: (error as Error).message });
  }
}

interface Action {
  readonly method: "GET" | "POST";
  readonly run: (playground: Playground, body: unknown, signal: AbortSignal) => unknown;
}

const ACTIONS: Readonly<Record<string, Action>> = {
  "/api/index": { method: "GET", run: (playground) => playground.describe() },
  "/api/map": { method: "GET", run: (playground) => playground.map() },
  "/api/compare": { method: "POST", run: (playground) => playground.compare() },
  "/api/search": { method: "POST", run: (playground, body, signal) => playground.search(readQuery(body), signal) },
};

function requireMethod(request: IncomingMessage, ...methods: readonly string[]): void {
  if (methods.includes(request.method ?? "")) return;
  throw new Refusal(405, `${request.method} is not allowed here`, { allow: methods.join(", ") });
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  // Pages of others can send forms and plain texts without asking first, but not this.
  const type = request.headers["content-type"]?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") throw new Refusal(415, "the body must be application/json");
  const tooLarge = () => new Refusal(413, `the body is larger than ${MAX_BODY} bytes`);
  if (Number(request.headers["content-length"] ?? 0) > MAX_BODY) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) throw tooLarge();
    chunks.push(chunk);
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks)));
  } catch {
    throw new Refusal(400, "the body is not JSON in UTF-8");
  }
}
