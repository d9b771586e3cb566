/** `cde recontext`: gives an index the context of the documents that it has now, or the context of before. */
import { resolve } from "node:path";
import { CorpusContext, describeCalibration, InvalidInputError } from "@cde-js/core";
import { readJsonLines } from "@cde-js/core/evaluation";
import type { ContextOutcome, JudgedQuery } from "@cde-js/retriever";
import { strengthOption } from "../build-context.js";
import { type Command, type Invocation, UsageError } from "../command.js";
import { clock } from "../printable.js";
import { openIndex } from "../settings.js";

const help = `cde recontext DIR

Chooses a new context from the documents that the index in DIR has now, and puts a new generation in the place of the
present one; until then the present one is searched. With the bundled model nothing is embedded again, unless the
strength is chosen anew. --rollback returns to the context before, with the documents of now.

  --context-size N   different passages that the context is built from, drawn with equal chance [512]
  --seed N           seed of the draw, and of the queries by which a strength is chosen [0]
  --strength S       of a spectral context: off, A,S,B such as 0.35,0.3,0.5, or auto, which chooses it for the corpus as
                     it is now and embeds at most 1,000 short texts [that of now]
  --context FILE     use this context, written by "cde context build"
  --rollback         return to the context before the last recontext
  --judged FILE      JSONL of {"query": ..., "relevant": {"document id": grade}}: reports nDCG@10 before and after
  --model DIR        the model, where it has moved since the index was built
`;

export const recontext: Command = {
  summary: "DIR [--rollback]: give an index the context of its present documents",
  help,
  options: {
    "context-size": { type: "string" },
    seed: { type: "string" },
    strength: { type: "string" },
    context: { type: "string" },
    rollback: { type: "boolean" },
    judged: { type: "string" },
    model: { type: "string" },
  },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { options, positionals, progress, signal } = invocation;
  const [given, ...more] = positionals;
  if (given === undefined || more.length > 0) throw new UsageError("recontext takes the folder of one index.");
  for (const name of ["context-size", "seed", "strength"]) options.atMostOne("context", "rollback", name);
  options.atMostOne("rollback", "judged");
  const directory = resolve(given);
  const contextSize = options.integer("context-size", 1);
  const seed = options.integer("seed", 0);
  const strength = strengthOption(invocation);
  const file = options.text("context");
  const context = file === undefined ? undefined : await CorpusContext.load(file);
  const judgedFile = options.text("judged");
  const judged = judgedFile === undefined ? undefined : await readJudged(judgedFile);
  await using opened = await openIndex(directory, invocation);
  const { index } = opened;
  const common = {
    signal,
    onProgress: ({ embedded, fraction }: { embedded: number; fraction: number | undefined }) =>
      progress.update("embedding", {
        done: embedded,
        noun: "passage",
        ...(fraction === undefined ? {} : { fraction }),
      }),
  };
  const report = options.flag("rollback")
    ? await index.rollback(common)
    : await index.recontext({
        ...common,
        ...(contextSize === undefined ? {} : { contextSize }),
        ...(seed === undefined ? {} : { seed }),
        ...(strength === undefined ? {} : { strength }),
        ...(context && { context }),
        ...(judged && { judged }),
      });
  const { before, after, embedded, seconds } = report;
  const size = index.context?.size ?? null;
  invocation.answer({ directory, before, after, contextSize: size, embedded, seconds }, [
    `${directory}: ${line(before)} before, ${line(after)} now, in ${clock(seconds)}` +
      (embedded ? "" : "; nothing was embedded"),
    ...(index.context?.calibration && strength === "auto" ? [describeCalibration(index.context.calibration)] : []),
    ...(options.flag("rollback") ? [] : [`cde recontext ${given} --rollback returns`]),
  ]);
}

function line({ fingerprint, ndcg10 }: ContextOutcome): string {
  const quality = ndcg10 === undefined ? "" : ` (nDCG@10 ${(100 * ndcg10).toFixed(1)})`;
  return `context ${fingerprint.slice(0, 12)}${quality}`;
}

async function readJudged(path: string): Promise<JudgedQuery[]> {
  const judged: JudgedQuery[] = [];
  for await (const { line, value } of readJsonLines(path)) {
    const { query, relevant } = Object(value) as Partial<JudgedQuery>;
    const grades = typeof relevant === "object" && relevant !== null ? Object.values(relevant) : [undefined];
    if (typeof query !== "string" || query.trim() === "" || !grades.every(Number.isSafeInteger)) {
      throw new InvalidInputError(
        `${path}, line ${line}: expected {"query": ..., "relevant": {"document id": grade}}.`,
      );
    }
    judged.push({ query, relevant: relevant as JudgedQuery["relevant"] });
  }
  if (judged.length === 0) throw new InvalidInputError(`${path}: there are no judged queries in it.`);
  return judged;
}
