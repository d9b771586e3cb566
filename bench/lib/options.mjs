/** What all programs here are told on the command line. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

/** `--base` is required; numbers and switches of `defaults` become `--name value` and `--name`. */
export function readOptions(defaults, quick) {
  const options = { base: { type: "string" }, data: { type: "string" }, quick: { type: "boolean" } };
  for (const [name, value] of Object.entries(defaults))
    options[name] = { type: typeof value === "boolean" ? "boolean" : "string" };
  const { values } = parseArgs({ options });
  if (!values.base) throw new Error("--base <folder> is missing: a float32 directory of all-MiniLM-L6-v2.");
  const chosen = { ...defaults, ...(values.quick && quick) };
  for (const name of Object.keys(defaults)) {
    if (values[name] === undefined) continue;
    chosen[name] = typeof defaults[name] === "number" ? Number(values[name]) : values[name];
  }
  return { ...chosen, base: values.base, data: values.data };
}

/** A folder that is gone afterwards. */
export async function withFolder(work) {
  const folder = await mkdtemp(join(tmpdir(), "cde-bench-"));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}
