/** `cde index`: makes a folder that `cde search` answers from. */
import { resolve } from "node:path";
import { CdeError, CorpusContext, InvalidInputError } from "@cde-js/core";
import { CorpusIndex, describeFusion } from "@cde-js/retriever";
import { CONTEXT_HELP, CONTEXT_OPTIONS, surveyCorpus } from "../build-context.js";
import { type Command, DEFAULT_INDEX, type Invocation, UsageError } from "../command.js";
import { Inputs } from "../inputs.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { clock, counted, grouped } from "../printable.js";
import { notesOf, openIndex } from "../settings.js";
import { passageTokens } from "../survey.js";

const help = `cde index <folder | file> ... [--out DIR]

Splits the documents into passages, embeds them and writes an index to DIR, in place of one that is there. Until it is
finished, and where it fails or is interrupted, the old index stays. What an interrupted run has embedded is kept: the
same command goes on with it.

A folder stands for its .txt and .md files (UTF-8), with their paths as ids; names that begin with a dot and symbolic
links are left out. A .jsonl file (or .jsonl.gz) has one document a line: {"id": ..., "text": ...}, where wanted with
"title" and "metadata" (an object); "_id" will do for "id", and other fields are not kept.

The vectors are bound to a context: what is common to the whole corpus weighs less in them.

  --out DIR          the index [${DEFAULT_INDEX}]
  --update           bring the index in DIR up to date instead: new and changed documents are embedded, others are not
  --delete-missing   with --update: delete the documents of the index that are not among those given
  --fresh            discard what an interrupted run has embedded
  ${CONTEXT_HELP}
  --context FILE     use this context, written by "cde context build"
  --no-context       index without context
  ${MODEL_HELP}
  --skip-unreadable  leave out files that are binary, not UTF-8 or can't be read, and say which
`;

export const index: Command = {
  summary: "folder | file.jsonl | file.txt ... [--out DIR]: index documents",
  help,
  options: {
    out: { type: "string" },
    update: { type: "boolean" },
    "delete-missing": { type: "boolean" },
    fresh: { type: "boolean" },
    ...CONTEXT_OPTIONS,
    context: { type: "string" },
    "no-context": { type: "boolean" },
    model: { type: "string" },
    "skip-unreadable": { type: "boolean" },
  },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { options, positionals, progress, signal } = invocation;
  const start = performance.now();
  options.atMostOne("context", "no-context", "context-size");
  options.atMostOne("context", "no-context", "seed");
  options.atMostOne("context", "no-context", "strength");
  options.atMostOne("context", "no-context", "token-weights");
  for (const name of ["context", "no-context", "context-size", "seed", "strength", "token-weights", "fresh"]) {
    options.atMostOne("update", name);
  }
  if (options.flag("delete-missing") && !options.flag("update")) {
    throw new UsageError("--delete-missing is for --update: a new index has only the documents given.");
  }
  const directory = resolve(options.text("out") ?? DEFAULT_INDEX);
  const inputs = new Inputs(positionals, { skipUnreadable: options.flag("skip-unreadable"), signal });
  if (options.flag("update")) return await update(directory, inputs, invocation, start);
  const model = modelOption(invocation);
  const contextFile = options.text("context");
  const given = contextFile === undefined ? undefined : await CorpusContext.load(contextFile);
  await using encoder = await loadEncoder(model, invocation);
  // A context of another model is refused here, before the work.
  const bound = given && encoder.withContext(given);
  const wanted = given === undefined && !options.flag("no-context");
  const { survey, context = given } = await surveyCorpus(encoder, inputs, { wanted, invocation });
  const embedder = bound ?? (context ? encoder.withContext(context) : encoder.withoutContext());

  const places: string[] = [];
  let units = 0;
  async function* documents() {
    for await (const { document, place } of inputs.read()) {
      places.push(place);
      units += document.text.length;
      yield document;
    }
  }
  try {
    await using built = await CorpusIndex.build(embedder, documents(), {
      directory,
      notes: notesOf(model),
      resume: !options.flag("fresh"),
      split: { maxTokens: passageTokens(embedder) },
      signal,
      onProgress: ({ passages, embedded }) => {
        const fraction = passages === 0 ? 0 : ((units / Math.max(1, survey.units)) * embedded) / passages;
        progress.update("indexing", { done: embedded, noun: "passage", fraction });
      },
    });
    const { documents: count, passages, withoutPassages, titlesLeftOut, resumed } = built.report!;
    const seconds = (performance.now() - start) / 1000;
    const skipped = [...inputs.skipped].map(([path, why]) => ({ path, why }));
    invocation.answer(
      {
        directory,
        modelId: built.modelId,
        model: model ?? null,
        fingerprint: built.fingerprint,
        dimensions: built.dimensions,
        context: context ? { size: context.size, stage: context.stage, fingerprint: context.fingerprint } : null,
        documents: count,
        passages,
        withoutPassages,
        titlesLeftOut,
        resumed,
        fusion: built.fusion ?? null,
        skipped,
        seconds,
      },
      [
        `indexed ${counted(count, "document")}, ${counted(passages, "passage")}, in ${clock(seconds)}: ${directory}`,
        context
          ? `model ${built.modelId}, context of ${counted(context.size, "passage")} (${context.fingerprint.slice(0, 12)})`
          : `model ${built.modelId}, without context`,
        describeFusion(built.fusion),
        ...(resumed > 0 ? [`${counted(resumed, "document")} were embedded by an interrupted run before`] : []),
        ...(withoutPassages.length > 0
          ? [`${grouped(withoutPassages.length)} blank, never found: ${list(withoutPassages)}`]
          : []),
        ...(titlesLeftOut.length > 0
          ? [`${grouped(titlesLeftOut.length)} with a title too long to embed: ${list(titlesLeftOut)}`]
          : []),
        ...skipped.map(({ path, why }) => `left out: ${path} ${why}`),
      ],
    );
  } catch (error) {
    throw placed(error, places);
  }
}

/** Brings an index up to date with the documents given. */
async function update(directory: string, inputs: Inputs, invocation: Invocation, start: number): Promise<void> {
  const { options, progress, signal } = invocation;
  await using opened = await openIndex(directory, invocation);
  const { index } = opened;
  const places: string[] = [];
  const seen = new Set<string>();
  async function* documents() {
    for await (const { document, place } of inputs.read()) {
      places.push(place);
      seen.add(document.id);
      progress.update("updating", { done: places.length, noun: "document" });
      yield document;
    }
  }
  const report = await index.upsert(documents(), { signal }).catch((error: unknown) => {
    throw placed(error, places);
  });
  const missing: string[] = [];
  for await (const { id } of index.documents()) if (!seen.has(id)) missing.push(id);
  const deleted = options.flag("delete-missing") ? await index.delete({ ids: missing }) : 0;
  const seconds = (performance.now() - start) / 1000;
  const skipped = [...inputs.skipped].map(([path, why]) => ({ path, why }));
  const left = missing.length - deleted;
  const { added, replaced, metadataChanged, unchanged } = report;
  invocation.answer(
    {
      directory,
      ...report,
      deleted,
      missing: left,
      documents: index.count,
      passages: index.passageCount,
      skipped,
      seconds,
    },
    [
      `updated ${directory} in ${clock(seconds)}: ${grouped(added)} added, ${grouped(replaced)} replaced, ` +
        `${grouped(metadataChanged)} with other metadata, ${grouped(unchanged)} unchanged, ${grouped(deleted)} deleted`,
      `${counted(index.count, "document")}, ${counted(index.passageCount, "passage")} now`,
      ...(left > 0 ? [`${counted(left, "document")} not among those given; --delete-missing deletes such`] : []),
      ...skipped.map(({ path, why }) => `left out: ${path} ${why}`),
    ],
  );
}

function list(ids: readonly string[]): string {
  return ids.length > 5 ? `${ids.slice(0, 5).join(", ")} and ${grouped(ids.length - 5)} more` : ids.join(", ");
}

/** The index names a bad document by its position; a person looks for the file and line. */
function placed(error: unknown, places: readonly string[]): unknown {
  if (error instanceof CdeError && error.message.includes("{ resume: false }")) {
    return new InvalidInputError(error.message.replace("{ resume: false }", "--fresh"), { cause: error });
  }
  const place = error instanceof InvalidInputError && error.position !== undefined ? places[error.position] : undefined;
  if (place === undefined) return error;
  return new InvalidInputError(`${place}: ${(error as CdeError).message}`, { cause: error });
}
