/** The corpora that `cde evaluate` reads: data sets with judgements, and plain documents without. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { type BeirDocument, type DataSet, knownItems, readCorpus, readDataSet } from "@cde-js/core/evaluation";
import type { CorpusDocument } from "@cde-js/retriever";
import { type Invocation, UsageError } from "../command.js";
import { type Corpus, Inputs } from "../inputs.js";

/** Known-item queries where nothing else is asked for. */
const SYNTHETIC_QUERIES = 300;

/** The data set of the command line: a BEIR folder, or with --no-qrels the user's own documents. */
export async function dataSetOf({ positionals, options, signal, progress }: Invocation): Promise<DataSet> {
  const seed = options.integer("seed", 0) ?? 0;
  const maxQueries = options.integer("queries", 1);
  if (!options.flag("no-qrels")) {
    const [folder, ...more] = positionals;
    if (folder === undefined) throw new UsageError("the folder of a data set is missing.");
    if (more.length > 0) throw new UsageError("more than one data set is given; evaluate one at a time.");
    if (!isBeir(folder))
      throw new UsageError(
        `${folder} holds no corpus.jsonl or corpus.jsonl.gz, so it is no data set in BEIR's layout. For documents without judgements pass --no-qrels.`,
      );
    const split = options.text("split");
    return readDataSet(folder, { seed, signal, ...(split && { split }), ...(maxQueries && { maxQueries }) });
  }
  if (options.has("split")) throw new UsageError("--no-qrels makes up its queries, so there is no --split.");
  const documents: BeirDocument[] = [];
  for await (const { document } of corpusOf(positionals, signal).read()) {
    documents.push({ ...document, title: document.title ?? "" });
    progress.update("reading", { done: documents.length, noun: "document" });
  }
  return knownItems(documents, {
    name: positionals.map((path) => basename(resolve(path))).join(", "),
    queries: maxQueries ?? SYNTHETIC_QUERIES,
    seed,
  });
}

/** Documents of BEIR folders, folders of texts and JSONL files. */
export function corpusOf(paths: readonly string[], signal: AbortSignal): Corpus {
  const [only] = paths;
  if (paths.length !== 1 || only === undefined || !isBeir(only)) return new Inputs(paths, { signal });
  return {
    async *read() {
      for await (const document of readCorpus(only, { signal }))
        yield { document: asDocument(document), place: `${only}, document ${document.id}` };
    },
  };
}

/** Documents in memory, as the commands read them. */
export function corpusFrom(documents: readonly BeirDocument[]): Corpus {
  return {
    async *read() {
      for (const document of documents) yield { document: asDocument(document), place: document.id };
    },
  };
}

/** BEIR writes "" for no title. */
function asDocument({ title, ...document }: BeirDocument): CorpusDocument {
  return title === "" ? document : { ...document, title };
}

export function isBeir(folder: string): boolean {
  return existsSync(join(folder, "corpus.jsonl")) || existsSync(join(folder, "corpus.jsonl.gz"));
}
