/** The systems that `cde evaluate` compares, by name, and the indexes in which they search. */
import type { ContextualEncoder, CorpusContext, Embedder } from "@cde-js/core";
import { type DataSet, evaluate, type MetricName, type SearchFunction, type System } from "@cde-js/core/evaluation";
import { CorpusIndex, type Reranker, type SearchOptions } from "@cde-js/retriever";
import { type Invocation, UsageError } from "../command.js";
import { counted } from "../printable.js";
import { passageTokens } from "../survey.js";
import { corpusFrom } from "./corpora.js";
import { inContext, wordsOnly } from "./embed-once.js";

/** Which vectors an index holds. */
type IndexName = "words" | "base" | "context" | "wrong";

interface Kind {
  readonly index: IndexName;
  readonly mode: "lexical" | "dense" | "hybrid";
  readonly description: string;
}

export type SystemName = "bm25" | "base" | "context" | "wrong-context" | "hybrid-base" | "hybrid" | "rerank";

const KINDS: Readonly<Record<SystemName, Kind>> = {
  bm25: { index: "words", mode: "lexical", description: "words alone" },
  base: { index: "base", mode: "dense", description: "vectors of the model without context" },
  context: { index: "context", mode: "dense", description: "vectors in the context of this corpus" },
  "wrong-context": { index: "wrong", mode: "dense", description: "control: vectors in the context of another corpus" },
  "hybrid-base": { index: "base", mode: "hybrid", description: "words, and vectors without context" },
  hybrid: { index: "context", mode: "hybrid", description: "words, and vectors in context" },
  rerank: { index: "context", mode: "hybrid", description: "the first of hybrid, scored anew" },
};

export const SYSTEM_NAMES: readonly SystemName[] = Object.keys(KINDS) as SystemName[];

export interface SystemsOptions {
  readonly wanted: readonly SystemName[];
  readonly encoder: ContextualEncoder;
  /** Without context, each text encoded once; undefined where the model has no null context. */
  readonly base: Embedder | undefined;
  /** Of the data set's own corpus, and of another one. */
  readonly context: CorpusContext | undefined;
  readonly wrongContext: CorpusContext | undefined;
  readonly rerank: Reranker | undefined;
  readonly dataSet: DataSet;
  readonly invocation: Invocation;
}

/** Which systems --systems names; all that can be had where it isn't given. @throws UsageError */
export function namedSystems({ options }: Invocation, available: { readonly base: boolean }): readonly SystemName[] {
  const [wrong, rerank] = [options.has("wrong-corpus"), options.has("rerank")];
  const list = options.text("systems");
  if (list === undefined) {
    return SYSTEM_NAMES.filter(
      (name) =>
        name !== "hybrid-base" &&
        (name !== "base" || available.base) &&
        (name !== "wrong-context" || wrong) &&
        (name !== "rerank" || rerank),
    );
  }
  const names = list.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !(SYSTEM_NAMES as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new UsageError(`--systems: there is no ${JSON.stringify(unknown)}; there are ${SYSTEM_NAMES.join(", ")}.`);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UsageError(`--systems names ${twice} twice.`);
  const needs: readonly [SystemName, string, boolean][] = [
    ["wrong-context", "wrong-corpus", wrong],
    ["rerank", "rerank", rerank],
  ];
  for (const [name, option, given] of needs) {
    if (names.includes(name) === given) continue;
    throw new UsageError(
      given ? `--${option} is given, but --systems leaves ${name} out.` : `the system ${name} needs --${option}.`,
    );
  }
  return names as SystemName[];
}

/** Whether one of the systems needs the context of the corpus. */
export function needsContext(names: readonly SystemName[]): boolean {
  return names.some((name) => KINDS[name].index === "context");
}

/** Builds one index after another, searches it with every system that uses it, and measures. In the order wanted. */
export async function runSystems<M extends MetricName>(
  options: SystemsOptions,
  metrics: readonly M[],
): Promise<System<M>[]> {
  const { wanted, dataSet, invocation, rerank } = options;
  const { progress, signal } = invocation;
  const found = new Map<SystemName, System<M>>();
  for (const index of new Set(wanted.map((name) => KINDS[name].index))) {
    const names = wanted.filter((name) => KINDS[name].index === index);
    const embedder = embedderOf(index, options);
    // All queries at once: one by one they would not fill a batch.
    await embedder.embedQueries(
      dataSet.queries.map(({ text }) => text),
      { signal },
    );
    await using built = await CorpusIndex.build(embedder, documentsOf(dataSet), {
      split: { maxTokens: passageTokens(embedder) },
      signal,
      ...(names.every((name) => KINDS[name].mode === "dense") ? { lexical: false as const } : {}),
      onProgress: ({ embedded }) => progress.update(`indexing (${index})`, { done: embedded, noun: "passage" }),
    });
    for (const name of names) {
      const extra: SearchOptions = {
        mode: KINDS[name].mode,
        mergeByDocument: true,
        ...(name === "rerank" && rerank ? { rerank } : {}),
      };
      const search: SearchFunction = (query, { k }) => built.search(query, { ...extra, k, signal });
      const result = await evaluate(search, dataSet, {
        metrics,
        signal,
        onProgress: ({ done, total }) => progress.update(name, { done, total, noun: "query" }),
      });
      found.set(name, { name, description: KINDS[name].description, result });
    }
  }
  progress.note(`${counted(found.size, "system")} evaluated`);
  return wanted.map((name) => found.get(name)!);
}

function embedderOf(index: IndexName, { encoder, base, context, wrongContext }: SystemsOptions): Embedder {
  if (index === "words") return wordsOnly(encoder);
  // Where there is no null context, this says so and what to do.
  if (index === "base") return base ?? encoder.withoutContext();
  const chosen = index === "context" ? context! : wrongContext!;
  return inContext(base, encoder.withContext(chosen), chosen);
}

async function* documentsOf({ documents }: DataSet) {
  for await (const { document } of corpusFrom(documents).read()) yield document;
}
