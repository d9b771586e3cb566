/** Documents of LangChain as an index keeps them, and back. */
import { randomUUID } from "node:crypto";
import { InvalidInputError } from "@cde-js/core";
import type { CorpusDocument, Filter, Hit, JsonObject, Selection } from "@cde-js/retriever";
import { checkDocument, refuseRepeated } from "@cde-js/retriever/backend";
import { Document, type DocumentInterface } from "@langchain/core/documents";

/** One metadata for each text, or one object for all. @throws InvalidInputError for another number of them */
export function documentsOf(texts: readonly string[], metadatas: object[] | object): Document[] {
  if (Array.isArray(metadatas) && metadatas.length !== texts.length) {
    throw new InvalidInputError(
      `fromTexts: ${texts.length} texts and ${metadatas.length} metadata. Pass one for each, or one object for all.`,
    );
  }
  return texts.map((pageContent, i) => {
    return new Document({ pageContent, metadata: Array.isArray(metadatas) ? metadatas[i] : metadatas });
  });
}

/**
 * The documents with their ids, copied, so that neither side changes the other's: an id of `ids`, else the document's,
 * else a new UUID.
 *
 * @throws InvalidInputError with the position: an id that is none or comes twice, metadata that JSON would change
 */
export function entriesOf(
  operation: string,
  documents: readonly DocumentInterface[],
  ids?: readonly string[],
): CorpusDocument[] {
  if (ids !== undefined && ids.length !== documents.length) {
    throw new InvalidInputError(`${operation}: ${documents.length} documents and ${ids.length} ids.`);
  }
  const positions = new Map<string, number>();
  return documents.map(({ pageContent, metadata, id: own }, position) => {
    const id = ids?.[position] ?? own ?? randomUUID();
    const document = { id, text: pageContent, ...(metadata === undefined ? {} : { metadata: metadata as JsonObject }) };
    refuseRepeated(id, position, positions, operation);
    return checkDocument(document, position, operation);
  });
}

/** What `delete` of a store is asked. @throws InvalidInputError for neither or both, and says how to delete everything */
export function selectionOf({ ids, filter }: { ids?: string[]; filter?: Filter }): Selection {
  if (ids !== undefined && filter === undefined) return { ids };
  if (ids === undefined && filter !== undefined) return { filter };
  throw new InvalidInputError(
    `delete: needs either ids or filter, got ${ids === undefined ? "neither" : "both"}. To delete everything: { filter: {} }.`,
  );
}

export function toDocument({ id, text, metadata = {} }: CorpusDocument | Hit): Document {
  return new Document({ id, pageContent: text, metadata: structuredClone(metadata) });
}
