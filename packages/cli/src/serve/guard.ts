/** Who may ask: requests for a name of this server, from its own page. What a browser is told with every answer. */
import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";

/**
 * Answers are never for other pages, frames or caches, and a page runs and loads only what this server sends: no inline
 * script, no style attribute, no other host.
 */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "cache-control": "no-store",
};

/** As they stand in `Host` before the port. */
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

export function isLoopback(address: string): boolean {
  return address === "localhost" || address === "::1" || /^127(\.\d{1,3}){3}$/.test(address);
}

export class Guard {
  readonly #hosts: ReadonlySet<string>;

  /** `names`: beside the loopback names, what a browser may have in its address line. */
  constructor(names: readonly string[], port: number) {
    const hosts = [...LOOPBACK, ...names.map((name) => (isIP(name) === 6 ? `[${name}]` : name.toLowerCase()))];
    // A browser leaves out the port where it is http's own.
    this.#hosts = new Set(hosts.flatMap((host) => (port === 80 ? [host, `${host}:80`] : [`${host}:${port}`])));
  }

  /** Why a request is refused, or undefined. */
  refusal(headers: IncomingHttpHeaders): string | undefined {
    const host = headers.host?.toLowerCase();
    // A page whose name was made to point here (DNS rebinding) still asks for its own name.
    if (host === undefined || !this.#hosts.has(host)) return `unknown host ${JSON.stringify(headers.host ?? "")}`;
    const { origin } = headers;
    if (origin !== undefined && origin !== `http://${host}`)
      return `cross-origin request from ${JSON.stringify(origin)}`;
    const site = headers["sec-fetch-site"];
    if (site !== undefined && site !== "same-origin" && site !== "none")
      return `cross-origin request (${String(site)})`;
    return undefined;
  }
}
