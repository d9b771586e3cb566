/** A double of a Qdrant server on loopback, for tests: the REST API that the JavaScript client 1.19 speaks, in memory. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { Collection } from "./collection.js";
import { badFormat, badRequest, isRecord, type Json, type JsonRecord, notFound, ServerError } from "./errors.js";
import { type Fault, type FaultRule, Faults } from "./faults.js";

/** One request and its answer, as a validator sees them. */
export interface Exchange {
  readonly method: string;
  /** Without query, names not decoded. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** Undefined where there was none, or where it was no JSON. */
  readonly body: unknown;
  readonly status: number;
  readonly answer: unknown;
}

export interface QdrantDoubleOptions {
  /** What the server says it is. @default "1.19.0" */
  readonly version?: string;
  /** Requests without this key (header `api-key`) are answered with 401. */
  readonly apiKey?: string;
  /** Path under which everything lies, as behind a proxy: "/qdrant". */
  readonly prefix?: string;
  /**
   * Looks at every exchange and says what breaks the API's description. A request that it refuses is answered with 400;
   * a fault in an answer is kept in `violations`. The double itself checks less: ids, sizes, names, filters.
   */
  readonly validate?: (exchange: Exchange) => string | undefined;
}

/** What the double was asked, for tests that count. */
export interface LoggedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly body: unknown;
  readonly bytes: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** 0 where the socket was cut. */
  readonly status: number;
}

const LIMIT = 33_554_432;

/** A server in this process. Ranks exactly, by reading every point: for thousands of points, not for millions. */
export class QdrantDouble implements AsyncDisposable {
  readonly url: string;
  /** Exchanges so far, in the order in which they were answered. */
  readonly requests: LoggedRequest[] = [];
  /** What the validator found wrong, one sentence each. */
  readonly violations: string[] = [];
  readonly #server: Server;
  readonly #options: QdrantDoubleOptions;
  readonly #collections = new Map<string, Collection>();
  readonly #aliases = new Map<string, string>();
  readonly #faults = new Faults();
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, options: QdrantDoubleOptions) {
    this.#server = server;
    this.#options = options;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}${options.prefix ?? ""}`;
    server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("request", (request, response) => void this.#serve(request, response));
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(options: QdrantDoubleOptions = {}): Promise<QdrantDouble> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", resolve);
    });
    // A test that forgets to close it ends all the same.
    server.unref();
    return new QdrantDouble(server, options);
  }

  /** Makes requests fail from now on; rules are asked in the order in which they came. */
  misbehave(rule: FaultRule): void {
    this.#faults.add(rule);
  }

  /** Ends all misbehaviour. */
  behave(): void {
    this.#faults.clear();
  }

  /** The points of a collection as they are stored, by id. @throws Error where there is none of that name */
  dump(name: string): ReturnType<Collection["dump"]> {
    return this.#collection(name).dump();
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "GET", headers } = request;
    const url = new URL(request.url ?? "/", "http://double");
    const { prefix = "" } = this.#options;
    const path = url.pathname.startsWith(prefix) ? url.pathname.slice(prefix.length) || "/" : url.pathname;
    const query = Object.fromEntries(url.searchParams);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return; // the client went away
    }
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    let body: unknown;
    let unread: unknown;
    try {
      if (bytes > 0 && bytes <= LIMIT) body = parse(Buffer.concat(chunks).toString("utf8"));
    } catch (error) {
      unread = error;
    }
    const fault = this.#faults.take(method, path, body);
    let status = 200;
    let answer: unknown;
    const log = (final: number): void => {
      this.requests.push({ method, path, query, body, bytes, headers, status: final });
    };
    if (fault?.kind === "cut" && fault.when === "before") {
      log(0);
      request.socket.destroy();
      return;
    }
    try {
      if (!url.pathname.startsWith(prefix)) throw new ServerError(404, "");
      if (this.#options.apiKey !== undefined && headers["api-key"] !== this.#options.apiKey) {
        throw new ServerError(401, "Must provide an API key or an Authorization bearer token");
      }
      if (fault?.kind === "status") throw new ServerError(fault.status, fault.message ?? "Service unavailable");
      if (bytes > LIMIT) {
        throw new ServerError(400, `JSON payload (${bytes} bytes) is larger than allowed (limit: ${LIMIT} bytes).`);
      }
      if (unread) throw unread;
      const wrong = this.#options.validate?.({ method, path, query, body, status: 0, answer: undefined });
      if (wrong !== undefined) {
        this.violations.push(`${method} ${path}: ${wrong}`);
        throw badFormat(wrong);
      }
      answer = this.#answer(method, path, query, body as Json);
    } catch (error) {
      status = error instanceof ServerError ? error.status : 500;
      answer = { status: { error: (error as Error).message }, time: 0.000_01 };
    }
    const wrong = this.#options.validate?.({ method, path, query, body, status, answer });
    if (wrong !== undefined && status < 400) this.violations.push(`the answer to ${method} ${path}: ${wrong}`);
    if (fault?.kind === "slow") {
      await new Promise((resolve) => {
        setTimeout(resolve, fault.milliseconds).unref();
      });
    }
    if (fault?.kind === "answer") answer = fault.change(structuredClone(answer));
    if (fault?.kind === "cut" && fault.when === "after") {
      log(0);
      request.socket.destroy();
      return;
    }
    log(status);
    send(response, status, JSON.stringify(answer), fault);
  }

  #answer(method: string, path: string, query: Record<string, string>, body: Json): unknown {
    if (method === "GET" && path === "/") {
      return { title: "qdrant - vector search engine", version: this.#options.version ?? "1.19.0", commit: null };
    }
    const result = this.#route(method, path, query, body);
    return { result, status: "ok", time: 0.000_01 };
  }

  #route(method: string, path: string, query: Record<string, string>, body: Json): Json {
    const [root, rawName, ...rest] = path.slice(1).split("/");
    const record = isRecord(body) ? body : {};
    if (root === "aliases" && method === "GET") return { aliases: this.#listAliases() };
    if (root !== "collections") throw new ServerError(404, "");
    if (rawName === undefined) {
      return { collections: [...this.#collections.keys()].map((name) => ({ name })) };
    }
    const name = decodeURIComponent(rawName);
    if (method === "POST" && name === "aliases" && rest.length === 0) return this.#changeAliases(record);
    if (rest.length === 0) return this.#collectionRoute(method, name, record);
    if (rest[0] === "exists") return { exists: this.#collections.has(this.#aliases.get(name) ?? name) };
    const collection = this.#collection(name);
    const done = (operation: number): JsonRecord => ({
      operation_id: operation,
      status: query.wait === "true" ? "completed" : "acknowledged",
    });
    switch (`${method} ${rest.map((part, i) => (i === 1 && rest[0] !== "points" ? "*" : part)).join("/")}`) {
      case "GET aliases":
        return { aliases: this.#listAliases().filter((alias) => alias.collection_name === name) };
      case "PUT index":
        return done(collection.createIndex(record));
      case "DELETE index/*":
        return done(collection.deleteIndex(decodeURIComponent(rest[1]!)));
      case "PUT vectors/*":
        return done(collection.createVector(decodeURIComponent(rest[1]!), record));
      case "DELETE vectors/*":
        return done(collection.deleteVector(decodeURIComponent(rest[1]!)));
      case "PUT points":
        return done(collection.upsert(record));
      case "POST points":
        return collection.retrieve(record);
      case "POST points/delete":
        return done(collection.deletePoints(record));
      case "PUT points/vectors":
        return done(collection.updateVectors(record));
      case "POST points/vectors/delete":
        return done(collection.deleteVectors(record));
      case "POST points/payload":
        return done(collection.setPayload(record));
      case "PUT points/payload":
        return done(collection.overwritePayload(record));
      case "POST points/payload/delete":
        return done(collection.deletePayload(record));
      case "POST points/scroll":
        return collection.scroll(record);
      case "POST points/count":
        return collection.count(record);
      case "POST points/query":
        return collection.query(record);
      case "POST points/query/batch":
        return collection.queryBatch(record);
      case "POST points/query/groups":
        return collection.queryGroups(record);
      default:
        throw new ServerError(404, "");
    }
  }

  #collectionRoute(method: string, name: string, body: JsonRecord): Json {
    if (method === "PUT") {
      checkName(name);
      if (this.#collections.has(name) || this.#aliases.has(name)) {
        throw new ServerError(409, `Wrong input: Collection \`${name}\` already exists!`);
      }
      this.#collections.set(name, new Collection(body));
      return true;
    }
    if (method === "DELETE") return this.#collections.delete(name);
    const collection = this.#collection(name);
    return method === "PATCH" ? collection.update(body) : collection.info();
  }

  #collection(name: string): Collection {
    const found = this.#collections.get(this.#aliases.get(name) ?? name);
    if (!found) throw notFound(`Collection \`${name}\` doesn't exist!`);
    return found;
  }

  #listAliases(): JsonRecord[] {
    return [...this.#aliases].map(([alias_name, collection_name]) => ({ alias_name, collection_name }));
  }

  #changeAliases({ actions }: JsonRecord): boolean {
    const next = new Map(this.#aliases);
    for (const action of Array.isArray(actions) ? actions : []) {
      const { create_alias, delete_alias, rename_alias } = isRecord(action) ? action : {};
      if (isRecord(create_alias)) {
        const { collection_name, alias_name } = create_alias;
        this.#collection(String(collection_name));
        next.set(String(alias_name), String(collection_name));
      } else if (isRecord(delete_alias)) next.delete(String(delete_alias.alias_name));
      else if (isRecord(rename_alias)) {
        const { old_alias_name, new_alias_name } = rename_alias;
        const target = next.get(String(old_alias_name));
        if (target === undefined) throw notFound(`Alias ${String(old_alias_name)} does not exists!`);
        next.delete(String(old_alias_name));
        next.set(String(new_alias_name), target);
      } else throw badRequest("unknown action");
    }
    this.#aliases.clear();
    for (const [alias, target] of next) this.#aliases.set(alias, target);
    return true;
  }
}

function send(response: ServerResponse, status: number, text: string, fault: Fault | undefined): void {
  const retryAfter = fault?.kind === "status" ? fault.retryAfter : undefined;
  const half = Buffer.from(text).subarray(0, Math.floor(Buffer.byteLength(text) / 2));
  const truncated = fault?.kind === "truncated";
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": truncated ? half.length : Buffer.byteLength(text),
    ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
  });
  if (fault?.kind === "cut") {
    response.write(half, () => response.destroy());
    return;
  }
  response.end(truncated ? half : text);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw badFormat((error as Error).message);
  }
}

function checkName(name: string): void {
  const fail = (what: string): never => {
    throw new ServerError(422, `Validation error in path parameters: [collection_name: ${what}]`);
  };
  if (name.length < 1 || name.length > 255) fail(`value "${name}" invalid, must be from 1 to 255 characters`);
  for (const char of '<>:"/\\|?*\0\u001f') {
    if (name.includes(char)) fail(`collection name cannot contain "${char}" char`);
  }
}
