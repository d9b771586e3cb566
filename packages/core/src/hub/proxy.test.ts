import { describe, expect, test } from "vitest";
import { HubError } from "./errors.js";
import { proxyFor } from "./proxy.js";

const chosen = (url: string, env: Record<string, string>) => proxyFor(new URL(url), env)?.href;

describe("the proxy for an address", () => {
  test("is the variable of its protocol, lower case first, then ALL_PROXY", () => {
    const env = { HTTPS_PROXY: "http://s:1", HTTP_PROXY: "http://p:2", ALL_PROXY: "http://a:3" };
    expect(chosen("https://hub.test", env)).toBe("http://s:1/");
    expect(chosen("http://hub.test", env)).toBe("http://p:2/");
    expect(chosen("https://hub.test", { ...env, https_proxy: "low:4" })).toBe("http://low:4/");
    expect(chosen("https://hub.test", { ALL_PROXY: "http://a:3" })).toBe("http://a:3/");
    expect(chosen("https://hub.test", { HTTP_PROXY: "http://p:2" })).toBeUndefined();
  });

  test.each(["http://localhost:1", "https://127.0.0.1", "http://[::1]:8", "http://a.localhost"])(
    "is none for %s, which is this machine",
    (url) => {
      expect(chosen(url, { ALL_PROXY: "http://a:3" })).toBeUndefined();
    },
  );

  test.each([
    ["hub.test", true],
    [".hub.test", true],
    ["*.test", true],
    ["other.test, cdn.hub.test", true],
    ["*", true],
    ["hub.test:443", true],
    ["hub.test:8443", false],
    ["b.test", false],
    ["n.hub.test", false],
    ["", false],
    [",", false],
  ])("with NO_PROXY=%j is none for cdn.hub.test: %s", (list, exempt) => {
    const proxy = chosen("https://cdn.hub.test/x", { HTTPS_PROXY: "http://p:2", NO_PROXY: list });
    expect(proxy === undefined).toBe(exempt);
  });

  test("that is no http proxy is refused without showing its password", () => {
    const choose = () => chosen("https://hub.test", { HTTPS_PROXY: "socks5://user:password@p:1" });
    expect(choose).toThrow(HubError);
    expect(choose).not.toThrow(/password/);
  });
});
