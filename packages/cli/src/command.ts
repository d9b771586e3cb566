/** What a command of `cde` is, how it reads its options, and which exit code each failure has. */
import type { ParseArgsConfig } from "node:util";
import { CdeError } from "@cde-js/core";
import type { Progress } from "./progress.js";

/** The folder of the index where none is named: below the one that the command runs in. */
export const DEFAULT_INDEX = "cde-index";

export interface Command {
  /** One line, for the list of commands. */
  readonly summary: string;
  /** All of `cde help <command>`. */
  readonly help: string;
  readonly options: NonNullable<ParseArgsConfig["options"]>;
  run(invocation: Invocation): Promise<void>;
}

export interface Invocation {
  readonly positionals: readonly string[];
  readonly options: Options;
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  readonly progress: Progress;
  /** Writes the result to stdout: `value` as one line of JSON where --json was given, else `lines`. */
  answer(value: object, lines: readonly string[]): void;
}

/** The command line itself is wrong. */
export class UsageError extends CdeError {
  constructor(message: string) {
    super("USAGE", message);
  }
}

/** The reason of the signal after Ctrl-C or SIGTERM. */
export class InterruptedError extends CdeError {
  /** What became of the work, and how to go on; where it is left out the command line says it in general. */
  readonly outcome: string | undefined;
  readonly signal: "SIGINT" | "SIGTERM";

  constructor(signal: "SIGINT" | "SIGTERM", outcome?: string) {
    super("INTERRUPTED", "interrupted");
    this.signal = signal;
    this.outcome = outcome;
  }
}

/** Codes of errors where not the input is at fault but the machine: the disk, another writer, the runtime, a server. */
const MACHINE = new Set([
  "STORAGE",
  "INDEX_LOCKED",
  "INDEX_CHANGED",
  "RUNTIME",
  "QDRANT_UNREACHABLE",
  "QDRANT_TIMEOUT",
]);

export function exitCodeOf(error: unknown): number {
  if (error instanceof InterruptedError) return error.signal === "SIGINT" ? 130 : 143;
  if (error instanceof UsageError) return 2;
  if (error instanceof CdeError) return MACHINE.has(error.code) ? 3 : 1;
  return 70;
}

export const EXIT_CODES = `Exit codes: 0 done; 1 bad input, model or index; 2 wrong command line; 3 the machine refuses (disk, another
writer, runtime, a server that can't be reached); 70 a defect of cde; 130 interrupted by Ctrl-C; 143 by SIGTERM.`;

/** The values that `parseArgs` found, read with their ranges checked. */
export class Options {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  has(name: string): boolean {
    return this.#values[name] !== undefined;
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    if (value === "") throw new UsageError(`${dashed(name)} is empty.`);
    return value as string | undefined;
  }

  /** Of an option that may be given several times. */
  texts(name: string): readonly string[] {
    const values = (this.#values[name] ?? []) as readonly string[];
    if (values.includes("")) throw new UsageError(`${dashed(name)} is empty.`);
    return values;
  }

  integer(name: string, least: number): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const number = /^\d+$/.test(value) ? Number(value) : Number.NaN;
    if (Number.isSafeInteger(number) && number >= least) return number;
    throw new UsageError(`${dashed(name)} should be an integer of at least ${least}, got ${JSON.stringify(value)}.`);
  }

  /** A number from `least` to `most`. */
  number(name: string, least: number, most: number = Number.POSITIVE_INFINITY): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const number = /^-?(\d+\.?\d*|\.\d+)(e-?\d+)?$/i.test(value) ? Number(value) : Number.NaN;
    if (number >= least && number <= most) return number;
    const range = most === Number.POSITIVE_INFINITY ? `of at least ${least}` : `from ${least} to ${most}`;
    throw new UsageError(`${dashed(name)} should be a number ${range}, got ${JSON.stringify(value)}.`);
  }

  /** One of some names. */
  choice<T extends string>(name: string, names: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value === undefined || names.includes(value as T)) return value as T | undefined;
    throw new UsageError(`${dashed(name)} should be ${names.join(" or ")}, got ${JSON.stringify(value)}.`);
  }

  /** Refuses options that contradict each other. */
  atMostOne(...names: readonly string[]): void {
    const given = names.filter((name) => this.has(name));
    if (given.length > 1) throw new UsageError(`${given.map(dashed).join(" and ")} exclude each other; give one.`);
  }
}

function dashed(name: string): string {
  return `${name.length === 1 ? "-" : "--"}${name}`;
}
