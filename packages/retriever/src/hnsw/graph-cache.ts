/**
 * A graph in a file, so that it isn't built at every start: `<path>` as hnswlib writes it and `<path>.json`, which says
 * which rows it is of. It is a cache: what doesn't match is built anew, and no answer ever depends on trusting it.
 */
import { createHash, randomUUID } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { endianness } from "node:os";
import { basename, dirname, join } from "node:path";
import type { GraphOptions } from "./protocol.js";

export interface CachedGraph {
  /** Rows that the graph holds, with labels 0 to rows - 1. */
  readonly rows: number;
  /** sha256 of labels and vectors of these rows, in order. */
  readonly digest: string;
  readonly bytes: number;
  /** sha256 of the graph's file. */
  readonly checksum: string;
}

const FORMAT = "cde-hnsw/1";
const BLOCK = 2 ** 20;
const MAX_MANIFEST = 65_536;

/** What the manifest says, or why there is none that can be used. */
export function readGraphManifest(path: string, options: GraphOptions): CachedGraph | string {
  let found: Record<string, unknown>;
  try {
    const { size } = requireFile(`${path}.json`);
    if (size > MAX_MANIFEST) return "its manifest is too large to be one";
    found = Object(JSON.parse(readFileSync(`${path}.json`, "utf8")));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === "ENOENT" ? "there is none" : `its manifest can't be read: ${message}`;
  }
  for (const [name, own] of Object.entries(identityOf(options))) {
    if (found[name] !== own) return `its ${name} is ${JSON.stringify(found[name])}, expected ${JSON.stringify(own)}`;
  }
  const { rows, digest, bytes, checksum } = found as { [Key in keyof CachedGraph]?: unknown };
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
  const isDigest = (value: unknown): value is string => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
  if (!isCount(rows) || !isCount(bytes) || !isDigest(digest) || !isDigest(checksum)) {
    return "its manifest does not describe a graph";
  }
  return { rows, digest, bytes, checksum };
}

/** Why the file isn't the one that the manifest describes; undefined where it is. */
export function cachedFileFault(path: string, { bytes, checksum }: CachedGraph): string | undefined {
  const { size } = requireFile(path);
  if (size !== bytes) return `has ${size} bytes, its manifest says ${bytes}`;
  return checksumOf(path) === checksum ? undefined : "does not match the checksum of its manifest";
}

/** Writes graph and manifest, each wholly or not at all; a crash in between leaves a pair that doesn't match. */
export function writeGraphCache(
  path: string,
  options: GraphOptions,
  rows: { readonly count: number; readonly digest: string },
  write: (path: string) => void,
): void {
  removeLeftovers(path);
  const temporary = `${path}.${process.pid}-${randomUUID()}.tmp`;
  try {
    write(temporary);
    synced(temporary, "r+", () => {});
    const { size: bytes } = requireFile(temporary);
    const manifest = {
      ...identityOf(options),
      rows: rows.count,
      digest: rows.digest,
      bytes,
      checksum: checksumOf(temporary),
    };
    renameSync(temporary, path);
    synced(temporary, "wx", (file) => writeSync(file, `${JSON.stringify(manifest, null, 2)}\n`));
    renameSync(temporary, `${path}.json`);
  } finally {
    rmSync(temporary, { force: true });
  }
}

function identityOf({ dimensions, m, efConstruction, seed }: GraphOptions): Record<string, unknown> {
  // hnswlib writes its structures as they lie in memory.
  const machine = `${process.arch} ${endianness()}`;
  return { format: FORMAT, space: "ip", machine, dimensions, m, efConstruction, seed };
}

function requireFile(path: string): { size: number } {
  const found = lstatSync(path);
  if (!found.isFile()) throw new Error(`${path} is not a regular file`);
  return found;
}

function checksumOf(path: string): string {
  const hash = createHash("sha256");
  const block = Buffer.allocUnsafeSlow(BLOCK);
  const file = openSync(path, "r");
  try {
    for (let read = 1; read > 0; ) {
      read = readSync(file, block);
      hash.update(block.subarray(0, read));
    }
  } finally {
    closeSync(file);
  }
  return hash.digest("hex");
}

function synced(path: string, flags: string, work: (file: number) => void): void {
  const file = openSync(path, flags);
  try {
    work(file);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Files of writers that ended in the middle. */
function removeLeftovers(path: string): void {
  const own = `${basename(path)}.`;
  for (const name of readdirSync(dirname(path))) {
    const pid = name.startsWith(own) ? /^(\d+)-[0-9a-f-]{36}\.tmp$/.exec(name.slice(own.length))?.[1] : undefined;
    if (pid !== undefined && !isAlive(Number(pid))) rmSync(join(dirname(path), name), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
