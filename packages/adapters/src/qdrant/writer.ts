/** One `upsert`: documents become points, in an order that tells a complete document from a part of one. */
import { InvalidInputError } from "@cde-js/core";
import {
  type Analyzer,
  type CorpusDocument,
  countTerms,
  type JsonObject,
  type SplitOptions,
  type Splitter,
  sparseVector,
  type UpsertReport,
} from "@cde-js/retriever";
import {
  checkDocument,
  drawLevel,
  embeddedText,
  passageSource,
  refuseRepeatedIds,
  requireFingerprint,
} from "@cde-js/retriever/backend";
import { type PointAnswer, readUpdate } from "./answers.js";
import { countedText, MEASURED } from "./average-length.js";
import { BASE, type CollectionState, type QdrantCollection, WORDS } from "./collection.js";
import {
  batches,
  checkMetadata,
  jsonNumbers,
  LEAST_LEVEL,
  metadataOf,
  type PassagePayload,
  type Point,
  pointId,
  RESERVED,
  readPassage,
  textHash,
} from "./points.js";
import { embedTexts, type GenerationEmbedder } from "./source.js";

export interface WriteProgress {
  /** Documents read so far. */
  readonly documents: number;
  /** Passages embedded so far. */
  readonly embedded: number;
  /** Passages that the server has. */
  readonly written: number;
}

export interface WriteOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: WriteProgress) => void;
}

export interface WriteReport extends UpsertReport {
  /** Documents given. */
  readonly documents: number;
  /** Passages written. */
  readonly passages: number;
  /** Passages of documents whose texts were there already. */
  readonly passagesKept: number;
}

/** Documents whose heads are looked up in one request. */
export const LOOK_UP = 128;
/** Passages embedded and written together. */
const SLICE = 1024;

/** What a writer needs of its index. */
export interface Writing {
  readonly target: QdrantCollection;
  readonly tenant: string | undefined;
  /** That ids are made from. */
  readonly name: string;
  readonly analyzer: Analyzer | undefined;
  readonly split: SplitOptions | Splitter | false | undefined;
  state(): CollectionState;
  keep(state: CollectionState): void;
  refresh(signal: AbortSignal | undefined): Promise<CollectionState>;
  /** The one that answers first, then those that are written beside it. */
  generations(): readonly GenerationEmbedder[];
  /** A write that a change of context has to wait for. */
  track(write: Promise<void>): void;
  heads(ids: readonly string[], signal: AbortSignal | undefined): Promise<PointAnswer[]>;
  /** Every passage of these documents, also what an interrupted writer left. */
  passages(ids: readonly string[], signal: AbortSignal | undefined): AsyncIterable<readonly PointAnswer[]>;
  writeMetadata(id: string, before: JsonObject, after: JsonObject, signal: AbortSignal | undefined): Promise<void>;
}

/** A document on its way: its passages as they will be embedded. */
interface Pending {
  readonly document: CorpusDocument;
  readonly passages: readonly { readonly start: number; readonly end: number; readonly embedded: string }[];
  readonly bare: boolean;
  /** Numbers of the passages that the collection has of it. */
  readonly present: readonly number[];
  /** Whether its first passage there says that all are. */
  readonly whole: boolean;
}

/** Vectors of whole documents by id, in place of those that would be embedded, and what they were made under. */
export interface GivenVectors {
  readonly vectors: ReadonlyMap<string, Float32Array>;
  readonly fingerprint: string;
}

/** One `upsert`: looks up what is there, splits, embeds a slice while the slice before is written. */
export class Writer {
  readonly #index: Writing;
  readonly #signal: AbortSignal | undefined;
  readonly #onProgress: WriteOptions["onProgress"];
  readonly #given: GivenVectors | undefined;
  readonly #titlesLeftOut: string[] = [];
  readonly #withoutPassages: string[] = [];
  readonly #truncated = new Set<string>();
  #documents = 0;
  readonly #counts = { added: 0, replaced: 0, metadataChanged: 0, unchanged: 0 };
  #embedded = 0;
  #written = 0;
  #kept = 0;
  #pending: Pending[] = [];
  #pendingPassages = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(index: Writing, { signal, onProgress }: WriteOptions, given?: GivenVectors) {
    this.#index = index;
    this.#signal = signal;
    this.#onProgress = onProgress;
    this.#given = given;
  }

  async run(documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>): Promise<WriteReport> {
    requireIterable(documents);
    refuseRepeatedIds(documents, "upsert");
    const split = this.#given ? asWhole : passageSource(this.#index.generations()[0]!.embedder, this.#index.split);
    let some = new Map<string, { document: CorpusDocument; position: number }>();
    let position = 0;
    try {
      for await (const value of documents) {
        const document = checkDocument(value, position, "upsert");
        checkMetadata("upsert", document.id, document.metadata);
        // Two of one id never lie in one batch, where their order would be open.
        if (some.has(document.id) || this.#pending.some((waiting) => waiting.document.id === document.id)) {
          await this.#lookUp(some, split);
          await this.#flush();
          some = new Map();
        }
        some.set(document.id, { document, position: position++ });
        this.#documents = position;
        if (some.size < LOOK_UP) continue;
        await this.#lookUp(some, split);
        some = new Map();
      }
      await this.#lookUp(some, split);
      await this.#flush();
    } finally {
      // What is under way ends before this does, so that a caller that catches an error finds nothing moving.
      await this.#writing.catch(() => {});
    }
    await this.#writing;
    return {
      documents: this.#documents,
      passages: this.#written,
      passagesKept: this.#kept,
      ...this.#counts,
      embedded: this.#embedded,
      withoutPassages: this.#withoutPassages,
      titlesLeftOut: this.#titlesLeftOut,
      truncated: [...this.#truncated],
    };
  }

  async #lookUp(
    some: ReadonlyMap<string, { document: CorpusDocument; position: number }>,
    split: ReturnType<typeof passageSource>,
  ): Promise<void> {
    if (some.size === 0) return;
    const heads = await this.#index.heads([...some.keys()], this.#signal);
    const known = new Map(
      heads.map((head) => [(head.payload[RESERVED] as { id?: unknown } | undefined)?.id, head] as const),
    );
    // Of documents without a first passage, or with one that was being replaced, anything may be there.
    const broken = [...some.keys()].filter((id) => {
      const head = known.get(id);
      return !head || !readPassage(head).hash;
    });
    const left = new Map<string, number[]>();
    if (broken.length > 0) {
      for await (const points of this.#index.passages(broken, this.#signal)) {
        for (const point of points) {
          const { id, n } = readPassage(point);
          left.set(id, [...(left.get(id) ?? []), n]);
        }
      }
    }
    const metadataAlone: Promise<void>[] = [];
    for (const { document, position } of some.values()) {
      const { id, text, metadata = {} } = document;
      const head = known.get(id);
      const before = head && readPassage(head);
      if (head && !this.#given && before?.hash === textHash(document)) {
        this.#kept += before.of;
        const stored = metadataOf(head.payload);
        const same = JSON.stringify(sorted(stored)) === JSON.stringify(sorted(metadata));
        this.#counts[same ? "unchanged" : "metadataChanged"]++;
        if (!same) metadataAlone.push(this.#index.writeMetadata(id, stored, metadata, this.#signal));
        continue;
      }
      const { passages, prefix, titleLeftOut } = await split(document, position);
      if (titleLeftOut) this.#titlesLeftOut.push(id);
      const found = [...passages].map(({ start, end }) => {
        return { start, end, embedded: embeddedText(prefix, text, { start, end }) };
      });
      if (found.length === 0 && prefix !== "") found.push({ start: 0, end: 0, embedded: prefix.trimEnd() });
      if (found.length === 0) this.#withoutPassages.push(id);
      this.#counts[head || left.has(id) ? "replaced" : "added"]++;
      const whole = Boolean(before?.hash);
      const present =
        before && whole ? Array.from({ length: Math.max(1, before.of) }, (_, n) => n) : (left.get(id) ?? []);
      this.#pending.push({ document, passages: found, bare: titleLeftOut, present, whole });
      this.#pendingPassages += found.length;
      const { lexical } = this.#index.state().record;
      const enough = lexical && lexical.averageLength === null ? MEASURED : SLICE;
      if (this.#pendingPassages >= enough) await this.#flush();
    }
    await settled(metadataAlone);
    this.#report();
  }

  /** Embeds what is pending, and writes it once the slice before is written. */
  async #flush(): Promise<void> {
    const pending = this.#pending;
    [this.#pending, this.#pendingPassages] = [[], 0];
    if (pending.length === 0) return;
    await this.#measure(pending);
    const texts = pending.flatMap(({ passages }) => passages.map(({ embedded }) => embedded));
    const ids = pending.flatMap(({ document, passages }) => passages.map(() => document.id));
    const generations = this.#index.generations();
    const vectors = texts.map((): Record<string, number[]> => ({}));
    const done = this.#embedded;
    const [first, ...others] = generations as readonly [GenerationEmbedder, ...GenerationEmbedder[]];
    // The collection may have moved to another context since they were checked.
    if (this.#given)
      requireFingerprint("upsertVectors", "the vectors", [], this.#given.fingerprint, first.embedder.fingerprint);
    const made = this.#given
      ? { vectors: ids.map((id) => this.#given!.vectors.get(id)!), base: undefined, truncated: [] }
      : await embedTexts("upsert", texts, first, {
          signal: this.#signal,
          onProgress: (count) => {
            this.#embedded = done + count;
            this.#report();
          },
        });
    this.#embedded = this.#given ? 0 : done + texts.length;
    for (const at of made.truncated) this.#truncated.add(ids[at] as string);
    made.vectors.forEach((vector, i) => {
      vectors[i]![first.vector] = jsonNumbers(vector);
    });
    made.base?.forEach((vector, i) => {
      vectors[i]![BASE] = jsonNumbers(vector);
    });
    for (const other of others) {
      const beside = await embedTexts("upsert", texts, other, { signal: this.#signal });
      beside.vectors.forEach((vector, i) => {
        vectors[i]![other.vector] = jsonNumbers(vector);
      });
    }
    await this.#writing;
    // A change of context that began while this was embedded has to know of what is written.
    const state = await this.#index.refresh(this.#signal);
    const known = new Set(generations.map(({ vector }) => vector));
    if (this.#index.generations().some(({ vector }) => !known.has(vector))) {
      // Rare, and right: embedded once more for all contexts.
      this.#pending = [...pending];
      this.#embedded = done;
      await this.#flush();
      return;
    }
    // A generation that was dropped meanwhile.
    for (const { vector } of generations) {
      if (!state.vectors.has(vector)) for (const entry of vectors) delete entry[vector];
    }
    this.#writing = this.#write(pending, vectors, state);
    this.#index.track(this.#writing);
    // Awaited by the next slice, or at the end; this only keeps a failure in between from counting as unhandled.
    this.#writing.catch(() => {});
  }

  async #write(pending: readonly Pending[], vectors: readonly Record<string, number[]>[], state: CollectionState) {
    const { target } = this.#index;
    const [heads, others, stale, replaced]: [Point[], Point[], string[], string[]] = [[], [], [], []];
    let at = 0;
    for (const { document, passages, bare, present, whole } of pending) {
      const count = Math.max(1, passages.length);
      for (let n = 0; n < count; n++) {
        const point = this.#point(document, { n, passages, bare }, passages.length === 0 ? {} : vectors[at + n]!);
        (n === 0 ? heads : others).push(point);
      }
      at += passages.length;
      if (whole && Math.max(present.length, count) > 1) replaced.push(this.#idOf(document.id, 0));
      stale.push(...present.filter((n) => n >= count).map((n) => this.#idOf(document.id, n)));
    }
    const most = Math.min(256, state.strict.upsertBatch);
    const signal = this.#signal;
    // A first passage says by its digest that all others are there. It says so no more while they are replaced.
    for (const points of pieces(replaced)) {
      const body = { wait: true, points, key: RESERVED, payload: { hash: "" } };
      await target.request("upsert", "setPayload", body, readUpdate, signal);
    }
    for (const points of pieces(stale)) {
      await target.request("upsert", "deletePoints", { wait: true, points }, readUpdate, signal);
    }
    for (const part of [others, heads]) {
      const writes = batches(part, most).map(async (points) => {
        await target.request("upsert", "upsertPoints", { wait: true, points }, readUpdate, signal);
        this.#written += points.filter(({ vector }) => Object.keys(vector).length > 0).length;
        this.#report();
      });
      await settled(writes);
    }
  }

  #point(
    { id, text, title, metadata = {} }: CorpusDocument,
    { n, passages, bare }: { readonly n: number } & Pick<Pending, "passages" | "bare">,
    vectors: Readonly<Record<string, number[]>>,
  ): Point {
    const { analyzer, tenant } = this.#index;
    const { start, end } = passages[n] ?? { start: 0, end: 0 };
    const own = text.slice(start, end);
    const lexical = this.#index.state().record.lexical;
    const words =
      analyzer && lexical?.averageLength && passages.length > 0
        ? sparseVector(analyzer, countedText(title, own), {
            k1: lexical.k1,
            b: lexical.b,
            averageLength: lexical.averageLength,
          })
        : undefined;
    const draw = passages.length === 0 ? 0 : drawLevel(id, n);
    const cde: PassagePayload = {
      id,
      n,
      of: passages.length,
      start,
      end,
      text: own,
      ...(title === undefined ? {} : { title }),
      ...(tenant === undefined ? {} : { tenant }),
      ...(bare ? { bare } : {}),
      ...(draw < LEAST_LEVEL ? {} : { draw }),
      ...(n === 0 ? { hash: textHash({ id, text, ...(title === undefined ? {} : { title }) }) } : {}),
      ...(n === 0 && own !== text ? { document: text } : {}),
    };
    return {
      id: this.#idOf(id, n),
      vector: { ...vectors, ...(words && words.indices.length > 0 ? { [WORDS]: words } : {}) },
      payload: { ...metadata, [RESERVED]: cde as unknown as JsonObject },
    };
  }

  #idOf(document: string, passage: number): string {
    return pointId(this.#index.name, this.#index.tenant, document, passage);
  }

  /** The first write into a collection fixes the average length of its passages, for good. */
  async #measure(pending: readonly Pending[]): Promise<void> {
    const { analyzer, target } = this.#index;
    const { lexical } = this.#index.state().record;
    if (!analyzer || !lexical || lexical.averageLength !== null) return;
    let [sum, withTerms] = [0, 0];
    for (const { document, passages } of pending) {
      for (const { start, end } of passages) {
        const { length } = countTerms(analyzer, countedText(document.title, document.text.slice(start, end)));
        sum += length;
        if (length > 0) withTerms++;
      }
    }
    if (withTerms === 0) return; // nothing of this has words; the next write measures
    const state = await this.#index.refresh(this.#signal);
    if (state.record.lexical?.averageLength != null) return; // another writer was first
    const record = { ...state.record, lexical: { ...lexical, averageLength: sum / withTerms } };
    await target.writeRecord("upsert", record, this.#signal);
    this.#index.keep({ ...state, record });
  }

  #report(): void {
    this.#onProgress?.({ documents: this.#documents, embedded: this.#embedded, written: this.#written });
  }
}

function requireIterable(documents: unknown): void {
  if (typeof documents === "object" && documents !== null) {
    if (Symbol.iterator in documents || Symbol.asyncIterator in documents) return;
  }
  throw new InvalidInputError("upsert: documents must be an iterable or async iterable of { id, text }.");
}

/** Keys in one order, at every level, so that equal metadata are equal text. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const keys = Object.keys(value).sort();
  return Object.fromEntries(keys.map((key) => [key, sorted((value as Record<string, unknown>)[key])]));
}

/** One passage a document, blank or not. */
function asWhole({ text }: CorpusDocument): Awaited<ReturnType<ReturnType<typeof passageSource>>> {
  return { passages: [{ start: 0, end: text.length }], prefix: "", titleLeftOut: false };
}

/** When all have ended: nothing goes on behind an error. @throws the first failure */
async function settled(work: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

/** Ids for one request each. */
function pieces(ids: readonly string[]): string[][] {
  const size = 1000;
  return Array.from({ length: Math.ceil(ids.length / size) }, (_, i) => ids.slice(i * size, (i + 1) * size));
}
