/** Without the client installed, the adapter says which package is missing, and `cde` too. */
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

const hooks = `export async function resolve(specifier, context, next) {
  if (specifier === "@qdrant/js-client-rest") throw Object.assign(new Error("not installed"), { code: "ERR_MODULE_NOT_FOUND" });
  return next(specifier, context);
}`;
const register = `import { register } from "node:module"; register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hooks)}`)});`;

test("an adapter without its peer loads, and fails by name when it is used", () => {
  const program = `
    import { QdrantIndex } from "@cde-js/adapters/qdrant";
    const error = await QdrantIndex.open({}, { collection: "c" }).catch((reason) => reason);
    process.stdout.write(JSON.stringify({ code: error.code, packageName: error.packageName, message: error.message }));`;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ["--import", `data:text/javascript,${encodeURIComponent(register)}`, "--input-type=module", "--eval", program],
    { encoding: "utf8", cwd: new URL("../..", import.meta.url) },
  );
  expect(JSON.parse(stdout || JSON.stringify(stderr))).toEqual({
    code: "MISSING_PEER",
    packageName: "@qdrant/js-client-rest",
    message: expect.stringMatching(/npm install @qdrant\/js-client-rest.*or pass your own client as \{ client \}/),
  });
});
