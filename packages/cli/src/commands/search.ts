/** `cde search`: the passages of an index that are nearest to a query. */
import { existsSync } from "node:fs";
import { CorpusContext } from "@cde-js/core";
import type { Hit, SearchMode } from "@cde-js/retriever";
import { type Command, DEFAULT_INDEX, type Invocation, UsageError } from "../command.js";
import { counted, shortened } from "../printable.js";
import { openIndex } from "../settings.js";

const help = `cde search [DIR] "query" [-k N]

Prints the passages of the index in DIR that answer the query best: their score, cosine similarity and BM25 where they
were computed, document and place (UTF-16 units of its text). Without DIR the index is ${DEFAULT_INDEX}, which is where
"cde index" writes to if it is told no other place.

  -k N               passages [5]
  --mode MODE        dense (by meaning), lexical (by words) or hybrid (both) [hybrid]
  --full             print whole passages instead of their beginning
  --model DIR        the model, where it has moved since the index was built
  --context FILE     the context, for an index that a program saved

The index is opened with the model and context that it was built with, and refuses others.
`;

export const search: Command = {
  summary: '[DIR] "query" [-k N]: find passages',
  help,
  options: {
    k: { type: "string", short: "k" },
    mode: { type: "string" },
    full: { type: "boolean" },
    model: { type: "string" },
    context: { type: "string" },
  },
  run,
};

/** Of a passage, where --full isn't given. */
const SHOWN_UNITS = 300;
const MODES: readonly SearchMode[] = ["dense", "lexical", "hybrid"];

async function run(invocation: Invocation): Promise<void> {
  const { options, positionals, signal } = invocation;
  const named = positionals.length !== 1;
  const [directory, query, ...more] = named ? positionals : [DEFAULT_INDEX, ...positionals];
  if (directory === undefined || query === undefined) throw new UsageError("the query is missing.");
  if (!named && !existsSync(directory)) {
    throw new UsageError(`the query or the index is missing: there is no ${DEFAULT_INDEX} here.`);
  }
  if (more.length > 0) throw new UsageError("more than one query is given; put a query of several words in quotes.");
  const k = options.integer("k", 1) ?? 5;
  const mode = MODES.find((known) => known === options.text("mode"));
  if (options.has("mode") && mode === undefined) throw new UsageError(`--mode should be one of ${MODES.join(", ")}.`);
  const start = performance.now();
  const file = options.text("context");
  const context = file === undefined ? undefined : await CorpusContext.load(file);
  await using found = await openIndex(directory, invocation, { context });
  const { index } = found;
  const opened = performance.now();
  const hits = await index.search(query, { k, ...(mode && { mode }), signal });
  const weight = hits[0]?.scores.weight;
  const milliseconds = { open: opened - start, search: performance.now() - opened };
  invocation.answer({ query, k, documents: index.count, passages: index.passageCount, milliseconds, hits }, [
    ...hits.flatMap((hit, i) => [
      heading(hit, i + 1),
      `   ${shortened(hit.text, options.flag("full") ? Infinity : SHOWN_UNITS)}`,
    ]),
    ...(weight === undefined ? [] : [`meaning weighed ${weight.toFixed(2)}, words ${(1 - weight).toFixed(2)}`]),
    `${counted(hits.length, "hit")} among ${counted(index.passageCount, "passage")}: opened in ${milliseconds.open.toFixed(0)} ms, searched in ${milliseconds.search.toFixed(0)} ms`,
  ]);
}

function heading({ id, title, score, scoring, scores, passage }: Hit, rank: number): string {
  const name = title === undefined ? id : `${title} (${id})`;
  const parts = [
    `${scoring} ${score.toFixed(3)}`,
    ...(scores.dense === undefined || scoring === "cosine" ? [] : [`cosine ${scores.dense.toFixed(3)}`]),
    ...(scores.lexical === undefined || scoring === "bm25" ? [] : [`bm25 ${scores.lexical.toFixed(2)}`]),
  ];
  return `${rank}. ${name}, ${passage.start}-${passage.end}  [${parts.join(", ")}]`;
}
