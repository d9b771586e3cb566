/** `cde doctor`: what of this machine stands in the way, and the command that mends it. */
import { availableParallelism, freemem, totalmem } from "node:os";
import {
  type Check,
  checkCache,
  checkHnsw,
  checkMachine,
  checkModel,
  checkNode,
  checkOffline,
  checkPlatform,
  checkRuntime,
} from "../checks.js";
import type { Command, Invocation } from "../command.js";
import { UsageError } from "../command.js";
import { modelOption } from "../model.js";

const help = `cde doctor [--model DIR]

Looks at what cde needs: platform, Node, ONNX Runtime's native library and its providers, the model (it embeds three texts
with it), hnswlib-node, the folder that downloaded models are kept in, and what works without a network. For everything
that is wrong it says so and gives the command that mends it. It changes nothing.

  --model NAME       look at this model's directory or repository of the Hugging Face hub [the bundled model]

Ends with 0 where everything works that has to, with 3 where something does not.
`;

export const doctor: Command = {
  summary: "what is wrong with this machine, and the command that mends it",
  help,
  options: { model: { type: "string" } },
  run,
};

const SIGNS = { ok: "ok     ", note: "note   ", warning: "warning", fault: "FAULT  " } as const;

async function run(invocation: Invocation): Promise<void> {
  const { positionals, signal } = invocation;
  if (positionals.length > 0) throw new UsageError("doctor takes no arguments but options.");
  const model = modelOption(invocation);
  const checks: Check[] = [];
  for (const check of [
    () => checkPlatform(process.platform, process.arch, glibcVersion()),
    () => checkNode(process.versions.node),
    () => checkMachine(availableParallelism(), totalmem(), freemem()),
    () => checkRuntime(),
    () => checkModel(model, signal),
    () => checkHnsw(),
    () => checkCache(),
    () => checkOffline(model),
  ]) {
    signal.throwIfAborted();
    checks.push(await check());
  }
  const faults = checks.filter(({ status }) => status === "fault").length;
  invocation.answer({ healthy: faults === 0, checks }, [
    ...checks.flatMap(({ name, status, finding, command }) => [
      `${SIGNS[status]}  ${name}: ${finding}`,
      ...(command === undefined ? [] : [`           ${status === "note" ? "if you want it" : "mend it"}: ${command}`]),
    ]),
    faults === 0 ? "everything works that has to" : `${faults} of ${checks.length} checks found a fault`,
  ]);
  // The answer is complete, so this is no error to report.
  if (faults > 0) process.exitCode = 3;
}

/** Undefined on musl (Alpine) and on platforms without glibc. */
function glibcVersion(): string | undefined {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return report?.header?.glibcVersionRuntime;
}
