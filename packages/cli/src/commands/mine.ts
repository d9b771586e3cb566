/** `cde mine`: adds hard negatives to pairs, documents near a query that are none of its positives. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { InvalidInputError } from "@cde-js/core";
import { type Command, type Invocation, UsageError } from "../command.js";
import { corpusOf } from "../evaluate/corpora.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { clock, counted, grouped } from "../printable.js";
import { openWork, WORK_HELP, WORK_OPTIONS } from "../train/work-folder.js";

const help = `cde mine PAIRS ... --out FILE.jsonl

Writes the pairs with hard negatives: for each query the nearest texts that are none of its positives and score clearly
below its own. PAIRS are .jsonl, .csv or .tsv files, or folders in BEIR's layout (their training split); the result is
data for "cde train". The search is exact. A run that was interrupted goes on when the same command is given again.

  --out FILE         where the pairs are written
  --negatives N      new hard negatives of a pair at most [5]
  --from N, --to N   which of the nearest may be taken, counted from 0, positives left out [0 to 100]
  --relative-margin X  a negative scores at most 1 - X times the positive; "none" for no such rule [0.05]
  --absolute-margin X  a negative scores at most the positive less X [no such rule]
  --min-score X, --max-score X  bounds of a negative's cosine [none]
  --sampling NAME    top: the nearest of what the rules leave; random: any of it [top]
  --corpus PATH      search these documents instead of the pairs' positives: a folder, .jsonl or BEIR folder
  ${MODEL_HELP}
  ${WORK_HELP}
`;

export const mine: Command = {
  summary: "PAIRS ... --out FILE.jsonl: add hard negatives to training pairs",
  help,
  options: {
    out: { type: "string" },
    negatives: { type: "string" },
    from: { type: "string" },
    to: { type: "string" },
    "relative-margin": { type: "string" },
    "absolute-margin": { type: "string" },
    "min-score": { type: "string" },
    "max-score": { type: "string" },
    sampling: { type: "string" },
    corpus: { type: "string" },
    model: { type: "string" },
    ...WORK_OPTIONS,
  },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { options, progress, signal } = invocation;
  const start = performance.now();
  const out = options.text("out");
  if (out === undefined) throw new UsageError("--out is missing: the file that the pairs are written to.");
  const [negatives, seed] = [options.integer("negatives", 1), options.integer("seed", 0)];
  const ranks = { from: options.integer("from", 0) ?? 0, to: options.integer("to", 1) ?? 100 };
  if (ranks.from >= ranks.to) throw new UsageError(`--from ${ranks.from} should be below --to ${ranks.to}.`);
  const relative =
    options.text("relative-margin") === "none" ? (false as const) : options.number("relative-margin", 0, 1);
  const absolute = options.number("absolute-margin", 0, 2);
  const [least, most] = [options.number("min-score", -1, 1), options.number("max-score", -1, 1)];
  const sampling = options.choice("sampling", ["top", "random"]);
  const corpus = options.text("corpus");
  if (existsSync(out)) throw new InvalidInputError(`${out} is there already. Choose another file, or remove it.`);
  // Loaded here, so that commands that don't train start without it.
  const { mineHardNegatives } = await import("@cde-js/core/training");
  const work = await openWork(out, invocation);
  await using pairs = work.pairs;
  await using encoder = await loadEncoder(modelOption(invocation), invocation);
  const report = await mineHardNegatives(pairs, resolve(out), {
    surrogate: encoder.withoutContext(),
    cache: work.cache,
    ranks,
    ...(negatives !== undefined && { negatives }),
    ...(relative !== undefined && { relativeMargin: relative }),
    ...(absolute !== undefined && { absoluteMargin: absolute }),
    ...(least !== undefined && { minScore: least }),
    ...(most !== undefined && { maxScore: most }),
    ...(sampling && { sampling }),
    ...(seed !== undefined && { seed }),
    ...(corpus !== undefined && { corpus: textsOf(corpus, signal) }),
    signal,
    onProgress: ({ phase, done, total }) =>
      progress.update(phase, { done, total, noun: phase === "embedding" ? "document" : "pair" }),
  });
  await work.finish();
  const seconds = (performance.now() - start) / 1000;
  invocation.answer({ out: resolve(out), ...report, seconds }, [
    `${counted(report.mined, "hard negative")} for ${counted(report.pairs, "pair")}, of ${counted(report.documents, "document")}, in ${clock(seconds)}: ${resolve(out)}`,
    `mean cosine to the query: negatives ${report.meanNegativeScore.toFixed(3)}, positives ${report.meanPositiveScore.toFixed(3)}`,
    `${grouped(report.pairsWithout)} pairs without; ${grouped(report.refused)} candidates refused by margins and bounds`,
    ...(report.resumedFrom > 0 ? [`went on behind ${counted(report.resumedFrom, "pair")} of an earlier run`] : []),
  ]);
}

async function* textsOf(path: string, signal: AbortSignal): AsyncGenerator<string> {
  for await (const { document } of corpusOf([path], signal).read()) {
    yield document.title === undefined ? document.text : `${document.title} ${document.text}`;
  }
}
