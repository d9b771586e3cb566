/** `cde adapt`: fits a model to a corpus that nobody has labelled, and measures it on documents that were held back. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { type Embedder, InvalidInputError } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { type CorpusDocument, splitText } from "@cde-js/retriever";
import { type Command, type Invocation, UsageError } from "../command.js";
import { corpusOf } from "../evaluate/corpora.js";
import type { Corpus } from "../inputs.js";
import { loadEncoder, MODEL_HELP } from "../model.js";
import { counted, grouped } from "../printable.js";
import { passageTokens } from "../survey.js";
import {
  type CorpusCount,
  DEFAULT_ADAPT,
  DocumentCounter,
  drawDocuments,
  writeAdaptation,
} from "../train/adaptation.js";
import { outcomeLines, quoted } from "./train.js";

const help = `cde adapt <folder | file> ... --out DIR [--minutes 20]

Fits a model to documents without labels, on this machine: rare words of a passage, or a few of its words in a row, are
paired with it, sentences with the text around them, and titles with their texts where documents have titles of their own
that say what the texts say; vectors are compared within a spectral context of the corpus, so that what a context gives for
nothing isn't learned again; false negatives are filtered out; only the upper layers are trained, with a pull towards the
base's similarities, since small data makes a model forget. A part of the documents is held back, and the model is measured
on it before and after, within a context. Search with a context: cde index builds one.

NOTE: those figures are of synthetic queries, sentences taken out of the documents held back: nobody judged anything. They
say whether the model knows this kind of text better, not how good its answers to people's questions are. Where you have
judged queries, measure on them: cde evaluate.

  --out DIR          where the model is written; beside it DIR-adapt with the configuration, the documents and the run
  --minutes N        time in all; of a large corpus as many documents are trained on as it is enough for [${DEFAULT_ADAPT.minutes}]
  --layers N         upper layers that are trained [${DEFAULT_ADAPT.layers}]
  --learning-rate X  at the end of the warm-up [${DEFAULT_ADAPT.learningRate}]
  --batch-size N     pairs of a batch [${DEFAULT_ADAPT.batchSize}]
  --held-back X      share of the documents that is not trained on [${DEFAULT_ADAPT.heldBack}]
  --seed N           of every draw [0]
  ${MODEL_HELP.replace(", or a repository of the Hugging Face hub", "")}

Ctrl-C finishes the step, saves, and says how to go on.
`;

export const adapt: Command = {
  summary: "folder | file ... --out DIR [--minutes 20]: fit a model to your documents, without labels",
  help,
  options: {
    out: { type: "string" },
    minutes: { type: "string" },
    layers: { type: "string" },
    "learning-rate": { type: "string" },
    "batch-size": { type: "string" },
    "held-back": { type: "string" },
    seed: { type: "string" },
    model: { type: "string" },
  },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { positionals, options, signal, progress } = invocation;
  const out = options.text("out");
  if (out === undefined) throw new UsageError("--out is missing: the directory that the model is written to.");
  const choice = {
    minutes: options.number("minutes", 0.01) ?? DEFAULT_ADAPT.minutes,
    layers: options.integer("layers", 1) ?? DEFAULT_ADAPT.layers,
    learningRate: options.number("learning-rate", Number.MIN_VALUE) ?? DEFAULT_ADAPT.learningRate,
    batchSize: options.integer("batch-size", 2) ?? DEFAULT_ADAPT.batchSize,
    heldBack: options.number("held-back", 0.01, 0.5) ?? DEFAULT_ADAPT.heldBack,
    seed: options.integer("seed", 0) ?? 0,
  };
  const model = options.text("model");
  if (model !== undefined && !existsSync(join(model, "config.json"))) {
    throw new InvalidInputError(`--model ${model} is no directory of a model (no config.json).`);
  }
  // Loaded here, so that commands that don't train start without it.
  const { readTrainConfig } = await import("../train/config.js");
  const { requireFree, runTraining } = await import("../train/run.js");
  const output = resolve(out);
  requireFree(output);
  const folder = `${output}-adapt`;
  if (existsSync(folder)) {
    throw new InvalidInputError(
      `${folder} is there already. Go on with it by: cde train --resume ${quoted(join(folder, "adapt.json"))}. Or remove it, or choose another --out.`,
    );
  }
  const corpus = corpusOf(positionals, signal);
  const drawn = drawDocuments(await countOf(corpus, invocation), choice);
  await using encoder = await loadEncoder(model, invocation);
  const counter = encoder.withoutContext();
  const path = await writeAdaptation({
    ...{ folder, output, model: model === undefined ? undefined : resolve(model), choice, drawn, signal },
    modelFolder: model ?? modelDirectory,
    documents: () => documentsOf(corpus),
    passages: (document) => passagesOf(document, counter),
    name: positionals.map((place) => basename(resolve(place))).join(", "),
  });
  const { held, trained, documents } = drawn;
  progress.note(
    `of ${counted(documents, "document")} ${grouped(trained.size)} are trained on and ${grouped(held.size)} held back; the configuration: ${path}`,
  );
  const plan = await readTrainConfig(path);
  const outcome = await runTraining(
    plan,
    { resume: false, resumeBy: `cde train --resume ${quoted(path)}` },
    invocation,
  );
  invocation.answer(
    { ...outcome, configuration: path, heldBack: held.size, trainedOn: trained.size },
    outcomeLines(outcome),
  );
}

async function* documentsOf(corpus: Corpus): AsyncGenerator<CorpusDocument> {
  for await (const { document } of corpus.read()) yield document;
}

/** As `cde index` splits a document. */
function passagesOf({ id, text, title }: CorpusDocument, counter: Embedder): CorpusDocument[] {
  const countTokens = (stretch: string): number => counter.countTokens!(stretch);
  const passages = splitText(text, { countTokens, maxTokens: passageTokens(counter) });
  return passages.map(({ start, end }, i) => ({
    id: `${id} ${i + 1}`,
    text: text.slice(start, end),
    ...(title !== undefined && { title }),
  }));
}

async function countOf(corpus: Corpus, { progress }: Invocation): Promise<CorpusCount> {
  const counter = new DocumentCounter();
  let done = 0;
  for await (const { document } of corpus.read()) {
    counter.add(document);
    progress.update("reading", { done: ++done, noun: "document" });
  }
  return counter.count;
}
