/** Chooses the context of the next generation, and says what it does to judged queries. */
import { CorpusContext, calibrateContext, type Embedder, InvalidInputError, type SpectralStrength } from "@cde-js/core";
import { evaluateRun } from "@cde-js/core/evaluation";
import type { ContextEncoder, ContextPassage, CorpusContextOptions } from "./context/from-corpus.js";
import { type ContextChoice, selectContext } from "./context/select-context.js";
import { type IndexState, storingEmbedder } from "./index-state.js";
import { type LabelledPassage, livePassages } from "./live-passages.js";
import { formerContextOf, refuseFingerprint } from "./open-index.js";
import type { Hit } from "./search/options.js";

/** A query whose answers are known: grades by document id, 0 for none. */
export interface JudgedQuery {
  readonly query: string;
  readonly relevant: Readonly<Record<string, number>>;
}

export interface NewContextOptions
  extends Pick<CorpusContextOptions, "contextSize" | "strategy" | "stratum" | "seed" | "repeat"> {
  /** The context to take. @default one that is chosen from the index's own documents */
  readonly context?: CorpusContext;
  /**
   * Strength of a spectral context; `"auto"` chooses it anew, for which at most 1,000 short texts are embedded.
   * @default that of `context`, or of the present one: nothing is embedded
   */
  readonly strength?: SpectralStrength | "off" | "auto";
  /** The embedder of the new generation, bound already, for one that can't be bound anew by the index. */
  readonly embedder?: Embedder;
  /** Builds a context that isn't spectral. @default the encoder that the index was opened with */
  readonly encoder?: ContextEncoder;
}

export interface NewContext {
  readonly embedder: Embedder;
  /** What was chosen as context and what was left out; undefined where the caller gave it. */
  readonly choice: ContextChoice<ContextPassage> | undefined;
}

const DEFAULT_SIZE = 512;

/** @throws InvalidInputError for options that contradict each other or an index that is too small */
export async function newContext(
  state: IndexState,
  encoder: ContextEncoder | undefined,
  options: NewContextOptions,
  signal: AbortSignal | undefined,
): Promise<NewContext> {
  const given = options.encoder ?? encoder;
  const { context, strength } = options;
  if (options.embedder) {
    if (context || strength !== undefined) {
      throw new InvalidInputError("recontext: an embedder has its own context and strength. Leave the others out.");
    }
    return { embedder: options.embedder, choice: undefined };
  }
  if (context) {
    if (strength === "auto") {
      throw new InvalidInputError(
        "recontext: a context that is given keeps its strength or takes another one; its texts, by which one is chosen, aren't in it. Use calibrateContext.",
      );
    }
    const bound = strength === undefined ? context : context.withStrength(strength);
    return { embedder: bind(state, given, bound), choice: undefined };
  }
  const { passages, choice } = await choose(state, given, options, signal);
  const texts = passages.map(({ text }) => text);
  const present = state.embedder.context?.identity.strength;
  const wanted = strength ?? present ?? undefined;
  if (state.embedder.stage === "spectral" && storesBase(state)) {
    const vectors = await state.stored.read(Uint32Array.from(passages, ({ label }) => label));
    const base = storingEmbedder(state.embedder);
    const fixed = wanted === undefined || wanted === "auto" ? {} : { strength: wanted };
    const made = await CorpusContext.fromBaseVectors(base, texts, unit(vectors, state), fixed);
    const chosen = wanted === "auto" ? await calibrateContext(made, texts, base, { ...(signal && { signal }) }) : made;
    return { embedder: bind(state, given, chosen), choice };
  }
  if (!given) {
    throw new InvalidInputError(
      `recontext: a context of ${state.embedder.modelId} is built by its encoder. Pass { encoder }, a { context } that it built, or an { embedder }.`,
    );
  }
  const { repeat } = options;
  const ofStrength = wanted === undefined ? {} : { strength: wanted };
  const made = await given.buildContext(texts, { ...ofStrength, ...(repeat && { repeat }), ...(signal && { signal }) });
  return { embedder: given.withContext(made), choice };
}

/** Binds the index's model to another context. */
function bind(state: IndexState, encoder: ContextEncoder | undefined, context: CorpusContext): Embedder {
  const { embedder } = state;
  if (embedder.withContext) return embedder.withContext(context);
  if (encoder) return encoder.withContext(context);
  throw new InvalidInputError(
    `recontext: ${embedder.modelId} can't be bound to another context here. Pass { encoder }, or an { embedder } that is bound to it.`,
  );
}

/** Passages of the index, those that its documents have now. */
async function choose(
  state: IndexState,
  encoder: ContextEncoder | undefined,
  options: NewContextOptions,
  signal: AbortSignal | undefined,
): Promise<{ passages: LabelledPassage[]; choice: ContextChoice<ContextPassage> }> {
  const { strategy = "random", stratum, seed = 0, repeat = false } = options;
  const { identity } = state.embedder.context ?? {};
  const exact = encoder?.contextSize ?? (identity && identity.stage !== "spectral" ? identity.texts.length : undefined);
  const size = options.contextSize ?? exact ?? DEFAULT_SIZE;
  const byVectors = strategy === "clusters" || strategy === "farthest";
  const choice = await selectContext(livePassages(state), {
    size,
    strategy,
    seed,
    text: ({ text }) => text,
    ...(stratum === undefined ? {} : { stratum }),
    ...(byVectors ? { embedder: state.storing } : {}),
    ...(exact === undefined ? { atMost: true } : { repeat }),
    ...(signal ? { signal } : {}),
  });
  const chosen = choice.chosen.map(({ label: _, ...passage }) => passage);
  return { passages: choice.chosen, choice: { ...choice, chosen } };
}

function storesBase(state: IndexState): boolean {
  return state.isMapped || state.embedder.context === undefined || state.embedder.context.identity.strength === "off";
}

/** A context is made of vectors at unit length, whatever lengths a function behind the embedder gave. */
function unit(rows: Float32Array, { embedder: { dimensions } }: IndexState): Float32Array {
  for (let at = 0; at < rows.length; at += dimensions) {
    const row = rows.subarray(at, at + dimensions);
    const squares = row.reduce((sum, x) => sum + x * x, 0);
    if (Math.abs(squares - 1) > 1e-6) row.set(row.map((x) => x / Math.sqrt(squares)));
  }
  return rows;
}

/** Mean nDCG@10 of judged queries. */
export async function judge(
  judged: readonly JudgedQuery[],
  search: (query: string) => Promise<readonly Hit[]>,
): Promise<number> {
  const qrels = new Map(judged.map(({ relevant }, i) => [String(i), new Map(Object.entries(relevant))]));
  const run = new Map<string, readonly string[]>();
  for (const [i, { query }] of judged.entries())
    run.set(
      String(i),
      (await search(query)).map(({ id }) => id),
    );
  return evaluateRun(qrels, run, ["ndcg@10"]).mean["ndcg@10"];
}

/** The embedder of the context before, bound by the index or given. */
export async function formerEmbedder(
  state: IndexState,
  encoder: ContextEncoder | undefined,
  given: Embedder | undefined,
): Promise<{ former: NonNullable<IndexState["former"]>; embedder: Embedder }> {
  const { former } = state;
  if (!former) throw new InvalidInputError("rollback: this index has no context before the present one.");
  const context = await formerContextOf(state);
  let embedder = given;
  if (!embedder && context) embedder = bind(state, encoder, context);
  if (!embedder && former.fingerprint === state.embedder.base?.fingerprint) embedder = state.embedder.base;
  embedder ??= encoder?.withoutContext();
  if (!embedder) {
    throw new InvalidInputError(
      `rollback: the context before is not kept in this index. Pass the { embedder } of fingerprint ${former.fingerprint}.`,
    );
  }
  refuseFingerprint("rollback", former.fingerprint, embedder);
  return { former, embedder };
}
