/** `cde index`: makes a folder that `cde search` answers from. */
import { resolve } from "node:path";
import { type CdeError, CorpusContext, InvalidInputError } from "@cde-js/core";
import { CorpusIndex } from "@cde-js/retriever";
import { CONTEXT_HELP, CONTEXT_OPTIONS, surveyCorpus } from "../build-context.js";
import { type Command, DEFAULT_INDEX, type Invocation } from "../command.js";
import { Inputs } from "../inputs.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { clock, counted, grouped } from "../printable.js";
import { removeStaleSettings, writeSettings } from "../settings.js";
import { passageTokens } from "../survey.js";

const help = `cde index <folder | file> ... [--out DIR]

Splits the documents into passages, embeds them and writes an index to DIR, in place of one that is there. Until it is
finished, and where it fails or is interrupted, the old index stays.

A folder stands for its .txt and .md files (UTF-8), with their paths as ids; names that begin with a dot and symbolic
links are left out. A .jsonl file (or .jsonl.gz) has one document a line: {"id": ..., "text": ...}, where wanted with
"title" and "metadata" (an object); "_id" will do for "id", and other fields are not kept.

The vectors are bound to a context: what is common to the whole corpus weighs less in them.

  --out DIR          the index [${DEFAULT_INDEX}]
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
  const directory = resolve(options.text("out") ?? DEFAULT_INDEX);
  const inputs = new Inputs(positionals, { skipUnreadable: options.flag("skip-unreadable"), signal });
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
  let locked = false;
  async function* documents() {
    // The index is locked from here on: before, what is there may be another writer's.
    locked = true;
    await writeSettings(directory, embedder.fingerprint, { model, context });
    for await (const { document, place } of inputs.read()) {
      places.push(place);
      units += document.text.length;
      yield document;
    }
  }
  try {
    await using built = await CorpusIndex.build(embedder, documents(), {
      directory,
      split: { maxTokens: passageTokens(embedder) },
      signal,
      onProgress: ({ passages, embedded }) => {
        const fraction = passages === 0 ? 0 : ((units / Math.max(1, survey.units)) * embedded) / passages;
        progress.update("indexing", { done: embedded, noun: "passage", fraction });
      },
    });
    const { documents: count, passages, withoutPassages, titlesLeftOut } = built.report!;
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
        skipped,
        seconds,
      },
      [
        `indexed ${counted(count, "document")}, ${counted(passages, "passage")}, in ${clock(seconds)}: ${directory}`,
        context
          ? `model ${built.modelId}, context of ${counted(context.size, "passage")} (${context.fingerprint.slice(0, 12)})`
          : `model ${built.modelId}, without context`,
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
  } finally {
    if (locked) await removeStaleSettings(directory);
  }
}

function list(ids: readonly string[]): string {
  return ids.length > 5 ? `${ids.slice(0, 5).join(", ")} and ${grouped(ids.length - 5)} more` : ids.join(", ");
}

/** The index names a bad document by its position; a person looks for the file and line. */
function placed(error: unknown, places: readonly string[]): unknown {
  const place = error instanceof InvalidInputError && error.position !== undefined ? places[error.position] : undefined;
  if (place === undefined) return error;
  return new InvalidInputError(`${place}: ${(error as CdeError).message}`, { cause: error });
}
