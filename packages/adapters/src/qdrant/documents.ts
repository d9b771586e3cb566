/** The documents of a collection, of one tenant, as points: by id, by filter, or all. */
import type { CorpusDocument, Filter } from "@cde-js/retriever";
import { type PointAnswer, type PointId, readUpdate } from "./answers.js";
import type { CollectionState, QdrantCollection } from "./collection.js";
import { QdrantError } from "./errors.js";
import { serverFilter } from "./filters.js";
import { pointId, RESERVED, readDocument, readPassage } from "./points.js";
import { LOOK_UP } from "./writer.js";

/** First passages, which stand for their documents. */
const HEAD = { key: `${RESERVED}.n`, match: { value: 0 } };
const PASSAGE = { key: `${RESERVED}.of`, range: { gte: 1 } };

export class DocumentPoints {
  readonly #target: QdrantCollection;
  readonly tenant: string | undefined;
  readonly #state: () => CollectionState;

  constructor(target: QdrantCollection, tenant: string | undefined, state: () => CollectionState) {
    this.#target = target;
    this.tenant = tenant;
    this.#state = state;
  }

  /** Points read at once. */
  get page(): number {
    return Math.min(256, this.#state().strict.queryLimit);
  }

  /** All passages of these documents. */
  ofIds(ids: readonly string[]): { must: object[] } {
    return this.#own({ key: `${RESERVED}.id`, match: { any: ids } });
  }

  /** All passages that have a vector, and of them those that are drawn from a level on. */
  passagesWith(vector: string, level?: number): { must: object[] } {
    const drawn = level === undefined ? [] : [{ key: `${RESERVED}.draw`, range: { gte: level } }];
    return { must: [...this.#own(PASSAGE).must, { has_vector: vector }, ...drawn] };
  }

  async count(operation: string, what: "documents" | "passages", signal: AbortSignal | undefined): Promise<number> {
    return await this.#target.count(operation, this.#own(what === "documents" ? HEAD : PASSAGE), signal);
  }

  /** How many documents a filter accepts. */
  async countMatching(operation: string, filter: Filter, signal: AbortSignal | undefined): Promise<number> {
    return await this.#target.count(operation, this.#headsOf(filter), signal);
  }

  /** First passages of documents; with `whole`, the whole text of each too. */
  async heads(
    operation: string,
    ids: readonly string[],
    signal: AbortSignal | undefined,
    whole = false,
  ): Promise<PointAnswer[]> {
    const { name } = this.#state().record;
    const points = ids.map((id): PointId => pointId(name, this.tenant, id, 0));
    const payload = whole || { exclude: [`${RESERVED}.document`] };
    return await this.#target.retrieve(operation, points, { with_payload: payload }, signal);
  }

  /** Documents by id; those that aren't there are left out. */
  async byId(
    operation: string,
    ids: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<Map<string, CorpusDocument>> {
    const found = new Map<string, CorpusDocument>();
    for (const some of lookUps(ids)) {
      for (const head of await this.heads(operation, some, signal, true)) {
        const document = this.#sound(operation, () => readDocument(head));
        found.set(document.id, document);
      }
    }
    return found;
  }

  /** All documents, or those that a filter accepts, in the order of their point ids. */
  async *all(
    operation: string,
    filter: Filter | undefined,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<CorpusDocument> {
    const what = { filter: this.#headsOf(filter), with_payload: true };
    for await (const points of this.#target.scroll(operation, what, this.page, signal)) {
      for (const point of points) yield this.#sound(operation, () => readDocument(point));
    }
  }

  /** Those of the ids that are there. */
  async known(operation: string, ids: readonly string[], signal: AbortSignal | undefined): Promise<Set<string>> {
    const found = new Set<string>();
    for (const some of lookUps(ids)) {
      for (const head of await this.heads(operation, some, signal)) found.add(this.#idOf(operation, head));
    }
    return found;
  }

  /** Ids of the documents that a filter accepts. */
  async matching(operation: string, filter: Filter, signal: AbortSignal | undefined): Promise<Set<string>> {
    const what = { filter: this.#headsOf(filter), with_payload: { exclude: [`${RESERVED}.document`] } };
    const found = new Set<string>();
    for await (const points of this.#target.scroll(operation, what, this.page, signal)) {
      for (const point of points) found.add(this.#idOf(operation, point));
    }
    return found;
  }

  /** All their passages, by document and not by point: what an interrupted writer left goes too. */
  async remove(
    which: { readonly ids: readonly string[] } | { readonly filter: Filter },
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const filter = "ids" in which ? this.ofIds(which.ids) : (serverFilter(which.filter, this.tenant) ?? {});
    await this.#target.request("delete", "deletePoints", { wait: true, filter }, readUpdate, signal);
  }

  /** Ours, of this tenant, and what `condition` keeps. */
  #own(condition: object): { must: object[] } {
    const own = this.tenant === undefined ? [] : [{ key: `${RESERVED}.tenant`, match: { value: this.tenant } }];
    return { must: [...own, condition] };
  }

  #headsOf(filter: Filter | undefined): { must: object[] } {
    const selected = serverFilter(filter, this.tenant);
    return { must: selected && Object.keys(selected).length > 0 ? [selected, HEAD] : [HEAD] };
  }

  #idOf(operation: string, head: PointAnswer): string {
    return this.#sound(operation, () => readPassage(head).id);
  }

  #sound<T>(operation: string, read: () => T): T {
    try {
      return read();
    } catch (cause) {
      const { message } = cause as Error;
      throw new QdrantError("QDRANT_ANSWER", `${operation}: in "${this.#target.name}" ${message}.`, { cause });
    }
  }
}

/** Ids for one request each. */
export function* lookUps(ids: readonly string[]): Generator<string[]> {
  for (let at = 0; at < ids.length; at += LOOK_UP) yield [...new Set(ids.slice(at, at + LOOK_UP))];
}
