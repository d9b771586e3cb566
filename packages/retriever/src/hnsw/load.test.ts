import { expect, test } from "vitest";
import { loadHnswlib } from "./load.js";

const failing = (code: string | undefined, message: string) => async () => {
  throw Object.assign(new Error(message), code === undefined ? {} : { code });
};

test("says how to install hnswlib-node where it is missing", async () => {
  const missing = failing("ERR_MODULE_NOT_FOUND", "Cannot find package 'hnswlib-node' imported from load.js");
  await expect(loadHnswlib(missing)).rejects.toMatchObject({
    code: "MISSING_PEER",
    packageName: "hnswlib-node",
    message: expect.stringContaining("npm install hnswlib-node@3.0.0"),
  });
});

test.each([
  ["its binary is missing", undefined, "Could not locate the bindings file. Tried: build/Release/addon.node"],
  [
    "its binary is for another Node",
    "ERR_DLOPEN_FAILED",
    "The module was compiled against a different Node.js version",
  ],
  ["a package of its own is missing", "MODULE_NOT_FOUND", "Cannot find module 'bindings'"],
])("says that npm did not build it, and how, where %s", async (_, code, message) => {
  const error = await loadHnswlib(failing(code, message)).catch((caught: unknown) => caught);
  expect(error).toMatchObject({
    code: "PEER_NOT_BUILT",
    message: expect.stringMatching(/npm did not build it.*npm rebuild hnswlib-node --ignore-scripts=false/),
    cause: { message },
  });
});
