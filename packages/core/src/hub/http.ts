/** Requests to the hub: redirects, the rule where the token goes, time limits and repetition. Nothing about files. */
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { HubError } from "./errors.js";
import { route } from "./proxy.js";
import type { Settings } from "./settings.js";

/** Fewer bytes than this in a whole `idleTimeout` count as none: a slow loris sends just enough to look alive. */
const LEAST_BYTES = 1024;
const MAX_REDIRECTS = 5;
const MAX_ATTEMPTS = 5;
const MAX_BACKOFF = 30_000;
/** Longest wait that a hub may ask for, in seconds; its own limits are windows of five minutes. */
const MAX_RETRY_AFTER = 300;
const MAX_JSON_BYTES = 32 * 2 ** 20;
/** Stated by the hub about the file itself, even where the answer only redirects to a store. */
const FILE_HEADERS = ["x-linked-etag", "x-linked-size", "x-repo-commit"] as const;

export type Session = Pick<Settings, "endpoint" | "token" | "idleTimeout" | "retryDelay" | "signal">;

export interface Reply {
  readonly status: number;
  /** Of the last answer, with the `FILE_HEADERS` of the redirects before it. */
  readonly headers: IncomingHttpHeaders;
  /** Whether the endpoint itself answered last, not a host that it redirected to. */
  readonly fromEndpoint: boolean;
  readonly chunks: AsyncIterable<Buffer>;
  /** Has to be called, read or not: ends the time limit and gives the connection back. */
  readonly close: () => void;
}

/**
 * A successful answer (2xx), or the redirect to another host for HEAD, whose headers already describe the file.
 * Errors: all those of `HubError` that concern the network.
 */
export async function request(
  session: Session,
  method: "GET" | "HEAD",
  path: string,
  headers: Record<string, string> = {},
): Promise<Reply> {
  let url = new URL(`${session.endpoint.href.replace(/\/$/, "")}/${path}`);
  const stated: IncomingHttpHeaders = {};
  for (let redirects = 0; ; redirects++) {
    const fromEndpoint = url.origin === session.endpoint.origin;
    const { response, chunks, close } = await send(session, method, url, headers);
    const status = response.statusCode ?? 0;
    if (fromEndpoint) for (const name of FILE_HEADERS) stated[name] ??= response.headers[name];
    const reply = { status, headers: { ...response.headers, ...stated }, fromEndpoint, chunks, close };
    const location = [301, 302, 303, 307, 308].includes(status) ? response.headers.location : undefined;
    if (status >= 200 && status < 300 && method === "GET") return reply;
    close();
    if (status >= 200 && status < 300) return reply;
    if (location === undefined) throw statusError(url, reply);
    if (redirects === MAX_REDIRECTS) throw responseError(url, `redirects more than ${MAX_REDIRECTS} times`);
    const target = redirectTarget(url, location);
    if (method === "HEAD" && target.origin !== session.endpoint.origin) return reply;
    url = target;
  }
}

/** The answer's JSON, repeated on failure. */
export function requestJson(session: Session, path: string): Promise<unknown> {
  return withRetries(session, async () => {
    const { chunks, close } = await request(session, "GET", path);
    const received: Buffer[] = [];
    let size = 0;
    try {
      for await (const chunk of chunks) {
        size += chunk.length;
        if (size > MAX_JSON_BYTES) throw responseError(session.endpoint, `sends over ${MAX_JSON_BYTES} bytes of JSON`);
        received.push(chunk);
      }
    } finally {
      close();
    }
    try {
      return JSON.parse(Buffer.concat(received).toString("utf8")) as unknown;
    } catch {
      // No cause: the parser's message quotes what the server sent.
      throw responseError(session.endpoint, `answers /${path} with something that is not JSON`);
    }
  });
}

/**
 * Runs `operation` until it succeeds, fails for good, or has failed `MAX_ATTEMPTS` times without calling `progressed`.
 * Waits 1, 2, 4, … times `retryDelay` ±50 % in between, or as long as the hub asks.
 */
export async function withRetries<T>(
  session: Pick<Session, "retryDelay" | "signal">,
  operation: (progressed: () => void) => Promise<T>,
): Promise<T> {
  let attempts = 0;
  for (;;) {
    session.signal?.throwIfAborted();
    try {
      return await operation(() => {
        attempts = 0;
      });
    } catch (error) {
      attempts++;
      const goesOn = error instanceof HubError && error.retryable && attempts < MAX_ATTEMPTS;
      if (!goesOn || (error.retryAfter ?? 0) > MAX_RETRY_AFTER) throw error;
      const backoff = Math.min(session.retryDelay * 2 ** (attempts - 1), MAX_BACKOFF) * (0.5 + Math.random());
      // Jitter on top of what the hub asks: all who were refused at once would otherwise return at once.
      const delay = (error.retryAfter ?? 0) * 1000 + backoff;
      await sleep(delay, undefined, session.signal ? { signal: session.signal } : {}).catch(() => {});
    }
  }
}

/** One request, no redirect. The token goes to the origin of the endpoint and nowhere else. */
async function send(
  session: Session,
  method: string,
  url: URL,
  headers: Record<string, string>,
): Promise<{ response: IncomingMessage } & Pick<Reply, "chunks" | "close">> {
  const watch = new Watch(session, url);
  try {
    const by = await route(url, process.env, watch.signal);
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const open = url.protocol === "https:" ? httpsRequest : httpRequest;
      const authorization = session.token !== undefined && url.origin === session.endpoint.origin;
      const outgoing = open(url, {
        ...by,
        method,
        signal: watch.signal,
        headers: {
          "user-agent": "cde-js",
          // Sizes and ETags have to be those of the file, not of its compressed form.
          "accept-encoding": "identity",
          ...headers,
          ...(by.headers as Record<string, string> | undefined),
          ...(authorization ? { authorization: `Bearer ${session.token}` } : {}),
        },
      });
      outgoing.once("response", resolve);
      // Stays on: an abort while the body is read is reported here as well as there.
      outgoing.on("error", reject);
      outgoing.end();
    });
    watch.restart();
    const close = () => {
      watch.stop();
      // The end of an empty answer frees its connection for the next request; a body left unread costs it.
      if (method === "HEAD") response.resume();
      else response.destroy();
    };
    return { response, chunks: readBody(response, watch), close };
  } catch (error) {
    watch.stop();
    throw watch.explain(error);
  }
}

async function* readBody(response: IncomingMessage, watch: Watch): AsyncGenerator<Buffer> {
  try {
    watch.expectBytes();
    for await (const chunk of response as AsyncIterable<Buffer>) {
      watch.received(chunk.length);
      yield chunk;
      watch.expectBytes();
    }
  } catch (error) {
    throw watch.explain(error);
  }
}

/** Ends one request: by the caller's signal, or when it stalls. */
class Watch {
  readonly #controller = new AbortController();
  readonly #session: Session;
  readonly #url: URL;
  readonly #timer: NodeJS.Timeout;
  readonly #abort = (): void => this.#controller.abort(this.#session.signal?.reason);
  #bytes = 0;
  /** False while whoever reads the body is busy with it: a slow disk is not a slow server. */
  #waiting = true;
  #stalled = false;

  constructor(session: Session, url: URL) {
    this.#session = session;
    this.#url = url;
    session.signal?.throwIfAborted();
    session.signal?.addEventListener("abort", this.#abort, { once: true });
    this.#timer = setInterval(() => this.#check(), session.idleTimeout);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The answer has begun: its body gets a time of its own. */
  restart(): void {
    this.#timer.refresh();
    this.#bytes = 0;
  }

  expectBytes(): void {
    this.#waiting = true;
  }

  received(bytes: number): void {
    this.#bytes += bytes;
    this.#waiting = false;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#session.signal?.removeEventListener("abort", this.#abort);
  }

  /** What `error` really was: the caller's abort, a stall, a broken connection. */
  explain(error: unknown): unknown {
    if (this.#session.signal?.aborted) return this.#session.signal.reason;
    if (this.#stalled) {
      const message = `downloadModel: ${show(this.#url)} sent less than ${LEAST_BYTES} bytes in ${this.#session.idleTimeout} ms. Try again, or allow more with { idleTimeout }.`;
      return new HubError("HUB_TIMEOUT", message, { retryable: true });
    }
    return error instanceof HubError ? error : connectionError(this.#url, error);
  }

  #check(): void {
    if (this.#waiting && this.#bytes < LEAST_BYTES) {
      this.#stalled = true;
      this.#controller.abort();
    }
    this.#bytes = 0;
  }
}

function redirectTarget(from: URL, location: string): URL {
  if (!URL.canParse(location, from.href)) throw responseError(from, "redirects to something that is not an address");
  const target = new URL(location, from);
  target.username = target.password = "";
  if (target.protocol === "https:" || (target.protocol === "http:" && from.protocol === "http:")) return target;
  throw new HubError(
    "HUB_INSECURE",
    `downloadModel: ${show(from)} redirects from https to ${target.protocol}// on ${target.host}. That is not followed; check the endpoint.`,
  );
}

/** An address as it may stand in a message: without the query, which holds the signatures of stores. */
function show(url: URL): string {
  return url.origin + url.pathname;
}

function responseError(url: URL, what: string): HubError {
  const message = `downloadModel: ${show(url)} ${what}, which a model hub does not do. Check HF_ENDPOINT or { endpoint }.`;
  return new HubError("HUB_RESPONSE", message);
}

function connectionError(url: URL, cause: unknown): HubError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
  // Names that don't exist and certificates that don't fit are the same a second later.
  const lasting = /^(?:ENOTFOUND|CERT_|ERR_TLS|ERR_SSL|ERR_INVALID|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/.test(code);
  const advice =
    "Check the connection, HTTPS_PROXY and HF_ENDPOINT; with the model in the cache, pass { offline: true }.";
  const message = `downloadModel: no connection to ${url.origin} that lasts: ${code}. ${advice}`;
  return new HubError("HUB_UNREACHABLE", message, { cause, retryable: !lasting });
}

function statusError(url: URL, { status, headers, fromEndpoint }: Reply): HubError {
  const refused = status === 401 || status === 403;
  if (refused && fromEndpoint) {
    const advice = "It is private, gated or absent: accept its terms on the hub and pass { token } or set HF_TOKEN.";
    const message = `downloadModel: ${show(url)} was refused with ${status}. ${advice}`;
    return new HubError("HUB_UNAUTHORIZED", message, { status });
  }
  if (status === 404 || status === 410) {
    const message = `downloadModel: ${show(url)} does not exist (${status}). Check the repository id, { revision } and { endpoint }.`;
    return new HubError("HUB_NOT_FOUND", message, { status });
  }
  const retryAfter = retryAfterOf(headers);
  if (status === 429) {
    const wait = retryAfter === undefined ? "" : ` and asks to wait ${retryAfter} s`;
    const message = `downloadModel: ${url.origin} limits the number of requests (429)${wait}. Try again later; with a token the limit is higher.`;
    return new HubError("HUB_RATE_LIMITED", message, { status, retryAfter, retryable: true });
  }
  if (status >= 500 || status === 408) {
    const message = `downloadModel: ${show(url)} failed with ${status}. The server is in trouble; try again later.`;
    return new HubError("HUB_UNREACHABLE", message, { status, retryAfter, retryable: true });
  }
  const message = `downloadModel: ${show(url)} answered ${status} where a file was expected. Check HF_ENDPOINT or { endpoint }.`;
  // A store's signed address expires; asking the hub again gives a fresh one. 416 is a partial file that can't go on.
  return new HubError("HUB_RESPONSE", message, { status, retryable: refused || status === 416 });
}

/** Seconds, from Retry-After (seconds or a date) or from the `t=` of RateLimit, which the hub sends instead. */
function retryAfterOf(headers: IncomingHttpHeaders): number | undefined {
  const value = headers["retry-after"]?.trim();
  if (value && /^\d+$/.test(value)) return Number(value);
  const date = value ? Date.parse(value) : Number.NaN;
  if (!Number.isNaN(date)) return Math.max(0, Math.ceil((date - Date.now()) / 1000));
  const window = /;\s*t\s*=\s*(\d+)/.exec(String(headers.ratelimit ?? ""))?.[1];
  return window === undefined ? undefined : Number(window);
}
