/** What the tests of the hub share: an environment of their own, a cache folder a test, the error of a call. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HubError } from "@cde-js/core";
import { afterEach, beforeEach, vi } from "vitest";

const VARIABLES =
  "HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_ENDPOINT HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH HF_HUB_OFFLINE TRANSFORMERS_OFFLINE HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy";

/** A new, empty HF_HOME for every test of the file, and none of the developer's own settings or tokens. */
export function isolate(): { readonly home: string; readonly cacheDir: string } {
  const place = { home: "", cacheDir: "" };
  beforeEach(async () => {
    for (const name of VARIABLES.split(" ")) vi.stubEnv(name, undefined);
    place.home = await mkdtemp(join(tmpdir(), "cde-hub-"));
    place.cacheDir = join(place.home, "hub");
    vi.stubEnv("HF_HOME", place.home);
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await rm(place.home, { recursive: true, force: true });
  });
  return place;
}

/** The `HubError` that `call` ends with; any other end is a failure. */
export async function hubError(call: Promise<unknown>): Promise<HubError> {
  const end = await call.then(
    () => "no error",
    (error: unknown) => error,
  );
  if (end instanceof HubError) return end;
  throw new Error("expected a HubError", { cause: end });
}
