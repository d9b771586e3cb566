/** Qdrant as the place of a corpus: `{ backend: qdrant({ … }) }` of `CorpusIndex.build` and `open`. */
import { InvalidInputError } from "@cde-js/core";
import type { CorpusBackend } from "@cde-js/retriever";
import type { QdrantCreateOptions, QdrantOpenOptions } from "./options.js";
import { QdrantIndex } from "./qdrant-index.js";

export interface QdrantBackendOptions extends Omit<QdrantCreateOptions, "split" | "lexical" | "signal"> {
  /** Terms of a passage on average. @default measured over the first 4,096 passages written */
  readonly averageLength?: number;
}

/** Of building alone: a collection that is opened has them. */
const OF_BUILDING = ["averageLength", "tenants", "payloadIndexes", "parameters", "vectors"];

/**
 * For `backend` of `CorpusIndex.build`, `fromCorpus` and `open`, with one object for all of them: options that make a
 * collection don't matter where it is opened.
 *
 * @example
 * const index = await CorpusIndex.build(embedder, documents, { backend: qdrant({ url, collection: "leases" }) });
 * @throws InvalidInputError for options of the index itself (split, lexical), which stand beside `backend`
 */
export function qdrant(options: QdrantBackendOptions): CorpusBackend<QdrantIndex> {
  for (const name of ["split", "lexical", "signal"]) {
    if ((options as unknown as Record<string, unknown>)[name] === undefined) continue;
    throw new InvalidInputError(
      `qdrant: ${name} is of the index, and not of where it lies. Put it beside backend: { ${name}, backend: qdrant({ … }) }.`,
    );
  }
  const { averageLength, ...place } = options;
  return {
    name: `the Qdrant collection "${options.collection}"`,
    build: (embedder, documents, { lexical, ...asked }) => {
      if (lexical === false && averageLength !== undefined) {
        throw new InvalidInputError("build: averageLength is of words, and lexical is false. Leave one out.");
      }
      const words = lexical === false || averageLength === undefined ? lexical : { ...lexical, averageLength };
      return QdrantIndex.build(embedder, documents, {
        ...place,
        ...asked,
        ...(words === undefined ? {} : { lexical: words }),
      });
    },
    open: (embedder, asked) => {
      const opening = Object.fromEntries(Object.entries(place).filter(([name]) => !OF_BUILDING.includes(name)));
      return QdrantIndex.open(embedder, { ...(opening as unknown as QdrantOpenOptions), ...asked });
    },
  };
}
