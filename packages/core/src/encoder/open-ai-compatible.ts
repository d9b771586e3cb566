/** An embed function over the OpenAI embeddings protocol, which most servers of embedding models speak. */
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { CdeError, InvalidInputError } from "../errors.js";
import type { EmbedFunction } from "./embed-function.js";

export interface OpenAiCompatibleOptions {
  /** Address that `/embeddings` is added to, such as "https://api.example.com/v1"; a query in it is kept. */
  readonly baseUrl: string;
  /** Sent as a bearer token; never part of an error. */
  readonly apiKey?: string;
  /** The model's name at this endpoint. */
  readonly model: string;
  /** Asks for vectors of so many dimensions, where the model can shorten them, and refuses others. */
  readonly dimensions?: number;
  /** Texts of one request. @default 64 */
  readonly batchSize?: number;
  /** Repetitions of a request that was limited (429), failed (5xx), timed out or lost its connection. @default 5 */
  readonly maxRetries?: number;
  /** Milliseconds before the first repetition, doubled each time up to 30 s, ±50 %. @default 500 */
  readonly retryDelayMs?: number;
  /** Milliseconds in which the whole answer must be there. @default 60000 */
  readonly requestTimeoutMs?: number;
  /** Instead of the global one: for a proxy, other headers, a test. */
  readonly fetch?: typeof globalThis.fetch;
}

/**
 * - `ENDPOINT_UNAUTHORIZED`: the key is missing, wrong or not allowed this model (401, 403).
 * - `ENDPOINT_REFUSED`: the request can't be served and won't be when repeated (other 4xx).
 * - `ENDPOINT_RATE_LIMITED`: too many requests, still so after all repetitions; `retryAfter` says for how long.
 * - `ENDPOINT_UNREACHABLE`: no connection, or a server that kept failing.
 * - `ENDPOINT_TIMEOUT`: no whole answer in `requestTimeoutMs`, after all repetitions.
 * - `ENDPOINT_RESPONSE`: the answer is not one of the protocol, or not to this request.
 */
export type EndpointErrorCode =
  | "ENDPOINT_UNAUTHORIZED"
  | "ENDPOINT_REFUSED"
  | "ENDPOINT_RATE_LIMITED"
  | "ENDPOINT_UNREACHABLE"
  | "ENDPOINT_TIMEOUT"
  | "ENDPOINT_RESPONSE";

/** An embeddings endpoint gave no vectors. Never holds a key. */
export class EndpointError extends CdeError {
  declare readonly code: EndpointErrorCode;
  /** The HTTP status, where one was received. */
  readonly status: number | undefined;
  /** Seconds that the endpoint asked to wait. */
  readonly retryAfter: number | undefined;

  constructor(
    code: EndpointErrorCode,
    message: string,
    options: ErrorOptions & { status?: number | undefined; retryAfter?: number | undefined } = {},
  ) {
    super(code, message, options);
    this.status = options.status;
    this.retryAfter = options.retryAfter;
  }
}

/** Longest wait that an endpoint may ask for, in seconds; one that asks for more is not waited for. */
const MAX_RETRY_AFTER = 120;
const MAX_BACKOFF = 30_000;
/** Bytes of an answer: 4,096 dimensions in decimals take about 90 kB. */
const MAX_BYTES_A_TEXT = 2 ** 20;
const RETRIED: ReadonlySet<EndpointErrorCode> = new Set([
  "ENDPOINT_RATE_LIMITED",
  "ENDPOINT_UNREACHABLE",
  "ENDPOINT_TIMEOUT",
]);

/** The function rejects with EndpointError, or with the signal's reason. */
export function openAiCompatible(options: OpenAiCompatibleOptions): EmbedFunction {
  const endpoint = new Endpoint(options);
  const { batchSize = 64 } = options;
  return async (texts, { signal }) => {
    const vectors: ArrayLike<number>[] = [];
    for (let first = 0; first < texts.length; first += batchSize) {
      vectors.push(...(await endpoint.embed(texts.slice(first, first + batchSize), signal)));
    }
    return vectors;
  };
}

class Endpoint {
  readonly #options: OpenAiCompatibleOptions;
  readonly #url: URL;
  /** The address as it may stand in a message: without the query, which can hold keys. */
  readonly #shown: string;

  constructor(options: OpenAiCompatibleOptions) {
    const { baseUrl, apiKey, model, ...numbers } = options;
    const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
    if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.hash) {
      throw new InvalidInputError(
        "openAiCompatible: baseUrl must be an http or https address without credentials, such as https://api.example.com/v1.",
      );
    }
    if (typeof model !== "string" || model === "") throw new InvalidInputError("openAiCompatible: model is missing.");
    // Checked here because the complaint about a header would come late, and show it.
    if (apiKey !== undefined && !/^[\x21-\x7e]+$/.test(apiKey)) {
      throw new InvalidInputError("openAiCompatible: apiKey is empty or holds characters that no key has.");
    }
    const least = { dimensions: 1, batchSize: 1, maxRetries: 0, retryDelayMs: 0, requestTimeoutMs: 1 };
    for (const [name, from] of Object.entries(least)) {
      const value = numbers[name as keyof typeof least];
      if (value === undefined || (Number.isSafeInteger(value) && value >= from && value < 2 ** 31)) continue;
      throw new InvalidInputError(`openAiCompatible: ${name} must be an integer of at least ${from}, got ${value}.`);
    }
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/embeddings`;
    this.#options = options;
    this.#url = url;
    this.#shown = url.origin + url.pathname;
  }

  async embed(texts: readonly string[], signal: AbortSignal): Promise<ArrayLike<number>[]> {
    const { maxRetries = 5, retryDelayMs = 500 } = this.#options;
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted();
      try {
        return await this.#request(texts, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof EndpointError) || !RETRIED.has(error.code) || attempt >= maxRetries) throw error;
        const { retryAfter = 0 } = error;
        if (retryAfter > MAX_RETRY_AFTER) throw error;
        // Jitter on top of what the endpoint asks: all who were refused at once would otherwise return at once.
        const backoff = Math.min(retryDelayMs * 2 ** attempt, MAX_BACKOFF) * (0.5 + Math.random());
        await sleep(retryAfter * 1000 + backoff, undefined, { signal }).catch(() => {});
      }
    }
  }

  async #request(texts: readonly string[], signal: AbortSignal): Promise<ArrayLike<number>[]> {
    const { apiKey, model, dimensions, requestTimeoutMs = 60_000, fetch = globalThis.fetch } = this.#options;
    const timeout = AbortSignal.timeout(requestTimeoutMs);
    const failed = (cause: unknown): never => {
      if (timeout.aborted) {
        const message = `openAiCompatible: no answer of ${this.#shown} in ${requestTimeoutMs} ms. Allow more with { requestTimeoutMs }, or send less with { batchSize }.`;
        throw new EndpointError("ENDPOINT_TIMEOUT", message);
      }
      const { code } = ((cause as Error | undefined)?.cause ?? cause ?? {}) as { code?: unknown };
      const message = `openAiCompatible: no connection to ${this.#shown} that lasts${code ? ` (${code})` : ""}. Check the address and the network.`;
      throw new EndpointError("ENDPOINT_UNREACHABLE", message, this.#isSafe(cause) ? { cause } : {});
    };
    const response = await fetch(this.#url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json",
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      body: JSON.stringify({ model, input: texts, ...(dimensions === undefined ? {} : { dimensions }) }),
      // A key must not follow to wherever a server points.
      redirect: "manual",
      signal: AbortSignal.any([signal, timeout]),
    }).catch(failed);
    const body = await this.#read(response, (texts.length + 1) * MAX_BYTES_A_TEXT).catch((error: unknown) =>
      error instanceof EndpointError ? Promise.reject(error) : failed(error),
    );
    if (!response.ok) throw this.#statusError(response, body);
    return this.#vectorsOf(body, texts.length);
  }

  async #read(response: Response, most: number): Promise<string> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      size += chunk.length;
      if (size > most) throw this.#badAnswer(`is over ${most} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }

  #statusError({ status, headers }: Response, body: string): EndpointError {
    if (status === 401 || status === 403) {
      // What such a server says often quotes a part of the key.
      const message = `openAiCompatible: ${this.#shown} refuses the key or its use of this model (${status}). Check apiKey.`;
      return new EndpointError("ENDPOINT_UNAUTHORIZED", message, { status });
    }
    const said = this.#saidIn(body);
    const retryAfter = retryAfterOf(headers.get("retry-after"));
    if (status === 429) {
      const wait = retryAfter === undefined ? "" : ` and asks to wait ${retryAfter} s`;
      const message = `openAiCompatible: ${this.#shown} limits the number of requests (429)${wait}${said}`;
      return new EndpointError("ENDPOINT_RATE_LIMITED", message, { status, retryAfter });
    }
    if (status >= 500 || status === 408) {
      const message = `openAiCompatible: ${this.#shown} failed with ${status}${said}`;
      return new EndpointError("ENDPOINT_UNREACHABLE", message, { status, retryAfter });
    }
    if (status < 400) return this.#badAnswer(`is a redirect (${status}), which is not followed`, status);
    const message = `openAiCompatible: ${this.#shown} refuses the request with ${status}${said}`;
    return new EndpointError("ENDPOINT_REFUSED", message, { status });
  }

  /** The server's own words, as far as they may be shown. */
  #saidIn(body: string): string {
    let said: unknown;
    try {
      const { error, message, detail } = JSON.parse(body) as Record<string, unknown>;
      said = (error as { message?: unknown } | undefined)?.message ?? error ?? message ?? detail;
    } catch {
      // A page of a proxy says nothing to the point.
    }
    if (typeof said !== "string" || !this.#isSafe(said)) return ".";
    const line = said
      .slice(0, 300)
      .replace(/[\s\p{Cc}\p{Cf}]+/gu, " ")
      .trim();
    return `: ${line.replace(/\.$/, "")}.`;
  }

  /** Whether this can be shown: the key isn't in it. */
  #isSafe(value: unknown): boolean {
    const { apiKey } = this.#options;
    return apiKey === undefined || !inspect(value, { depth: 6, maxStringLength: null }).includes(apiKey);
  }

  #badAnswer(what: string, status?: number): EndpointError {
    const message = `openAiCompatible: the answer of ${this.#shown} ${what}. Check baseUrl and model.`;
    return new EndpointError("ENDPOINT_RESPONSE", message, { status });
  }

  /** The vectors by their `index`, whatever order they came in. */
  #vectorsOf(body: string, count: number): ArrayLike<number>[] {
    let data: unknown;
    try {
      ({ data } = Object(JSON.parse(body)) as { data?: unknown });
    } catch {
      throw this.#badAnswer("is not JSON"); // no cause: the parser's message quotes the answer
    }
    if (!Array.isArray(data)) throw this.#badAnswer("has no list `data`");
    if (data.length !== count) throw this.#badAnswer(`has ${data.length} vectors for ${count} texts`);
    const vectors = new Array<ArrayLike<number> | undefined>(count).fill(undefined);
    for (const entry of data) {
      const { index, embedding } = Object(entry) as { index?: unknown; embedding?: unknown };
      if (typeof index !== "number" || !(index in vectors)) {
        throw this.#badAnswer(`has the index ${String(index)}, expected 0 to ${count - 1}`);
      }
      if (vectors[index]) throw this.#badAnswer(`has two vectors of index ${index}`);
      vectors[index] = this.#vector(embedding, index);
    }
    const sound = vectors as ArrayLike<number>[];
    const width = this.#options.dimensions ?? sound[0]?.length;
    const other = sound.findIndex(({ length }) => length !== width);
    if (other >= 0) {
      throw this.#badAnswer(`has ${sound[other]!.length} dimensions at index ${other}, expected ${width}`);
    }
    return sound;
  }

  /** Numbers, or little-endian float32 in base64: some servers send these unasked. */
  #vector(embedding: unknown, index: number): ArrayLike<number> {
    if (Array.isArray(embedding) && embedding.length > 0 && embedding.every((value) => typeof value === "number")) {
      return embedding as number[];
    }
    if (typeof embedding === "string" && /^[A-Za-z0-9+/]+={0,2}$/.test(embedding)) {
      const bytes = Buffer.from(embedding, "base64");
      if (bytes.length % 4 === 0) {
        return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
      }
    }
    throw this.#badAnswer(`has no vector at index ${index}, expected numbers or float32 in base64`);
  }
}

/** Seconds, from seconds or a date. */
function retryAfterOf(value: string | null): number | undefined {
  const text = value?.trim() ?? "";
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  const date = text === "" ? Number.NaN : Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, Math.ceil((date - Date.now()) / 1000));
}
