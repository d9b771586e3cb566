/** What an adaptation to unlabelled documents trains on, and how: files and a configuration of `cde train`. */
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { createRandom, InvalidInputError } from "@cde-js/core";
import { type CorpusDocument, StorageError } from "@cde-js/retriever";
import type { TrainConfig } from "./config.js";
import { writeWhole } from "./run-folder.js";

export const DEFAULT_ADAPT = { minutes: 20, layers: 2, learningRate: 1e-4, batchSize: 128, heldBack: 0.1 } as const;

/** Which documents are trained on, and which are measured on. */
export interface Drawn {
  readonly held: ReadonlySet<string>;
  readonly trained: ReadonlySet<string>;
  /** Of the corpus. */
  readonly documents: number;
  /** Pairs of a document by `lexical` and by `cloze`, at most, of each. */
  readonly perDocument: number;
  /** Whether there are titles to ask with. */
  readonly titles: boolean;
}

/** What a first reading of a corpus finds. */
export interface CorpusCount {
  readonly ids: readonly string[];
  readonly differentTitles: number;
  /** The part of a title's words that its text has too, from 0 to 1: the mean over titles. */
  readonly titleOverlap: number;
}

/** Counts documents as they are read. */
export class DocumentCounter {
  readonly #ids: string[] = [];
  readonly #titles = new Set<string>();
  #overlap = 0;
  #titled = 0;

  add({ id, title, text }: CorpusDocument): void {
    this.#ids.push(id);
    const words = wordsOf(title ?? "");
    if (words.size === 0) return;
    this.#titles.add(title!.trim());
    this.#titled++;
    const inText = wordsOf(text);
    this.#overlap += [...words].filter((word) => inText.has(word)).length / words.size;
  }

  get count(): CorpusCount {
    const titleOverlap = this.#titled === 0 ? 0 : this.#overlap / this.#titled;
    return { ids: this.#ids, differentTitles: this.#titles.size, titleOverlap };
  }
}

function wordsOf(text: string): Set<string> {
  return new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);
}

/**
 * Draws the documents that are held back and, of the others, as many as the time is enough for: every text is embedded
 * once before training. Raises InvalidInputError for too few documents.
 */
export function drawDocuments(
  corpus: CorpusCount,
  { heldBack, minutes, seed }: { readonly heldBack: number; readonly minutes: number; readonly seed: number },
): Drawn {
  const { ids } = corpus;
  const count = Math.round(heldBack * ids.length);
  const rest = ids.length - count;
  if (count < 2 || rest < 4) {
    throw new InvalidInputError(
      `cde adapt: of ${ids.length} documents ${count} would be held back, too few to learn from and to measure on. Give more documents, or smaller ones: each file or line is one.`,
    );
  }
  const titles = corpus.differentTitles >= TITLED * ids.length && corpus.titleOverlap >= TELLING;
  const most = Math.max(LEAST_PAIRS, Math.round(PAIRS_A_MINUTE * minutes));
  const perDocument = Math.min(MOST_PER_DOCUMENT, Math.max(1, Math.floor(most / (METHODS.length * rest))));
  // A document of one sentence gives none by `cloze`, and what the time isn't enough for costs nothing.
  const trained = Math.min(rest, Math.ceil(most / (perDocument + Number(titles))));
  const order = createRandom(seed).shuffle(ids);
  return {
    ...{ perDocument, titles, documents: ids.length },
    held: new Set(order.slice(0, count)),
    trained: new Set(order.slice(count, count + trained)),
  };
}

export interface Adaptation {
  /** Where everything lies but the model. */
  readonly folder: string;
  readonly output: string;
  /** Absolute; undefined for the bundled model. */
  readonly model: string | undefined;
  readonly modelFolder: string;
  readonly choice: {
    readonly minutes: number;
    readonly layers: number;
    readonly learningRate: number;
    readonly batchSize: number;
    readonly seed: number;
  };
  readonly drawn: Drawn;
  readonly name: string;
  readonly signal: AbortSignal;
  documents(): AsyncIterable<CorpusDocument>;
  passages(document: CorpusDocument): readonly CorpusDocument[];
}

/** Titles ask for their texts where nearly every document has one of its own: others would ask for many texts at once. */
const TITLED = 0.9;
/** ... and where titles say what their texts say: a section's number or a file's name has few words of the text. */
const TELLING = 0.5;
/** Words teach what meaning alone misses, sentences without their words what words miss. */
const METHODS = ["lexical", "cloze"] as const;
/** On two cores one epoch of them takes about the time; of few documents more are made each. */
const PAIRS_A_MINUTE = 1000;
const LEAST_PAIRS = 400;
const MOST_PER_DOCUMENT = 4;
/** Of an evaluation, of which there are three or four in a run. */
const MEASURED = { queries: 200, documents: 600 };
/** Words of a span, and tokens of a text at most: time goes with them. */
const SPAN_WORDS = 60;
const TOKENS = 128;

/** Writes the documents and the configuration, and returns its path. */
export async function writeAdaptation(adaptation: Adaptation): Promise<string> {
  const { folder, output, model, choice, drawn, name } = adaptation;
  const freeze = Math.max(0, (await layersOf(adaptation.modelFolder)) - choice.layers);
  await writeDocuments(adaptation);
  const config: TrainConfig = {
    ...(model !== undefined && { model }),
    output,
    run: "run",
    seed: choice.seed,
    data: [
      {
        documents: "documents.jsonl",
        methods: [...(drawn.titles ? (["title"] as const) : []), ...METHODS],
        perDocument: drawn.perDocument,
        spanWords: SPAN_WORDS,
        dataset: "corpus",
      },
    ],
    faulty: "skip",
    batches: { batchSize: choice.batchSize, strategy: "random", surrogate: "base" },
    budget: { epochs: 2, minutes: choice.minutes },
    training: {
      learningRate: choice.learningRate,
      temperature: 0.03,
      maxTokens: Math.min(TOKENS, await tokensOf(adaptation.modelFolder)),
      freeze,
      ...(freeze > 0 && { layerCache: true }),
      distillation: { weight: 0.3 },
      ...(!(await readsContext(adaptation.modelFolder)) && { spectral: {} }),
    },
    // The last weights are written: chosen by these figures, they would flatter them.
    evaluation: { dev: { knownItems: "held-back.jsonl", among: "passages.jsonl" }, ...MEASURED },
    export: {
      weights: "last",
      card: {
        notes: `Adapted without labels to ${name}: ${drawn.trained.size} of ${drawn.documents} documents. Its figures are of synthetic queries.`,
      },
    },
  };
  const path = join(folder, "adapt.json");
  await writeWhole(path, `${JSON.stringify(config, null, 2)}\n`);
  return path;
}

/** Documents to train on, their passages to search among, and the passages of those that are held back. */
async function writeDocuments({ folder, drawn, documents, passages, signal }: Adaptation): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
    await using trained = await open(join(folder, "documents.jsonl"), "wx");
    await using searched = await open(join(folder, "passages.jsonl"), "wx");
    await using asked = await open(join(folder, "held-back.jsonl"), "wx");
    for await (const document of documents()) {
      signal.throwIfAborted();
      const { id, text, title } = document;
      const lines = passages(document).map((passage) => `${JSON.stringify(passage)}\n`);
      if (drawn.held.has(id)) await asked.appendFile(lines.join(""));
      else await searched.appendFile(lines.join(""));
      if (drawn.trained.has(id)) {
        await trained.appendFile(`${JSON.stringify({ id, text, ...(title !== undefined && { title }) })}\n`);
      }
    }
  } catch (cause) {
    // Without its configuration the folder is of no use, and in the way of the next call.
    await rm(folder, { recursive: true, force: true });
    const { syscall, message, code } = cause as NodeJS.ErrnoException;
    if (syscall === undefined) throw cause;
    throw new StorageError(folder, `${folder} can't be written: ${message}.`, { cause, errno: code });
  }
}

/** Whether layers read a context (`cde.json` names such a stage), so that no map is made of the vectors. */
async function readsContext(folder: string): Promise<boolean> {
  const stage = (await jsonOf(join(folder, "cde.json")))?.secondStage;
  return typeof stage === "object" && stage !== null;
}

async function layersOf(folder: string): Promise<number> {
  const config = await jsonOf(join(folder, "config.json"));
  // BERT's and ModernBERT's name, and NomicBERT's.
  const layers = config?.num_hidden_layers ?? config?.n_layer;
  if (Number.isSafeInteger(layers) && (layers as number) > 0) return layers as number;
  throw new InvalidInputError(
    `cde adapt: ${folder} is no biencoder whose layers could be told (config.json names no num_hidden_layers). Write a configuration for cde train instead.`,
  );
}

async function tokensOf(folder: string): Promise<number> {
  const most = (await jsonOf(join(folder, "sentence_bert_config.json")))?.max_seq_length;
  return Number.isSafeInteger(most) && (most as number) > 0 ? (most as number) : TOKENS;
}

async function jsonOf(path: string): Promise<Readonly<Record<string, unknown>> | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Readonly<Record<string, unknown>>;
  } catch {
    return undefined; // whoever loads the model says what is wrong with it
  }
}
