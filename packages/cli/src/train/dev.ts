/** What a run is measured on while it goes on: dev pairs, judgements of a BEIR folder, or known items. */
import { createRandom, InvalidInputError, type Random } from "@cde-js/core";
import {
  type BeirDocument,
  evaluateRun,
  knownItems,
  type MetricName,
  type Qrels,
  readDataSet,
} from "@cde-js/core/evaluation";
import {
  type BindTrainedModel,
  type Evaluator,
  type PairSet,
  type PairSplit,
  retrievalEvaluator,
  splitPairs,
} from "@cde-js/core/training";
import type { Invocation } from "../command.js";
import { corpusOf } from "../evaluate/corpora.js";
import { DEFAULT_DEV_METRICS, type EvaluationConfig } from "./config.js";

/** Queries, the texts that are searched, and which of them are right. */
export interface DevSet {
  /** Whose prompts are used. */
  readonly dataset: string;
  readonly queries: ReadonlyMap<string, string>;
  readonly documents: ReadonlyMap<string, string>;
  readonly qrels: Qrels;
}

export interface Dev {
  /** The pairs that may be trained on. */
  readonly train: PairSet;
  /** None where nothing is measured. */
  readonly sets: readonly DevSet[];
  readonly metrics: readonly MetricName[];
  /** Metric by which the best weights are kept. */
  readonly best: MetricName;
  /** What figures of it are, for whoever reads them. */
  readonly description: string;
}

const DEFAULTS = { share: 0.05, queries: 500, documents: 2000 };

/** Splits the pairs, or reads what else is named. Equal seeds give equal sets. */
export async function prepareDev(
  pairs: PairSet,
  config: false | EvaluationConfig,
  seed: number,
  { signal, progress }: Invocation,
): Promise<Dev> {
  const { metrics = DEFAULT_DEV_METRICS, dev = { share: DEFAULTS.share } } = config || {};
  const best = (config ? config.best : undefined) ?? metrics[0]!;
  if (!config) return { train: pairs, sets: [], metrics, best, description: "nothing was measured" };
  // Its own check, and no other knows the names.
  evaluateRun(new Map([["", new Map()]]), new Map(), metrics);
  const most = { queries: config.queries ?? DEFAULTS.queries, documents: config.documents ?? DEFAULTS.documents };
  const random = createRandom(seed);
  if ("share" in dev) {
    progress.update("splitting off dev pairs", { done: 0, noun: "pair" });
    const { share, by, nearDuplicate } = dev;
    const split = await splitPairs(pairs, {
      dev: share,
      seed,
      signal,
      ...(by && { by }),
      ...(nearDuplicate !== undefined && { nearDuplicate }),
    });
    progress.update("splitting off dev pairs", { done: split.dev.size, noun: "pair" });
    const sets = await setsOf(split, most, random);
    const description = `${split.dev.size} dev pairs, split off by group`;
    return { train: split.train, sets, metrics, best, description };
  }
  const found = "beir" in dev ? await judged(dev, signal) : await synthetic(dev, most.queries, seed, signal);
  const { name, split, documents, queries, qrels } = found;
  const chosen = random.sample(queries.length, Math.min(queries.length, most.queries)).map((i) => queries[i]!);
  const ids = new Set(chosen.map(({ id }) => id));
  const kept = new Map([...qrels].filter(([id]) => ids.has(id)));
  const wanted = new Set([...kept.values()].flatMap((judgements) => [...judgements.keys()]));
  const texts = new Map(documents.map((document) => [document.id, textOf(document)]));
  const set = {
    dataset: name,
    queries: new Map(chosen.map(({ id, text }) => [id, text])),
    documents: bounded(texts, wanted, most.documents, random),
    qrels: kept,
  };
  const description = found.synthetic ?? `${name}, ${split}`;
  return { train: pairs, sets: [set], metrics, best, description };
}

async function judged({ beir, split = "dev" }: { beir: string; split?: string }, signal: AbortSignal) {
  return readDataSet(beir, { split, signal });
}

async function synthetic(
  { knownItems: paths, among }: { knownItems: string | readonly string[]; among?: string | readonly string[] },
  queries: number,
  seed: number,
  signal: AbortSignal,
) {
  const set = knownItems(await documentsOf(paths, signal), { queries, seed });
  if (among === undefined) return set;
  const own = new Set(set.documents.map(({ id }) => id));
  const others = (await documentsOf(among, signal)).map((document) =>
    own.has(document.id) ? { ...document, id: `among ${document.id}` } : document,
  );
  return { ...set, documents: [...set.documents, ...others] };
}

async function documentsOf(paths: string | readonly string[], signal: AbortSignal): Promise<BeirDocument[]> {
  const documents: BeirDocument[] = [];
  for await (const { document } of corpusOf(typeof paths === "string" ? [paths] : paths, signal).read()) {
    documents.push({ ...document, title: document.title ?? "" });
  }
  return documents;
}

function textOf({ title, text }: BeirDocument): string {
  return title === "" ? text : `${title} ${text}`;
}

/** A set for each data set of the dev pairs: their queries, their positives and training positives beside them. */
async function setsOf(
  { train, dev }: Pick<PairSplit, "train" | "dev">,
  most: { readonly queries: number; readonly documents: number },
  random: Random,
): Promise<DevSet[]> {
  const sets: DevSet[] = [];
  for (const dataset of dev.datasets) {
    const positions = dev.positionsOf(dataset);
    const byQuery = new Map<number, number[]>();
    for (const position of positions) {
      const key = dev.queryKey(position);
      byQuery.set(key, [...(byQuery.get(key) ?? []), position]);
    }
    if (byQuery.size === 0) continue;
    const keys = [...byQuery.keys()];
    const asked = random.sample(keys.length, Math.min(keys.length, most.queries)).map((i) => keys[i]!);
    const judgedRows = asked.flatMap((key) => byQuery.get(key)!);
    const queries = new Map<string, string>();
    const qrels = new Map<string, Map<string, number>>();
    const documents = new Map<string, string>();
    const wanted = new Set<string>();
    for (const [i, pair] of (await dev.read(judgedRows)).entries()) {
      const position = judgedRows[i]!;
      const [query, document] = [`q${dev.queryKey(position)}`, `d${dev.documentKey(position)}`];
      queries.set(query, queries.get(query) ?? pair.query);
      documents.set(document, pair.positive);
      wanted.add(document);
      qrels.set(query, (qrels.get(query) ?? new Map()).set(document, 1));
    }
    // A training positive may answer a dev query too, where pairs are split by document.
    const answers = new Map<string, string[]>();
    for (const [set, rows] of [
      [dev, positions],
      [train, train.positionsOf(dataset)],
    ] as const) {
      const free = Math.max(0, most.documents - documents.size);
      const chosen = random.sample(rows.length, Math.min(rows.length, free)).map((i) => rows[i]!);
      for (const [i, pair] of (await set.read(chosen)).entries()) {
        const document = `d${set.documentKey(chosen[i]!)}`;
        if (!documents.has(document)) documents.set(document, pair.positive);
      }
      for (const row of rows) {
        const query = `q${set.queryKey(row)}`;
        if (queries.has(query)) answers.set(query, [...(answers.get(query) ?? []), `d${set.documentKey(row)}`]);
      }
    }
    for (const [query, found] of answers) {
      for (const document of found) if (documents.has(document)) qrels.get(query)!.set(document, 1);
    }
    sets.push({ dataset, queries, documents, qrels });
  }
  if (sets.length === 0)
    throw new InvalidInputError("cde train: the dev split holds no pair. Take a larger evaluation.dev.share.");
  return sets;
}

/** The wanted texts, and others at random up to `most` in all. */
function bounded(
  texts: ReadonlyMap<string, string>,
  wanted: ReadonlySet<string>,
  most: number,
  random: Random,
): Map<string, string> {
  const others = [...texts.keys()].filter((id) => !wanted.has(id));
  const free = Math.max(0, most - wanted.size);
  const kept = new Set(random.sample(others.length, Math.min(others.length, free)).map((i) => others[i]!));
  return new Map([...texts].filter(([id]) => wanted.has(id) || kept.has(id)));
}

/** Context documents that figures are measured within. */
export interface DevContext {
  readonly documents: number;
  /** Whether some are drawn again where there are fewer, since the model reads so many. */
  readonly repeat: boolean;
}

/**
 * Figures of all sets: the mean as "dev/ndcg@10" and, where there are several, each one's as "dev/law: ndcg@10".
 * `context` says what the model is measured within; undefined for nothing.
 */
export function devEvaluator(
  { sets, metrics }: Dev,
  options: { readonly seed: number; readonly context: () => DevContext | undefined },
): Evaluator<"dev", string> {
  return {
    name: "dev",
    async evaluate(bind: BindTrainedModel) {
      const sums = new Map<string, number>(metrics.map((metric) => [metric, 0]));
      const figures: Record<string, number> = {};
      for (const { dataset, queries, documents, qrels } of sets) {
        const wanted = options.context();
        const context = wanted && contextOf(documents, wanted, options.seed);
        const found = await retrievalEvaluator("dev", {
          ...{ queries, documents, qrels, metrics, dataset },
          ...(context && { context }),
        }).evaluate(bind);
        for (const metric of metrics) {
          const value = found[metric]!;
          sums.set(metric, sums.get(metric)! + value);
          if (sets.length > 1) figures[`${dataset}: ${metric}`] = value;
        }
      }
      for (const [metric, sum] of sums) figures[metric] = sum / sets.length;
      return figures;
    },
  };
}

/** Texts drawn from what is searched. */
function contextOf(documents: ReadonlyMap<string, string>, wanted: DevContext, seed: number): string[] {
  const texts = [...documents.values()];
  const random = createRandom(seed);
  const size = wanted.documents;
  const drawn = random.sample(texts.length, Math.min(texts.length, size)).map((i) => texts[i]!);
  while (wanted.repeat && drawn.length < size) drawn.push(texts[random.integer(texts.length)]!);
  return drawn;
}
