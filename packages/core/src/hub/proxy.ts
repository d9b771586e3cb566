/** The way to a host: straight, or through the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name. */
import { request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import { isIP, type Socket } from "node:net";
import { connect as tlsConnect } from "node:tls";
import { HubError } from "./errors.js";

type Environment = Readonly<Record<string, string | undefined>>;

export function isLoopback(hostname: string): boolean {
  return /^(?:localhost|.+\.localhost|127(?:\.\d+){3}|\[::1\])$/i.test(hostname);
}

/**
 * The proxy for `url`, or undefined. As in curl, a lower-case variable wins and NO_PROXY takes hosts with their
 * subdomains, `host:port` and `*`. As in Go, loopback is never proxied: a token may go there in the clear.
 */
export function proxyFor(url: URL, env: Environment): URL | undefined {
  const variable = (name: string) => env[name] || env[name.toUpperCase()];
  const value = variable(url.protocol === "https:" ? "https_proxy" : "http_proxy") || variable("all_proxy");
  if (!value || isLoopback(url.hostname) || isExempt(url, variable("no_proxy") ?? "")) return undefined;
  const text = /^[a-z][\w+.-]*:\/\//i.test(value) ? value : `http://${value}`;
  const proxy = URL.canParse(text) ? new URL(text) : undefined;
  if (proxy && /^https?:$/.test(proxy.protocol)) return proxy;
  throw new HubError(
    "HUB_UNREACHABLE",
    `downloadModel: the proxy set for ${url.protocol}// addresses is not an http or https address. Correct HTTPS_PROXY or HTTP_PROXY, or add ${url.hostname} to NO_PROXY.`,
  );
}

function isExempt(url: URL, list: string): boolean {
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  return list.split(/[\s,]+/).some((entry) => {
    const [, host = "", onlyPort] = /^(?:\*?\.)?(.*?)(?::(\d+))?$/.exec(entry.toLowerCase()) ?? [];
    if (entry === "*") return true;
    if (!host || (onlyPort !== undefined && onlyPort !== port)) return false;
    return url.hostname === host || url.hostname.endsWith(`.${host}`);
  });
}

/** What to add to the options of a request for `url`. A tunnel is opened here, hence the promise. */
export async function route(url: URL, env: Environment, signal: AbortSignal): Promise<RequestOptions> {
  const proxy = proxyFor(url, env);
  if (!proxy) return {};
  const headers: Record<string, string> = { host: url.host };
  if (proxy.username) {
    const credentials = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
    headers["proxy-authorization"] = `Basic ${Buffer.from(credentials).toString("base64")}`;
  }
  if (url.protocol === "https:") {
    const socket = await openTunnel(proxy, url, headers, signal);
    // Without an agent Node takes 80 for the default and would write it into the Host header.
    return { createConnection: () => socket, defaultPort: 443 };
  }
  if (proxy.protocol === "https:") {
    throw new HubError(
      "HUB_UNREACHABLE",
      `downloadModel: ${url.origin} is http, its proxy ${proxy.host} is https. Use an https endpoint, or an http proxy.`,
    );
  }
  return { hostname: bare(proxy.hostname), port: proxy.port || 80, path: url.href, headers };
}

function openTunnel(proxy: URL, url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<Socket> {
  const target = `${url.hostname}:${url.port || 443}`;
  return new Promise((resolve, reject) => {
    const send = proxy.protocol === "https:" ? httpsRequest : httpRequest;
    const connect = send({
      hostname: bare(proxy.hostname),
      port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
      method: "CONNECT",
      path: target,
      headers: { ...headers, host: target },
      agent: false,
      signal,
    });
    connect.once("error", reject);
    // Node gives any answer to CONNECT, a refusal too, as this event.
    connect.once("connect", ({ statusCode: status = 0 }: IncomingMessage, raw: Socket) => {
      if (status !== 200) {
        raw.destroy();
        const advice = status === 407 ? "Put user and password into HTTPS_PROXY." : "Check HTTPS_PROXY and NO_PROXY.";
        const message = `downloadModel: the proxy ${proxy.host} refused a tunnel to ${target} with ${status}. ${advice}`;
        reject(new HubError("HUB_UNREACHABLE", message, { status, retryable: status >= 500 }));
        return;
      }
      const name = bare(url.hostname);
      const secure = tlsConnect({ socket: raw, host: name, ...(isIP(name) ? {} : { servername: name }) });
      const abort = () => secure.destroy(new Error("aborted"));
      signal.addEventListener("abort", abort, { once: true });
      secure.once("error", reject);
      secure.once("secureConnect", () => {
        signal.removeEventListener("abort", abort);
        secure.off("error", reject);
        resolve(secure);
      });
    });
    connect.end();
  });
}

/** `[::1]` as the network functions want it. */
function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, "");
}
