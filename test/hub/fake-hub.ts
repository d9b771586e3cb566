/** A model hub on loopback, with a store on another port for large files, and faults where a test wants them. */
import { createHash, randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SeenRequest {
  readonly where: "hub" | "store";
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  /** The address as it was asked for: absolute where a proxy is asked. */
  readonly target: string;
  readonly proxyAuthorization: string | undefined;
}

/** Answers instead of the hub by returning true. */
export type Fault = (request: SeenRequest, response: ServerResponse, content: Buffer | undefined) => boolean;

export const COMMIT: string = "c0ffee".padEnd(40, "0");

export class FakeHub {
  readonly files: Map<string, Buffer>;
  readonly requests: SeenRequest[] = [];
  fault: Fault | undefined;
  url = "";
  storeUrl = "";
  readonly #servers: Server[] = [];

  private constructor(files: Record<string, Buffer>) {
    this.files = new Map(Object.entries(files));
  }

  static async start(files: Record<string, Buffer>): Promise<FakeHub> {
    const hub = new FakeHub(files);
    hub.url = await hub.#listen("hub");
    hub.storeUrl = await hub.#listen("store");
    return hub;
  }

  /** What was asked of a file since the last `forget`. */
  of(name: string, method?: string): SeenRequest[] {
    return this.requests.filter((seen) => nameOf(seen.path) === name && (!method || seen.method === method));
  }

  forget(): void {
    this.requests.length = 0;
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  async #listen(where: "hub" | "store"): Promise<string> {
    const server = createServer((request, response) => this.answer(where, request, response));
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  answer(where: "hub" | "store", request: IncomingMessage, response: ServerResponse): void {
    const target = request.url ?? "";
    const path = new URL(target, "http://any.test").pathname;
    const { range, authorization, "proxy-authorization": proxyAuthorization } = request.headers;
    const seen = { where, method: request.method ?? "", path, range, authorization, target, proxyAuthorization };
    this.requests.push(seen);
    const content = this.files.get(nameOf(path));
    if (this.fault?.(seen, response, content)) return;
    if (path.includes("/api/models/")) {
      const siblings = [...this.files.keys()].map((rfilename) => ({ rfilename }));
      response.end(JSON.stringify({ sha: COMMIT, siblings }));
    } else if (content === undefined) {
      response.writeHead(404).end();
    } else if (where === "hub" && isLarge(nameOf(path))) {
      response.writeHead(302, { ...linkedHeaders(content), location: `${this.storeUrl}${path}?signature=s` }).end();
    } else {
      const etag = where === "hub" ? gitSha1(content) : "of-the-store";
      response.setHeader("etag", `"${etag}"`);
      if (where === "hub") response.setHeader("x-repo-commit", COMMIT);
      sendFile(seen, response, content);
    }
  }
}

/** Sends what the range asks for. */
export function sendFile({ method, range }: SeenRequest, response: ServerResponse, content: Buffer): void {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  if (range) response.setHeader("content-range", `bytes ${start}-${content.length - 1}/${content.length}`);
  response.writeHead(range ? 206 : 200, { "content-length": content.length - start });
  response.end(method === "HEAD" ? undefined : content.subarray(start));
}

/** Sends as far as byte `end` of the file, then breaks the connection. */
export function cutAt(end: number): (seen: SeenRequest, response: ServerResponse, content: Buffer) => void {
  return ({ range }, response, content) => {
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    if (range) response.setHeader("content-range", `bytes ${start}-${content.length - 1}/${content.length}`);
    response.writeHead(range ? 206 : 200, { "content-length": content.length - start });
    response.flushHeaders();
    if (end > start) response.write(content.subarray(start, end), () => response.socket?.end());
    else response.socket?.end();
  };
}

export function linkedHeaders(content: Buffer): Record<string, string | number> {
  const headers = { "x-linked-etag": `"${sha256(content)}"`, "x-linked-size": content.length };
  return { ...headers, "x-repo-commit": COMMIT };
}

/** The files of a small model, and some of those that must never be fetched. */
export function modelFiles(weights: Buffer = randomBytes(300_000)): Record<string, Buffer> {
  const modules = [
    { idx: 0, path: "", type: "sentence_transformers.models.Transformer" },
    { idx: 1, path: "1_Pooling", type: "sentence_transformers.models.Pooling" },
    { idx: 2, path: "2_Normalize", type: "sentence_transformers.models.Normalize" },
  ];
  return {
    "README.md": Buffer.from("# A model"),
    "config.json": Buffer.from('{"hidden_size":8}'),
    "modules.json": Buffer.from(JSON.stringify(modules)),
    "1_Pooling/config.json": Buffer.from('{"pooling_mode_mean_tokens":true}'),
    "tokenizer.json": Buffer.from('{"model":{}}'),
    "model.safetensors": weights,
    "model.py": Buffer.from("raise SystemExit"),
    "pytorch_model.bin": Buffer.from("pickle"),
    "onnx/model.onnx": Buffer.from("onnx"),
  };
}

export function sha256(content: Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}

export function gitSha1(content: Buffer): string {
  return createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
}

function isLarge(name: string): boolean {
  return name.endsWith(".safetensors");
}

/** `/org/model/resolve/<commit>/<name>`. */
function nameOf(path: string): string {
  return decodeURIComponent(/\/resolve\/[^/]+\/(.+)$/.exec(path)?.[1] ?? "");
}
