/** The folder of a run: what it was told, its log, and a lock; pairs, vectors and the checkpoint lie beside. */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { CorruptFileError, InvalidInputError } from "@cde-js/core";
import type { TrainingStep } from "@cde-js/core/training";
import { StorageError } from "@cde-js/retriever";
import type { TrainingPlan } from "./config.js";

/** A line of the log: of step 0 the figures before training, then one of each step. */
export interface LogLine extends Partial<TrainingStep> {
  readonly step: number;
  /** Seconds that the run had taken then, interruptions left out. */
  readonly seconds: number;
  /** Mean surrogate score of queries and other pairs' documents: higher is harder. */
  readonly difficulty?: number;
  /** Pairs of a query and another's document that could have been masked. */
  readonly candidates?: number;
  readonly pairsPerSecond?: number;
}

export interface RunState {
  readonly config: TrainingPlan;
  /** Steps of the whole run; null until they are known. */
  readonly totalSteps: number | null;
}

const FORMAT = "cde-run/1";
/** Options that may change when a run goes on. */
const FREE: ReadonlySet<string> = new Set(["$schema", "checkpoints", "export", "threads", "output"]);
/** Options that pairs on the disk are made by: before the first checkpoint all others may change. */
const OF_PAIRS: ReadonlySet<string> = new Set(["data", "faulty", "seed"]);

export class RunFolder implements AsyncDisposable {
  readonly path: string;
  readonly #lock: FileHandle;
  #log: FileHandle | undefined;
  #state: RunState;

  private constructor(path: string, lock: FileHandle, state: RunState) {
    this.path = path;
    this.#lock = lock;
    this.#state = state;
  }

  /**
   * A new run, or one that never came to a checkpoint, as after an error in its data.
   * @throws InvalidInputError where the folder holds anything else; StorageError where it can't be made
   */
  static async begin(config: TrainingPlan): Promise<RunFolder> {
    const path = config.run;
    await stored(path, () => mkdir(path, { recursive: true }));
    const names = await stored(path, () => readdir(path));
    if (names.includes("run.json")) {
      if (!existsSync(checkpointOf(path))) return RunFolder.resume(config);
      throw new InvalidInputError(
        `${path} holds a run already. Go on with it by --resume, remove the folder, or name another one with "run".`,
      );
    }
    if (names.length > 0) {
      throw new InvalidInputError(`the run's folder ${path} isn't empty. Name another one with "run", or empty it.`);
    }
    const lock = await lockOf(path);
    const folder = new RunFolder(path, lock, { config, totalSteps: null });
    await folder.#write();
    return folder;
  }

  /** @throws InvalidInputError where there is no run, or one of another configuration; CorruptFileError */
  static async resume(config: TrainingPlan): Promise<RunFolder> {
    const path = config.run;
    const place = join(path, "run.json");
    const text = await readFile(place, "utf8").catch((cause: NodeJS.ErrnoException) => {
      throw new InvalidInputError(
        `there is no run in ${path} to go on with (${cause.code}). Begin one: leave --resume out.`,
        { cause },
      );
    });
    const corrupt = (cause?: unknown) =>
      new CorruptFileError(place, `${place} isn't what cde train wrote. Remove ${path} and begin again.`, { cause });
    let json: { format?: unknown; config?: unknown; totalSteps?: unknown };
    try {
      json = JSON.parse(text) as typeof json;
    } catch (cause) {
      throw corrupt(cause);
    }
    const { format, config: before, totalSteps } = json ?? {};
    const steps = totalSteps === null || (Number.isSafeInteger(totalSteps) && (totalSteps as number) > 0);
    if (format !== FORMAT || typeof before !== "object" || before === null || !steps) throw corrupt();
    const now = JSON.parse(JSON.stringify(config)) as unknown;
    const trained = existsSync(checkpointOf(path));
    const isBound = (option: string) => (trained ? !FREE.has(option) : OF_PAIRS.has(option));
    const begun = trained || existsSync(join(path, "pairs"));
    const difference = begun ? firstDifference(before, now, "", isBound) : undefined;
    if (difference) {
      const { path: option, before: was, now } = difference;
      throw new InvalidInputError(
        `the run in ${path} was begun with ${option} ${JSON.stringify(was) ?? "left out"}, the configuration now has ${JSON.stringify(now) ?? "none"}. Put it back, remove that folder, or name another with "run".`,
      );
    }
    const folder = new RunFolder(path, await lockOf(path), { config, totalSteps: totalSteps as number | null });
    // Other batches or another budget are other steps.
    if (!trained) folder.#state = { config, totalSteps: null };
    await folder.#write();
    return folder;
  }

  get totalSteps(): number | null {
    return this.#state.totalSteps;
  }

  /** Of the whole run, once known: a run that goes on keeps it. */
  async setTotalSteps(totalSteps: number): Promise<void> {
    this.#state = { ...this.#state, totalSteps };
    await this.#write();
  }

  /** The lines up to a step; later ones, of steps that no checkpoint holds, are taken out of the file. */
  async openLog(upTo: number): Promise<LogLine[]> {
    const path = join(this.path, "log.jsonl");
    const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return "";
      throw storage(path, cause);
    });
    const lines: LogLine[] = [];
    for (const line of text.split("\n")) {
      const read = parsed(line);
      if (read === undefined || read.step > upTo) break; // the last line may have been cut by a kill
      lines.push(read);
    }
    const last = lines.at(-1)?.step ?? 0;
    if (last < upTo) {
      throw new CorruptFileError(
        path,
        `${path} ends with step ${last}, the checkpoint stands at ${upTo}. Put the log back, or remove ${this.path} and begin again.`,
      );
    }
    await writeWhole(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    this.#log = await stored(path, () => open(path, "a"));
    return lines;
  }

  /** Puts the lines on the disk: a checkpoint must not outlive those of its steps. */
  async syncLog(): Promise<void> {
    await stored(this.path, () => this.#log!.datasync());
  }

  async log(line: LogLine): Promise<void> {
    await stored(this.path, () => this.#log!.appendFile(`${JSON.stringify(line)}\n`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#log?.close();
    await this.#lock.close();
    await rm(join(this.path, LOCK), { force: true });
  }

  async #write(): Promise<void> {
    const { config, totalSteps } = this.#state;
    const json = { format: FORMAT, config, totalSteps };
    await writeWhole(join(this.path, "run.json"), `${JSON.stringify(json, null, 2)}\n`);
  }
}

const LOCK = "lock";

/** Two processes that write one run would spoil it. A lock whose process is gone is taken over. */
async function lockOf(path: string): Promise<FileHandle> {
  const place = join(path, LOCK);
  const take = async () => {
    const file = await open(place, "wx");
    await file.writeFile(String(process.pid));
    return file;
  };
  try {
    return await take();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw storage(place, cause);
  }
  const holder = Number(await readFile(place, "utf8").catch(() => ""));
  if (Number.isSafeInteger(holder) && holder > 0 && isAlive(holder)) {
    throw new StorageError(
      path,
      `another cde train (process ${holder}) is writing ${path}. Wait for it, or remove ${place} where it is none.`,
    );
  }
  return stored(place, async () => {
    await rm(place, { force: true });
    return take();
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Replaces a file in one step. */
export async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`;
  await stored(path, async () => {
    try {
      await writeFile(temporary, text, { flag: "wx" });
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  });
}

async function stored<T>(path: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (cause) {
    throw (cause as NodeJS.ErrnoException).syscall === undefined ? cause : storage(path, cause);
  }
}

function storage(path: string, cause: unknown): StorageError {
  const { message, code } = cause as NodeJS.ErrnoException;
  return new StorageError(path, `${path} can't be written: ${message}.`, { cause, errno: code });
}

function parsed(line: string): LogLine | undefined {
  try {
    const value = JSON.parse(line) as LogLine;
    return Number.isSafeInteger(value?.step) && Number.isFinite(value.seconds) ? value : undefined;
  } catch {
    return undefined; // cut by a kill
  }
}

function checkpointOf(path: string): string {
  return join(path, "checkpoint", "checkpoint.json");
}

function firstDifference(
  before: unknown,
  now: unknown,
  path: string,
  isBound: (option: string) => boolean,
): { path: string; before: unknown; now: unknown } | undefined {
  if (isDeepStrictEqual(before, now)) return undefined;
  const inner = [before, now].every((value) => typeof value === "object" && value !== null && !Array.isArray(value));
  if (!inner) return { path, before, now };
  const [a, b] = [before as Record<string, unknown>, now as Record<string, unknown>];
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (path === "" && !isBound(key)) continue;
    const found = firstDifference(a[key], b[key], path === "" ? key : `${path}.${key}`, isBound);
    if (found) return found;
  }
  return undefined;
}
