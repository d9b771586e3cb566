/** Where a server is, from the URL that people write; and the names of collections. */
import { InvalidInputError } from "@cde-js/core";

export interface Address {
  /** Scheme and host, without port. */
  readonly origin: string;
  /** Null for the scheme's own. */
  readonly port: number | null;
  /** The path before everything, as behind a proxy; "" where there is none. */
  readonly prefix: string;
  readonly isSecure: boolean;
  /** The machine itself, where plain HTTP is seen by nobody else. */
  readonly isLoopback: boolean;
}

/** Qdrant's own port, for `http://host` without one. */
const DEFAULT_PORT = 6333;

/**
 * `https://host` means port 443 and `https://host/base` has a prefix; the client would make both `https://host:6333`.
 *
 * @throws InvalidInputError for another scheme, credentials, a query; the URL is shown without them
 */
export function parseAddress(url: string): Address {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    // Without the URL itself and without its cause: both may hold a password.
    throw new InvalidInputError('qdrant: the url is none. Write "http://localhost:6333" or "https://host/prefix".');
  }
  const { protocol, hostname } = parsed;
  const shown = `${protocol}//${parsed.host}`;
  if (protocol !== "http:" && protocol !== "https:") {
    throw new InvalidInputError(`qdrant: the url has the scheme ${protocol} and must have http: or https:.`);
  }
  if (parsed.username !== "" || parsed.password !== "") {
    throw new InvalidInputError(`qdrant: the url of ${shown} holds a user or password. Pass { apiKey } instead.`);
  }
  if (parsed.search !== "" || parsed.hash !== "") {
    throw new InvalidInputError(`qdrant: the url of ${shown} has a query or fragment. Leave it out.`);
  }
  const isSecure = protocol === "https:";
  // A URL forgets the port that is its scheme's own, and somebody who wrote :80 doesn't mean 6333.
  const saidPlainPort = /^http:\/\/[^/]*:80(?:\/|$)/i.test(url.trim());
  const given = parsed.port === "" ? undefined : Number(parsed.port);
  return {
    origin: `${protocol}//${hostname}`,
    port: given ?? (isSecure || saidPlainPort ? null : DEFAULT_PORT),
    prefix: parsed.pathname.replace(/\/+$/, ""),
    isSecure,
    isLoopback: /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname),
  };
}

/** @throws InvalidInputError for a name that Qdrant refuses */
export function checkCollectionName(name: unknown): asserts name is string {
  const fail = (what: string): never => {
    throw new InvalidInputError(`qdrant: the name of a collection ${what}.`);
  };
  if (typeof name !== "string") return fail(`must be a string, got ${typeof name}`);
  if (name.length < 1 || name.length > 255) fail(`has 1 to 255 characters, got ${name.length}`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  const bad = /[<>:"/\\|?*\u0000-\u001f\u007f]|\p{Surrogate}/u.exec(name)?.[0];
  if (bad !== undefined) fail(`can't hold ${JSON.stringify(bad)}, got ${JSON.stringify(name)}`);
  if (name === "." || name === "..") fail(`can't be ${JSON.stringify(name)}, which is a path`);
}
