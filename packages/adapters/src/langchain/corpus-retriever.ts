/** LangChain's retriever over any index of documents: embedded, on a server, or a `CorpusVectorStore`. */
import { InvalidInputError } from "@cde-js/core";
import type { CorpusDocument, Hit, Passage, SearchIndex, SearchOptions } from "@cde-js/retriever";
import { Document, type DocumentInterface } from "@langchain/core/documents";
import { BaseRetriever, type BaseRetrieverInput } from "@langchain/core/retrievers";
import { ensureConfig, type RunnableConfig } from "@langchain/core/runnables";

/** All that `search` of an index takes (score threshold, filter, mode, ...), and what LangChain gives every retriever. */
export interface CorpusRetrieverInput extends BaseRetrieverInput, Omit<SearchOptions, "signal"> {
  readonly index: Pick<SearchIndex, "search" | "get">;
  /** Documents wanted. A call has its own number by `invoke(query, { configurable: { k: 20 } })`. @default 4 */
  readonly k?: number;
  /**
   * Gives whole documents, each once, ranked by their best passage; `metadata.cde` says where in the text that is.
   * @default false
   */
  readonly parentDocuments?: boolean;
}

/** Under `metadata.cde` of every document found: score, title, and the passage's place in the text of its document. */
export type PassageMetadata = Omit<Hit, "id" | "text" | "metadata" | "passage"> & Passage;

/**
 * Passages as LangChain documents, best first: `id` is that of the document that the passage is from, so it may come
 * several times unless `mergeByDocument` or `parentDocuments` says otherwise. `configurable.k`, `signal` and `timeout` of
 * `invoke` hold for that call.
 */
export class CorpusRetriever extends BaseRetriever {
  static override lc_name(): string {
    return "CorpusRetriever";
  }

  lc_namespace: string[] = ["cde", "retrievers"];
  readonly index: Pick<SearchIndex, "search" | "get">;
  readonly parentDocuments: boolean;
  /** Of every search; `invoke` adds what its call asks for. */
  readonly search: SearchOptions;

  constructor(fields: CorpusRetrieverInput) {
    const { index, parentDocuments = false, callbacks, tags, metadata, verbose, ...search } = fields;
    super({
      ...(callbacks === undefined ? {} : { callbacks }),
      ...(tags ? { tags } : {}),
      ...(metadata ? { metadata } : {}),
      ...(verbose === undefined ? {} : { verbose }),
    });
    this.index = index;
    this.parentDocuments = parentDocuments;
    this.search = { k: 4, ...search, ...(parentDocuments ? { mergeByDocument: true } : {}) };
  }

  override invoke(input: string, options?: RunnableConfig): Promise<DocumentInterface[]> {
    const config = ensureConfig(options);
    const { signal, configurable } = config;
    const k: unknown = configurable?.k;
    const search = { ...this.search, ...(k === undefined ? {} : { k }), ...(signal ? { signal } : {}) };
    // The base doesn't hand its config on, so each call works on an object of its own that differs in this alone.
    return super.invoke.call(Object.create(this, { search: { value: search } }), input, config);
  }

  override async _getRelevantDocuments(query: string): Promise<DocumentInterface[]> {
    const hits = await this.index.search(query, this.search);
    if (!this.parentDocuments) return hits.map(toDocument);
    const parents = await Promise.all(hits.map(({ id }) => this.index.get(id)));
    return hits.flatMap((hit, i) => parentOf(hit, parents[i]) ?? []);
  }
}

/** The whole document in place of the passage; undefined where it was removed or replaced since the search. */
function parentOf(hit: Hit, parent: CorpusDocument | undefined): Document | undefined {
  const { start, end } = hit.passage;
  if (parent?.text.slice(start, end) !== hit.text) return undefined;
  const highlights = hit.highlights?.map((word) => ({ start: start + word.start, end: start + word.end }));
  return toDocument({ ...hit, text: parent.text, ...(highlights ? { highlights } : {}) });
}

function toDocument({ id, text, metadata, passage, ...found }: Hit): Document {
  if ("cde" in metadata) {
    throw new InvalidInputError(
      `retrieve: the metadata of document ${JSON.stringify(id)} has the key "cde", which holds the score and place of ` +
        "a passage. Rename it in the corpus.",
    );
  }
  const cde: PassageMetadata = { ...passage, ...found };
  return new Document({ id, pageContent: text, metadata: { ...metadata, cde } });
}
