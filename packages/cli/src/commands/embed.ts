/** `cde embed`: one of any number of workers that embed a corpus into a Qdrant collection, each its own part. */
import { crc32 } from "node:zlib";
import { averageLength, QdrantIndex } from "@cde-js/adapters/qdrant";
import { CorpusContext, type Embedder } from "@cde-js/core";
import type { CorpusDocument } from "@cde-js/retriever";
import { type Command, type Invocation, UsageError } from "../command.js";
import { Inputs } from "../inputs.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { clock, counted } from "../printable.js";
import { passageTokens } from "../survey.js";

const help = `cde embed <folder | file> ... --context FILE --to qdrant://HOST:PORT/COLLECTION [--shard I/N]

Embeds the documents (see "cde help index") and writes them to a collection on a Qdrant server, which is made where there
is none. Any number of these can run at once, on any machines, each with its own --shard and all with the same documents,
context and model; the collection refuses vectors of another context. A worker keeps nothing of its own: one that ended
is started again with the same command, passes over what is written, and does the rest. The same shard twice is harmless.

The server's API key is read from the environment variable QDRANT_API_KEY.

  --to URL           qdrant://host:6333/collection, or qdrants:// for https; a path before the collection is a prefix
  --context FILE     the context, written once by "cde context build"
  --no-context       embed without context
  --shard I/N        only the documents whose ids fall to part I of N, counted from 0 [0/1]
  --tenant NAME      whose documents these are, in a collection of several tenants
  --language TAG     of the words that are counted, such as "de" [en]
  --retries N        further attempts where the server is busy or a connection breaks [6]
  --insecure-key     send the API key over plain HTTP to another machine
  ${MODEL_HELP}
  --skip-unreadable  leave out files that are binary, not UTF-8 or can't be read, and say which
`;

export const embed: Command = {
  summary: "folder | file.jsonl ... --context FILE --to qdrant://… --shard I/N: one worker of many",
  help,
  options: {
    to: { type: "string" },
    context: { type: "string" },
    "no-context": { type: "boolean" },
    shard: { type: "string" },
    tenant: { type: "string" },
    language: { type: "string" },
    retries: { type: "string" },
    "insecure-key": { type: "boolean" },
    model: { type: "string" },
    "skip-unreadable": { type: "boolean" },
  },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { options, positionals, progress, signal } = invocation;
  const start = performance.now();
  options.atMostOne("context", "no-context");
  const { url, collection } = readTarget(options.text("to"));
  const { part, parts } = readShard(options.text("shard") ?? "0/1");
  const contextFile = options.text("context");
  if (contextFile === undefined && !options.flag("no-context")) {
    throw new UsageError('--context is missing: make it once with "cde context build", or say --no-context.');
  }
  const inputs = new Inputs(positionals, { skipUnreadable: options.flag("skip-unreadable"), signal });
  const context = contextFile === undefined ? undefined : await CorpusContext.load(contextFile);
  await using encoder = await loadEncoder(modelOption(invocation), invocation);
  const embedder = context ? encoder.withContext(context) : encoder.withoutContext();
  const language = options.text("language");
  const lexical = language === undefined ? {} : { language };
  const split = { maxTokens: passageTokens(embedder) };
  const average = await measure(embedder, inputs, { lexical, split, signal });
  const tenant = options.text("tenant");
  const retries = options.integer("retries", 0);
  const apiKey = process.env.QDRANT_API_KEY;
  await using index = await QdrantIndex.create(embedder, {
    url,
    collection,
    ...(apiKey ? { apiKey } : {}),
    ...(retries === undefined ? {} : { retries }),
    allowKeyOverHttp: options.flag("insecure-key"),
    ...(tenant === undefined ? {} : { tenant, tenants: true }),
    // Base vectors, so that another context never costs another encoding.
    ...(context?.map ? { base: { embedder: embedder.base ?? embedder, context } } : {}),
    lexical: { ...lexical, ...(average === undefined ? {} : { averageLength: average }) },
    split,
    signal,
  });
  let own = 0;
  async function* mine(): AsyncGenerator<CorpusDocument> {
    for await (const { document } of inputs.read()) {
      if (crc32(document.id) % parts !== part) continue;
      own++;
      yield document;
    }
  }
  const report = await index.upsert(mine(), {
    signal,
    onProgress: ({ embedded }) => progress.update("embedding", { done: embedded, noun: "passage" }),
  });
  const seconds = (performance.now() - start) / 1000;
  const skipped = [...inputs.skipped].map(([path, why]) => ({ path, why }));
  const { passages, withoutPassages, titlesLeftOut } = report;
  const unchanged = report.unchanged + report.metadataChanged;
  invocation.answer(
    {
      collection,
      shard: { part, parts },
      modelId: index.modelId,
      fingerprint: index.fingerprint,
      dimensions: index.dimensions,
      documents: own,
      passages,
      unchanged,
      withoutPassages,
      titlesLeftOut,
      skipped,
      seconds,
    },
    [
      `wrote ${counted(passages, "passage")} of ${counted(own, "document")} to "${collection}" in ${clock(seconds)}: part ${part} of ${parts}`,
      ...(unchanged > 0 ? [`${counted(unchanged, "document")} there already`] : []),
      ...skipped.map(({ path, why }) => `left out: ${path} ${why}`),
    ],
  );
}

/** Every worker reads the beginning of the whole corpus, so that all weigh words by the same average. */
async function measure(
  embedder: Embedder,
  inputs: Inputs,
  options: NonNullable<Parameters<typeof averageLength>[2]>,
): Promise<number | undefined> {
  async function* documents(): AsyncGenerator<CorpusDocument> {
    for await (const { document } of inputs.read()) yield document;
  }
  return await averageLength(embedder, documents(), options);
}

/** `qdrant://host:port/prefix/collection` */
function readTarget(to: string | undefined): { url: string; collection: string } {
  if (to === undefined) throw new UsageError("--to is missing: qdrant://host:6333/collection.");
  const parts = /^qdrant(s?):\/\/([^/]+)(\/.*)?\/([^/]+)$/.exec(to);
  if (!parts) {
    // Without the value: somebody may have put a key in it.
    throw new UsageError("--to should be qdrant://host:6333/collection, or qdrants:// for https.");
  }
  const [, secure, host, prefix = "", collection = ""] = parts;
  let name: string;
  try {
    name = decodeURIComponent(collection);
  } catch {
    throw new UsageError("--to has a collection whose %-escapes are none.");
  }
  return { url: `http${secure}://${host}${prefix}`, collection: name };
}

function readShard(text: string): { part: number; parts: number } {
  const found = /^(\d{1,6})\/(\d{1,6})$/.exec(text);
  const [part, parts] = [Number(found?.[1]), Number(found?.[2])];
  if (found && parts >= 1 && part < parts) return { part, parts };
  throw new UsageError(`--shard should be I/N with I from 0 to N - 1, got ${JSON.stringify(text)}.`);
}
