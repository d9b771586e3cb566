#!/usr/bin/env node
/** The `cde` command: finds the command, runs it, and turns every failure into one line and an exit code. */
import { readFileSync } from "node:fs";
import { type ParseArgsConfig, parseArgs } from "node:util";
import { CdeError } from "@cde-js/core";
import { type Command, EXIT_CODES, exitCodeOf, InterruptedError, Options, UsageError } from "./command.js";
import { adapt } from "./commands/adapt.js";
import { cluster } from "./commands/cluster.js";
import { context } from "./commands/context.js";
import { doctor } from "./commands/doctor.js";
import { drift } from "./commands/drift.js";
import { embed } from "./commands/embed.js";
import { evaluate } from "./commands/evaluate.js";
import { index } from "./commands/index.js";
import { mine } from "./commands/mine.js";
import { recontext } from "./commands/recontext.js";
import { search } from "./commands/search.js";
import { serve } from "./commands/serve.js";
import { train } from "./commands/train.js";
import { oneLine } from "./printable.js";
import { Progress } from "./progress.js";

const commands: ReadonlyMap<string, Command> = new Map(
  Object.entries({
    ...{ index, search, serve, context, drift, recontext, embed, evaluate },
    ...{ train, adapt, mine, cluster, doctor },
  }),
);

const COMMON = {
  json: { type: "boolean" },
  verbose: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const satisfies ParseArgsConfig["options"];

const OVERVIEW = `cde: search your documents by meaning, offline, with vectors that know the corpus

${[...commands].map(([name, { summary }]) => `  cde ${name.padEnd(9)} ${summary}`).join("\n")}
  cde help [command]
  cde --version

Every command takes --json (the result as one line of JSON on stdout; progress and errors go to stderr), --verbose (the
stack trace of an error) and --help.

${EXIT_CODES}
`;

async function main(args: readonly string[]): Promise<void> {
  const [name, ...rest] = args;
  if (name === "--version") {
    const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
      version: string;
    };
    process.stdout.write(`${version}\n`);
    return;
  }
  if (name === undefined) throw new UsageError("no command is given.");
  if (name === "help" || name === "--help" || name === "-h") {
    process.stdout.write(rest[0] === undefined ? OVERVIEW : commandNamed(rest[0]).help);
    return;
  }
  const command = commandNamed(name);
  const { values, positionals } = parse(rest, command);
  if (values.help === true) {
    process.stdout.write(command.help);
    return;
  }
  const stop = new AbortController();
  const interrupts = (["SIGINT", "SIGTERM"] as const).map((signal) => {
    // The second Ctrl-C finds the default again: it ends the process at once.
    const listener = () => stop.abort(new InterruptedError(signal));
    process.once(signal, listener);
    return { signal, listener };
  });
  const progress = new Progress(process.stderr);
  try {
    await command.run({
      positionals,
      options: new Options(values),
      signal: stop.signal,
      progress,
      answer(value, lines) {
        progress.end();
        process.stdout.write(`${values.json === true ? JSON.stringify(value) : lines.map(oneLine).join("\n")}\n`);
      },
    });
  } catch (error) {
    progress.clear();
    if (error instanceof InterruptedError) throw error;
    // Whatever broke off first (a stream, a worker), the interruption is why.
    throw stop.signal.aborted ? stop.signal.reason : error;
  } finally {
    for (const { signal, listener } of interrupts) process.off(signal, listener);
  }
}

function commandNamed(name: string): Command {
  const command = commands.get(name);
  if (command) return command;
  throw new UsageError(`there is no command ${JSON.stringify(name)}; there are ${[...commands.keys()].join(", ")}.`);
}

function parse(args: string[], command: Command): { values: Record<string, unknown>; positionals: string[] } {
  try {
    const options = { ...command.options, ...COMMON };
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    // Its messages go on with advice over several lines.
    const [message = ""] = (error as Error).message.split(/\.\s/);
    throw new UsageError(`${message.replace(/\.$/, "")}.`);
  }
}

/** What an interrupted command leaves. */
const KEPT = new Map([
  ["index", " An index that was there is whole, and what was embedded is kept: the same command goes on with it."],
  ["embed", " What was written stays, and is not embedded again."],
  ["recontext", " The index is as it was, and what was embedded is kept: the same command goes on with it."],
]);

function report(error: unknown, args: readonly string[]): void {
  const message = error instanceof Error ? error.message : String(error);
  const lines = [];
  if (error instanceof InterruptedError) {
    const command = args.map((arg) => (/^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`));
    const again = `${KEPT.get(args[0] ?? "") ?? ""} Run it again with: cde ${command.join(" ")}`;
    lines.push(`interrupted.${error.outcome === undefined ? again : ` ${error.outcome}`}`);
  } else if (error instanceof UsageError) {
    const about = commands.has(args[0] ?? "") ? ` ${args[0]}` : "";
    lines.push(`${message} See: cde help${about}`);
  } else if (error instanceof CdeError) {
    lines.push(message);
  } else {
    lines.push(`a defect of cde: ${message}. Please report it with what --verbose shows.`);
  }
  process.stderr.write(`cde: ${lines.map(oneLine).join(" ")}\n`);
  if (!args.includes("--verbose")) return;
  for (let cause = error; cause instanceof Error; cause = cause.cause) process.stderr.write(`${cause.stack}\n`);
}

// A reader such as `head` that has seen enough is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

const args = process.argv.slice(2);
try {
  await main(args);
} catch (error) {
  report(error, args);
  process.exitCode = exitCodeOf(error);
}
