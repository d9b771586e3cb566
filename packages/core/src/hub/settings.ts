/** The options of a download, completed from the environment variables that Hugging Face's own tools read. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { InvalidInputError } from "../errors.js";
import { HubError } from "./errors.js";
import { checkRepoId, checkRevision } from "./names.js";
import { isLoopback } from "./proxy.js";

/** Where a download stands, in bytes over all files of the model. */
export interface DownloadProgress {
  /** The file that just grew, as the repository names it. */
  readonly file: string;
  /** Bytes on disk, those of an earlier run included. Falls back where a server sends a file from its start again. */
  readonly done: number;
  readonly total: number;
}

export interface DownloadOptions {
  /** Branch, tag or commit. A branch or tag that is in the cache is not looked up again. @default "main" */
  readonly revision?: string;
  /** @default HF_HUB_CACHE, or "hub" in HF_HOME, or ~/.cache/huggingface/hub */
  readonly cacheDir?: string;
  /** Sent to `endpoint` only; `false` sends none. @default HF_TOKEN, or the token file of `hf auth login` */
  readonly token?: string | false;
  /** @default HF_ENDPOINT, or https://huggingface.co */
  readonly endpoint?: string;
  /** Use the cache alone, whatever it holds of the model; makes no request. @default HF_HUB_OFFLINE */
  readonly offline?: boolean;
  /** Milliseconds in which an answer must begin, and then bring at least 1 KiB. @default 30000 */
  readonly idleTimeout?: number;
  /** Milliseconds before the first repetition of a failed request, doubled each time, ±50 %. @default 500 */
  readonly retryDelay?: number;
  /** Stops the download; what has arrived is kept and resumed. The promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: DownloadProgress) => void;
}

export interface Settings {
  readonly repoId: string;
  readonly revision: string;
  readonly cacheDir: string;
  readonly endpoint: URL;
  readonly token: string | undefined;
  readonly offline: boolean;
  readonly idleTimeout: number;
  readonly retryDelay: number;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: DownloadProgress) => void) | undefined;
}

/** Where downloaded models are kept unless a call says otherwise, by the environment. It need not exist. */
export function hubCacheDirectory(): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env;
  return resolve(expand(HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(hubHome(), "hub")));
}

function hubHome(): string {
  const { HF_HOME, XDG_CACHE_HOME } = process.env;
  return expand(HF_HOME || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface"));
}

/** Checks everything that can be checked without the network. */
export async function resolveSettings(repoId: string, options: DownloadOptions): Promise<Settings> {
  const env = process.env;
  const revision = options.revision ?? "main";
  checkRepoId(repoId);
  checkRevision(revision);
  const offline = options.offline ?? isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE);
  const endpoint = parseEndpoint(options.endpoint ?? (env.HF_ENDPOINT || "https://huggingface.co"));
  const token = offline ? undefined : await findToken(options.token, hubHome());
  if (token !== undefined && endpoint.protocol === "http:" && !isLoopback(endpoint.hostname)) {
    throw new HubError(
      "HUB_INSECURE",
      `downloadModel: a token would travel unencrypted to ${endpoint.origin}. Use an https endpoint, or pass { token: false }.`,
    );
  }
  return {
    repoId,
    revision,
    cacheDir: options.cacheDir === undefined ? hubCacheDirectory() : resolve(expand(options.cacheDir)),
    endpoint,
    token,
    offline,
    idleTimeout: positive("idleTimeout", options.idleTimeout ?? 30_000),
    retryDelay: positive("retryDelay", options.retryDelay ?? 500),
    signal: options.signal,
    onProgress: options.onProgress,
  };
}

/** The first of: the option, HF_TOKEN, the file that `hf auth login` writes. */
async function findToken(option: string | false | undefined, home: string): Promise<string | undefined> {
  if (option === false) return undefined;
  const env = process.env;
  const path = expand(env.HF_TOKEN_PATH || join(home, "token"));
  const implicit = async () =>
    isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)
      ? undefined
      : env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || (await readFile(path, "utf8").catch(() => undefined));
  const token = (option ?? (await implicit()))?.trim();
  if (!token) return undefined;
  // Checked here because Node's own complaint about a header would come late, and might show it.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new InvalidInputError(
    "downloadModel: the token holds characters that no token has. Check HF_TOKEN or { token }.",
  );
}

function parseEndpoint(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const good = url && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search && !url.hash;
  if (!good) {
    throw new InvalidInputError(
      "downloadModel: the endpoint (HF_ENDPOINT or { endpoint }) must be an http or https address without credentials, query or fragment, such as https://huggingface.co.",
    );
  }
  url.pathname = url.pathname.replace(/\/+$/, "");
  return url;
}

function expand(path: string): string {
  return path.replace(/^~(?=$|[/\\])/, () => homedir());
}

function isTrue(value: string | undefined): boolean {
  return /^(?:1|on|yes|true)$/i.test(value ?? "");
}

function positive(name: string, value: number): number {
  // setTimeout reads anything above 2^31-1 as 1 ms.
  if (value > 0 && value < 2 ** 31) return value;
  throw new InvalidInputError(`downloadModel: ${name} must be milliseconds between 0 and 2^31, got ${value}.`);
}
