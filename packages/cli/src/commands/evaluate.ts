/** `cde evaluate`: which way of searching is best on a corpus, with intervals and a report to read. */
import { existsSync } from "node:fs";
import { basename, dirname, extname, resolve } from "node:path";
import {
  type ContextualEncoder,
  type CorpusContext,
  type Embedder,
  InvalidInputError,
  MissingFileError,
  NoNullContextError,
} from "@cde-js/core";
import {
  type Comparison,
  compareSystems,
  type DataSet,
  DEFAULT_METRICS,
  evaluateRun,
  type MetricName,
  missingDocuments,
  type Slice,
  writeBeirRun,
  writeReport,
  writeTrecRun,
} from "@cde-js/core/evaluation";
import { CONTEXT_HELP, CONTEXT_OPTIONS, surveyCorpus } from "../build-context.js";
import { type Command, type Invocation, UsageError } from "../command.js";
import { corpusFrom, corpusOf, dataSetOf } from "../evaluate/corpora.js";
import { embedOnce } from "../evaluate/embed-once.js";
import { loadReranker } from "../evaluate/reranker.js";
import { namedSystems, needsContext, runSystems, SYSTEM_NAMES, type SystemName } from "../evaluate/systems.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { clock, counted } from "../printable.js";

const help = `cde evaluate <BEIR folder> [--split dev] [--html FILE]
cde evaluate --no-qrels <folder | file> ... [--html FILE]

Searches a corpus in several ways and says how good each is, with the difference to the base model and its 95 %
interval. A BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv, each plain or .gz. Documents are split
into passages as "cde index" does, and rank by their best one.

With --no-qrels, for people without judgements, the documents are those of "cde index", and each query is one sentence
taken out of a document, which has to find the rest of it. Such figures compare systems; they are not the quality that
people would see.

  --split NAME         the judgements to use [test]
  --systems A,B        of ${SYSTEM_NAMES.join(", ")} [all that can be had, without hybrid-base]
  --wrong-corpus PATH  a BEIR folder, folder or file whose context is the control "wrong-context"
  --rerank FILE        an ES module that exports (query, hits) => scores: adds the system "rerank"
  --metrics A,B        ndcg@k, mrr@k, recall@k, precision@k, success@k, map@k [${DEFAULT_METRICS.join(",")}]
  --against NAME       the system that others are compared with [base, else the first]
  --queries N          a random sample of N queries [all; 300 with --no-qrels]
  --html FILE          a report: plots, and the queries won and lost with their texts
  --run FILE           the rankings, in TREC's format, or as BEIR's JSON where FILE ends in .json; of several systems
                       each has a file of its own, run.NAME.trec
  ${CONTEXT_HELP}
  ${MODEL_HELP}
`;

export const evaluate: Command = {
  summary: "BEIR-FOLDER | --no-qrels DOCUMENTS: measure what context brings on a corpus",
  help,
  options: {
    split: { type: "string" },
    systems: { type: "string" },
    "wrong-corpus": { type: "string" },
    rerank: { type: "string" },
    metrics: { type: "string" },
    against: { type: "string" },
    queries: { type: "string" },
    html: { type: "string" },
    run: { type: "string" },
    "no-qrels": { type: "boolean" },
    ...CONTEXT_OPTIONS,
    model: { type: "string" },
  },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { options, progress, signal } = invocation;
  const start = performance.now();
  const metrics = metricsOf(options.text("metrics"));
  // What the command line alone can get wrong is said before anything is read.
  referenceOf(namedSystems(invocation, { base: true }), invocation);
  const [reportFile, runFile] = [options.text("html"), options.text("run")];
  for (const file of [reportFile, runFile]) if (file !== undefined) requireFolder(file);
  const rerankFile = options.text("rerank");
  const rerank = rerankFile === undefined ? undefined : await loadReranker(rerankFile);
  const wrongPath = options.text("wrong-corpus");
  const seed = options.integer("seed", 0) ?? 0;
  const dataSet = await dataSetOf(invocation);
  if (runFile !== undefined) requireIds(runFile, dataSet);
  const missing = missingDocuments(dataSet);
  await using encoder = await loadEncoder(modelOption(invocation), invocation);
  const base = baseOf(encoder);
  const wanted = namedSystems(invocation, { base: base !== undefined });
  if (!base) progress.note(`${encoder.modelId} has no form without context: there is no system "base"`);
  const against = referenceOf(wanted, invocation);

  const contextFrom = async (corpus: Parameters<typeof surveyCorpus>[1]) =>
    (await surveyCorpus(encoder, corpus, { wanted: true, invocation })).context;
  const wrongContext = wrongPath === undefined ? undefined : await contextFrom(corpusOf([wrongPath], signal));
  const context = needsContext(wanted) ? await contextFrom(corpusFrom(dataSet.documents)) : undefined;

  const systems = await runSystems(
    { wanted, encoder, base, context, wrongContext, rerank, dataSet, invocation },
    metrics,
  );
  progress.update("comparing", { done: systems.length, noun: "system" });
  const comparison = compareSystems(systems, { base: against, metrics, seed });
  const contextText = context && describeContext(context);
  const wrongName = wrongPath && basename(resolve(wrongPath));
  const runs = runFile === undefined ? {} : await writeRuns(runFile, comparison);
  if (reportFile !== undefined) {
    await writeReport(resolve(reportFile), dataSet, comparison, {
      facts: {
        Model: encoder.modelId,
        ...(contextText && { Context: contextText }),
        ...(wrongName && { "Wrong context": wrongName }),
      },
      ...(against !== "context" && wanted.includes("context") ? { focus: "context" } : {}),
    });
  }
  const seconds = (performance.now() - start) / 1000;
  const html = reportFile === undefined ? null : resolve(reportFile);
  invocation.answer(
    {
      dataSet: { ...summaryOf(dataSet), missingDocuments: missing },
      synthetic: dataSet.synthetic ?? null,
      modelId: encoder.modelId,
      context: contextSummary(context),
      wrongContext: wrongContext ? { corpus: wrongPath, ...contextSummary(wrongContext) } : null,
      seed,
      ...asJson(comparison),
      html,
      runs,
      seconds,
    },
    [
      `${dataSet.name}, ${dataSet.split}: ${counted(dataSet.queries.length, "query")}, ${counted(dataSet.documents.length, "document")}`,
      `model ${encoder.modelId}${contextText ? `, context of ${contextText}` : ""}${wrongName ? `, wrong context of ${wrongName}` : ""}`,
      ...(dataSet.synthetic === undefined ? [] : [`NOTE: ${dataSet.synthetic}`]),
      ...(missing.length === 0
        ? []
        : [`NOTE: ${counted(missing.length, "judged document")} missing from the corpus count as not found`]),
      "",
      ...table(comparison),
      "",
      `Figures x 100; in brackets the 95 % interval of the difference to ${against} (paired bootstrap), * where it excludes 0.`,
      ...(html === null ? [] : [`report: ${html}`]),
      ...Object.values(runs).map((file) => `run: ${file}`),
      `done in ${clock(seconds)}`,
    ],
  );
}

function metricsOf(list: string | undefined): readonly MetricName[] {
  if (list === undefined) return DEFAULT_METRICS;
  const metrics = list.split(",").map((name) => name.trim() as MetricName);
  // Its own check, and no other knows the names.
  evaluateRun(new Map([["", new Map()]]), new Map(), metrics);
  const twice = metrics.find((name, i) => metrics.indexOf(name) !== i);
  if (twice !== undefined) throw new UsageError(`--metrics names ${twice} twice.`);
  return metrics;
}

/** The system that the others are compared with. */
function referenceOf(wanted: readonly SystemName[], { options }: Invocation): SystemName {
  const asked = options.text("against");
  const found = wanted.find((name) => name === (asked ?? "base")) ?? (asked === undefined ? wanted[0] : undefined);
  if (found !== undefined) return found;
  throw new UsageError(`--against is ${JSON.stringify(asked)}, which is none of ${wanted.join(", ")}.`);
}

/** Without context, or undefined where the model has no such form. */
function baseOf(encoder: ContextualEncoder): Embedder | undefined {
  try {
    return embedOnce(encoder.withoutContext());
  } catch (error) {
    if (error instanceof NoNullContextError) return undefined;
    throw error;
  }
}

/** Before the work: nothing could be written to it afterwards. */
function requireFolder(file: string): void {
  const folder = dirname(resolve(file));
  if (!existsSync(folder)) throw new MissingFileError(folder, `there is no folder ${folder} to write ${file} to.`);
}

/** Before the work: TREC's format parts its fields by white space, and file names may hold some. */
function requireIds(file: string, { documents, queries }: DataSet): void {
  if (isJson(file)) return;
  const found = [...documents, ...queries].find(({ id }) => /\s/.test(id));
  if (found)
    throw new InvalidInputError(
      `--run ${file}: TREC's format can't carry the id ${JSON.stringify(found.id)}, which has white space. Write BEIR's JSON: --run FILE.json.`,
    );
}

function isJson(file: string): boolean {
  return extname(file).toLowerCase() === ".json";
}

/** One file a system; the name of the only one stays as it is. */
async function writeRuns(file: string, { systems }: Comparison): Promise<Record<string, string>> {
  const extension = extname(file);
  const stem = file.slice(0, file.length - extension.length);
  const written: Record<string, string> = {};
  for (const { name, result } of systems) {
    const path = resolve(systems.length === 1 ? file : `${stem}.${name}${extension}`);
    if (isJson(file)) await writeBeirRun(path, result.run);
    else await writeTrecRun(path, result.run, { tag: name });
    written[name] = path;
  }
  return written;
}

function summaryOf({ name, split, documents, queries }: DataSet) {
  return { name, split, documents: documents.length, queries: queries.length };
}

function describeContext({ size, identity: { strength } }: CorpusContext): string {
  const passages = counted(size, "passage");
  if (strength === null) return passages;
  return `${passages}, strength ${strength === "off" ? "off" : `a ${strength.a}, s ${strength.s}, b ${strength.b}`}`;
}

function contextSummary(context: CorpusContext | undefined) {
  if (!context) return null;
  const { size, stage, fingerprint, identity } = context;
  return { size, stage, fingerprint, strength: identity.strength };
}

function asJson({ base, metrics, systems }: Comparison) {
  const slices = (of: readonly Slice[]) => of.map(({ queries, ...slice }) => ({ ...slice, queries: queries.length }));
  return {
    base,
    metrics,
    systems: systems.map(({ name, description, result, against }) => ({
      name,
      description,
      mean: result.mean,
      against: against ?? null,
      slices: {
        queryLength: slices(result.slices.queryLength),
        documentLength: slices(result.slices.documentLength),
      },
      perQuery: Object.fromEntries(result.perQuery),
    })),
  };
}

function table<M extends MetricName>({ metrics, systems }: Comparison<M>): string[] {
  const rows = systems.map(({ name, result, against }) => [
    name,
    ...metrics.map((metric) => {
      const mean = (100 * result.mean[metric]).toFixed(1).padStart(5);
      if (!against) return mean;
      const { difference, interval } = against[metric];
      const [from, to] = interval;
      const sign = (value: number) => `${value < 0 ? "" : "+"}${(100 * value).toFixed(1)}`;
      return `${mean} ${sign(difference)} (${sign(from)} to ${sign(to)})${from > 0 || to < 0 ? "*" : ""}`;
    }),
  ]);
  const lines = [["", ...metrics], ...rows];
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join("  ")
      .trimEnd(),
  );
}
