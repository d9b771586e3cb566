/** Requests to one server: a version that is new enough, bounded concurrency, retries, timeouts, cancellation, checked answers. */
import { setTimeout as wait } from "node:timers/promises";
import { CdeError, InvalidInputError } from "@cde-js/core";
import { type Address, parseAddress } from "./address.js";
import { createClient, type QdrantClientLike, type RequestName } from "./client.js";
import { QdrantError } from "./errors.js";
import { Limiter } from "./limiter.js";

export interface QdrantConnectionOptions {
  /**
   * `https://host` (port 443), `http://localhost` (Qdrant's port, 6333), `https://host/prefix`. Not with `client`.
   * @default "http://localhost:6333"
   */
  readonly url?: string;
  /** Never part of an error, and kept where no serialisation finds it. */
  readonly apiKey?: string;
  /** Sends `apiKey` over plain HTTP to another machine, where everybody on the way can read it. @default false */
  readonly allowKeyOverHttp?: boolean;
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>>;
  /** A `QdrantClient` of yours, in place of `url`, `apiKey` and `headers`. Made with `timeout: Infinity`, it can be cancelled. */
  readonly client?: QdrantClientLike;
  /** Milliseconds until a request is given up. @default 60,000 */
  readonly requestTimeoutMs?: number;
  /** Requests at once. @default 8 */
  readonly concurrency?: number;
  /** Further attempts after 429, 502, 503, 504 and broken connections; every request here can be repeated. @default 6 */
  readonly retries?: number;
  /** Milliseconds before the first further attempt, doubled each time up to 10 s, and a random part of that. @default 200 */
  readonly retryDelayMs?: number;
  /** Speaks to servers older than 1.19 too, where collections have no metadata: for your own tests only. @default false */
  readonly allowOlderServer?: boolean;
}

/** Collections have metadata since. */
const MINIMUM_VERSION = [1, 19];
/** A server that asks for a longer pause than this is given up, in milliseconds. */
const LONGEST_PAUSE = 60_000;
const LONGEST_BACKOFF = 10_000;
const BROKEN = new Set([429, 502, 503, 504]);

/** One request by name, answered with its `result`. */
export interface RequestOptions<T> {
  /** The reader's words for what was asked: the beginning of every error. */
  readonly operation: string;
  readonly request: RequestName;
  readonly args: object;
  readonly signal?: AbortSignal | undefined;
  /** Ends it too: the signal of whoever owns the request. */
  readonly closing?: AbortSignal | undefined;
  /** Takes the `result` apart. Throws `Unsound` for one that is none. */
  readonly read: (result: unknown) => T;
}

/** An answer that can't be one. The request is repeated, unless the same would come again: `lasting`. */
export class Unsound extends Error {
  readonly lasting: boolean;

  constructor(message: string, { lasting = false }: { readonly lasting?: boolean } = {}) {
    super(message);
    this.lasting = lasting;
  }
}

export class QdrantConnection {
  /** For messages: scheme, host, port and prefix. */
  readonly name: string;
  /** Of the server. */
  readonly version: string;
  readonly #client: QdrantClientLike;
  readonly #limiter: Limiter;
  readonly #settings: Settings;

  private constructor(name: string, version: string, client: QdrantClientLike, settings: Settings) {
    this.name = name;
    this.version = version;
    this.#client = client;
    this.#settings = settings;
    this.#limiter = new Limiter(settings.concurrency);
  }

  /** @throws MissingPeerError, QdrantError (unreachable, too old), InvalidInputError */
  static async open(options: QdrantConnectionOptions, signal?: AbortSignal): Promise<QdrantConnection> {
    const settings = checkedSettings(options);
    const { client: given, apiKey, url } = options;
    if (given && (url !== undefined || apiKey !== undefined || options.headers !== undefined)) {
      throw new InvalidInputError("qdrant: { client } excludes url, apiKey and headers: it has its own.");
    }
    const address = parseAddress(url ?? "http://localhost:6333");
    if (apiKey !== undefined) checkKey(apiKey, address, options);
    const headers = { ...options.headers, ...(apiKey === undefined ? {} : { "api-key": apiKey }) };
    const client = given ?? (await createClient({ address, headers, maxConnections: settings.concurrency }));
    const name = given ? "the server of the given client" : nameOf(address);
    const probe = new QdrantConnection(name, "", client, settings);
    const version = await probe.#attempts<string>("connect", "root", {}, [signal], (data) => {
      const found = (data as { version?: unknown } | null)?.version;
      if (typeof found === "string" && /^\d+\.\d+/.test(found)) return found;
      throw new Unsound(`it doesn't say which version of Qdrant it is (${describe(found)})`);
    });
    if (isOlder(version) && options.allowOlderServer !== true) {
      throw new QdrantError(
        "QDRANT_VERSION",
        `connect: ${name} is Qdrant ${version}, and this adapter needs ${MINIMUM_VERSION.join(".")} or newer, where ` +
          "collections keep the fingerprint of their context. Upgrade the server, or pass { allowOlderServer: true } " +
          "and check yourself that vectors and queries have one context.",
      );
    }
    return new QdrantConnection(name, version, client, settings);
  }

  /** @throws QdrantError; what `signal` was aborted with */
  call<T>({ operation, request, args, signal, closing, read }: RequestOptions<T>): Promise<T> {
    return this.#attempts(operation, request, args, [signal, closing], (data) => {
      if (typeof data !== "object" || data === null || !("result" in data)) {
        throw new Unsound(`the answer has no result (${describe(data)})`);
      }
      return read(data.result);
    });
  }

  async #attempts<T>(
    operation: string,
    request: RequestName,
    args: object,
    signals: readonly (AbortSignal | undefined)[],
    read: (data: unknown) => T,
  ): Promise<T> {
    const { retries, retryDelayMs } = this.#settings;
    const [signal] = signals;
    const goOn = (): void => {
      for (const each of signals) each?.throwIfAborted();
    };
    for (let attempt = 0; ; attempt++) {
      goOn();
      let failure: Failure;
      try {
        const { data } = await this.#limiter.run(() => this.#once(request, args, signals), signal);
        return read(data);
      } catch (error) {
        goOn();
        // A reader's own verdict, which no repetition changes.
        if (error instanceof CdeError) throw error;
        failure = judge(error);
      }
      const backoff = Math.min(LONGEST_BACKOFF, retryDelayMs * 2 ** attempt);
      // Full jitter, so that clients that failed together don't come back together.
      const pause = Math.max(failure.pause, backoff * Math.random());
      if (!failure.repeat || attempt >= retries || pause > LONGEST_PAUSE) {
        throw this.#error(operation, failure, attempt);
      }
      await wait(pause, undefined, signal ? { signal } : {}).catch((error: unknown) => {
        signal?.throwIfAborted();
        throw error;
      });
    }
  }

  async #once(
    request: RequestName,
    args: object,
    signals: readonly (AbortSignal | undefined)[],
  ): Promise<{ data: unknown }> {
    // One controller a request, taken off the signals at its end: `AbortSignal.any` would leave something on each.
    const controller = new AbortController();
    const { signal } = controller;
    const late = new DOMException("no answer in time", "TimeoutError");
    const timer = setTimeout(() => controller.abort(late), this.#settings.requestTimeoutMs);
    const stops = signals.map((each) => {
      const stop = (): void => controller.abort(each?.reason);
      each?.addEventListener("abort", stop, { once: true });
      if (each?.aborted) stop();
      return () => each?.removeEventListener("abort", stop);
    });
    const send = this.#client.api()[request] as (args: object, init: RequestInit) => Promise<{ data: unknown }>;
    try {
      // A client with a timeout of its own ignores the signal; the caller is free all the same.
      return await new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
        if (signal.aborted) reject(signal.reason);
        else send(args, { signal }).then(resolve, reject);
      });
    } finally {
      clearTimeout(timer);
      for (const stop of stops) stop();
    }
  }

  #error(operation: string, failure: Failure, attempt: number): QdrantError {
    const { secrets } = this.#settings;
    const { code, what, status, cause } = failure;
    const after = attempt === 0 ? "" : ` (after ${attempt + 1} attempts)`;
    const message = `${operation}: ${this.name} ${what}${after}.`;
    return new QdrantError(code, hidden(message, secrets), { status, cause: withoutSecrets(cause, secrets) });
  }
}

interface Settings {
  readonly requestTimeoutMs: number;
  readonly concurrency: number;
  readonly retries: number;
  readonly retryDelayMs: number;
  /** The key, and what headers of the caller hold: none of it is shown. */
  readonly secrets: readonly string[];
}

function checkedSettings(options: QdrantConnectionOptions): Settings {
  const { requestTimeoutMs = 60_000, concurrency = 8, retries = 6, retryDelayMs = 200, apiKey, headers = {} } = options;
  const least = { requestTimeoutMs: 1, concurrency: 1, retries: 0, retryDelayMs: 0 };
  const given = { requestTimeoutMs, concurrency, retries, retryDelayMs };
  for (const [name, value] of Object.entries(given)) {
    const from = least[name as keyof typeof least];
    if (Number.isSafeInteger(value) && value >= from && value <= 2 ** 31 - 1) continue;
    throw new InvalidInputError(`qdrant: ${name} must be a whole number from ${from}, got ${String(value)}.`);
  }
  const values = [apiKey, ...Object.values(headers)].flatMap((value) => value ?? []);
  // Shorter ones are words such as "true", which errors need.
  return { ...given, secrets: values.filter(({ length }) => length >= 6) };
}

function checkKey(apiKey: string, address: Address, { allowKeyOverHttp = false }: QdrantConnectionOptions): void {
  if (!/^[\x21-\x7e]+$/.test(apiKey)) {
    throw new InvalidInputError("qdrant: apiKey is empty or holds what no HTTP header can (a line break, a blank?).");
  }
  if (address.isSecure || address.isLoopback || allowKeyOverHttp) return;
  throw new InvalidInputError(
    `qdrant: an API key for ${nameOf(address)} would travel in plain text. Use https, or pass ` +
      "{ allowKeyOverHttp: true } in a network that you trust.",
  );
}

function nameOf({ origin, port, prefix }: Address): string {
  return `${origin}${port === null ? "" : `:${port}`}${prefix}`;
}

function isOlder(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [leastMajor = 0, leastMinor = 0] = MINIMUM_VERSION;
  return major < leastMajor || (major === leastMajor && minor < leastMinor);
}

interface Failure {
  readonly code: QdrantError["code"];
  readonly what: string;
  readonly repeat: boolean;
  /** Milliseconds that the server asks for. */
  readonly pause: number;
  readonly status?: number;
  readonly cause: unknown;
}

/** The errors of the client, by what they carry and not by their classes: those of another copy of it are others. */
function judge(error: unknown): Failure {
  const { name, message, status, data, retry_after, cause } = error as Partial<Record<string, unknown>>;
  if (error instanceof Unsound) {
    const what = `gave an unsound answer: ${error.message}`;
    return { code: "QDRANT_ANSWER", what, repeat: !error.lasting, pause: 0, cause: error };
  }
  if (name === "TimeoutError" || name === "QdrantClientTimeoutError") {
    return {
      code: "QDRANT_TIMEOUT",
      what: "didn't answer in time. Raise requestTimeoutMs, or send less at once",
      repeat: false,
      pause: 0,
      cause: error,
    };
  }
  if (name === "SyntaxError") {
    return { code: "QDRANT_ANSWER", what: "gave an answer that is no JSON", repeat: true, pause: 0, cause: error };
  }
  // The client keeps only the first digit of Retry-After, so the growing pauses of our own matter.
  if (typeof retry_after === "number") {
    const pause = Math.max(0, retry_after) * 1000;
    return { code: "QDRANT_REQUEST", what: "answers 429: too busy", repeat: true, pause, status: 429, cause: error };
  }
  if (typeof status === "number") {
    const said = (data as { status?: { error?: unknown } } | undefined)?.status?.error;
    const words = typeof said === "string" ? said : typeof message === "string" ? message : "";
    const what = `answers ${status}${words === "" ? "" : `: ${words.replace(/\.$/, "").slice(0, 1000)}`}`;
    const isIndex = /Index required but not found/.test(words);
    const isLimit = /Limit exceeded|condition limit reached|larger than allowed/.test(words);
    const code = isIndex ? "QDRANT_INDEX_REQUIRED" : isLimit ? "QDRANT_LIMIT" : "QDRANT_REQUEST";
    const advice = isIndex ? ". Name the field in payloadIndexes when the collection is made" : "";
    return { code, what: what + advice, repeat: BROKEN.has(status), pause: 0, status, cause: error };
  }
  // What fetch throws for a connection that isn't made, or breaks.
  if (error instanceof TypeError) {
    const reason = (cause as { code?: string; message?: string } | undefined) ?? {};
    const what = `can't be reached (${reason.code ?? reason.message ?? error.message})`;
    return { code: "QDRANT_UNREACHABLE", what, repeat: true, pause: 0, cause: error };
  }
  const what = `failed: ${typeof message === "string" ? message : String(error)}`;
  return { code: "QDRANT_REQUEST", what, repeat: false, pause: 0, cause: error };
}

function hidden(text: string, secrets: readonly string[]): string {
  return secrets.reduce((shown, secret) => shown.replaceAll(secret, "[secret]"), text);
}

/** The cause, or where it repeats a secret (a proxy that echoes headers) an error in its place that doesn't. */
function withoutSecrets(cause: unknown, secrets: readonly string[]): unknown {
  if (secrets.length === 0 || !(cause instanceof Error)) return cause;
  const own = Object.getOwnPropertyNames(cause).map((name) => (cause as unknown as Record<string, unknown>)[name]);
  const text = own.map((value) => (typeof value === "object" ? safeJson(value) : String(value))).join("\n");
  return secrets.some((secret) => text.includes(secret)) ? new Error(hidden(cause.message, secrets)) : cause;
}

function safeJson(value: unknown): string {
  if (value instanceof Headers) return JSON.stringify([...value]);
  if (value instanceof Error) return `${value.message}\n${value.stack}`;
  try {
    return JSON.stringify(value) ?? "";
  } catch {
    return "";
  }
}

function describe(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
}
