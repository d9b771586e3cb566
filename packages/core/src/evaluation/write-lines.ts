/** Writes text files wholly or not at all: beside their place first, then moved there. */
import { randomBytes } from "node:crypto";
import { rename, rm, writeFile } from "node:fs/promises";
import { RuntimeFailureError } from "../errors.js";

/** @throws RuntimeFailureError where the disk fails, and what `lines` throws; nothing is left behind then */
export async function writeLines(operation: string, path: string, lines: () => Iterable<string>): Promise<void> {
  const temporary = `${path}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
  try {
    await writeFile(temporary, lines(), { flag: "wx" });
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    if (cause instanceof Error && "syscall" in cause)
      throw new RuntimeFailureError(`${operation}: can't write ${path}: ${cause.message}`, { cause });
    throw cause;
  }
}
