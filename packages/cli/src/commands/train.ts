/** `cde train`: fine-tunes a model from a configuration, and goes on with a run that was interrupted. */
import { type Command, type Invocation, UsageError } from "../command.js";
import { clock, counted, grouped } from "../printable.js";
import type { RunOutcome } from "../train/run.js";

const help = `cde train CONFIG.json [--resume]

Fine-tunes a model on pairs of a query and the text that answers it, on this machine's processor, and writes a model
directory that "cde index --model DIR" takes. The smallest configuration, with paths relative to its file:

  { "data": [{ "jsonl": "pairs.jsonl" }], "output": "models/mine" }

where a line of pairs.jsonl is {"query": ..., "positive": ...}. Every option, its default and the paper's section:
docs/training.md; for editors that know JSON Schema: "$schema": "node_modules/cde-js/train.schema.json".

A part of the pairs is split off and measured before, during and after; the best weights are written. Beside the output
stands the run's folder with checkpoints, log.jsonl (every step) and report.html (curves).

Ctrl-C finishes the step, saves, and says how to go on.

  --resume           go on with the run of this configuration
`;

export const train: Command = {
  summary: "CONFIG.json [--resume]: fine-tune a model on pairs of your own",
  help,
  options: { resume: { type: "boolean" } },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { positionals, options } = invocation;
  const [path, ...more] = positionals;
  if (path === undefined) throw new UsageError("the configuration is missing.");
  if (more.length > 0) throw new UsageError("more than one configuration is given; a run has one.");
  // Loaded here, so that commands that don't train start without it.
  const { readTrainConfig } = await import("../train/config.js");
  const { runTraining } = await import("../train/run.js");
  const plan = await readTrainConfig(path);
  const resumeBy = `cde train --resume ${quoted(path)}`;
  const outcome = await runTraining(plan, { resume: options.flag("resume"), resumeBy }, invocation);
  invocation.answer(outcome, outcomeLines(outcome));
}

/** For a shell. */
export function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}

/** What a run came to, for a person. */
export function outcomeLines(outcome: RunOutcome): string[] {
  const { steps, pairs, devPairs, seconds, ended, figures, dev, forgetting, notes, output, report } = outcome;
  const why = { complete: "", patience: ", ended early: no new best", time: ", the time is used up" }[ended];
  const points = (value: number) => (100 * value).toFixed(1);
  const lines = [
    `trained ${counted(steps, "step")} on ${counted(pairs, "pair")} in ${clock(seconds)}${why}: ${output}`,
  ];
  if (figures) {
    const { metric, before, exported, exportedStep, last } = figures;
    const after = exported ?? last;
    lines.push(
      `${metric}: ${points(before[metric]!)} before, ${points(after[metric]!)} after (step ${grouped(exportedStep)}); ${devPairs > 0 ? `${counted(devPairs, "pair")} not trained on` : dev}`,
    );
  }
  if (forgetting) {
    const { drift, paraphrasesFound: found } = forgetting;
    lines.push(
      `general sentences: similarities moved by ${drift.toFixed(3)}, paraphrases found ${points(found.base)} before, ${points(found.now)} after the last step`,
    );
  }
  return [
    ...lines,
    ...notes.map((note) => `NOTE: ${note}`),
    `report: ${report}`,
    `use it: cde index --model ${quoted(output)} DOCUMENTS`,
  ];
}
