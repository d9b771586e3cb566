/** A cache of vectors that knows its context: what another context wrote is never given out. */
import { createHash } from "node:crypto";
import { CdeError, FingerprintMismatchError, InvalidInputError } from "@cde-js/core";
import { Embeddings } from "@langchain/core/embeddings";
import type { BaseStore } from "@langchain/core/stores";
import type { ContextBoundEmbeddings } from "./bound-embeddings.js";
import { fromLittleEndian, littleEndian } from "./little-endian.js";

export interface CachedEmbeddingsOptions {
  /** Keep vectors of queries too. @default false */
  readonly queries?: boolean;
}

/** A value of a cache that isn't what was written there: cut, altered, or of another program. */
export class CorruptCacheError extends CdeError {
  readonly key: string;

  constructor(key: string, message: string) {
    super("CORRUPT_CACHE", message);
    this.key = key;
  }
}

type Kind = "query" | "document";

const DIGEST_BYTES = 32;
const NEWLINE = 10;

/**
 * What LangChain's `CacheBackedEmbeddings` does, bound to a context. Keys hold the fingerprint, and so does every value
 * beside its checksum, so that a value that came under a wrong key (copied, renamed, an old dump) raises an error. A
 * text that is found isn't embedded: `onTruncated` doesn't hear of it again. Goes wherever `ContextualEmbeddings` go.
 */
export class CachedEmbeddings extends Embeddings implements ContextBoundEmbeddings {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly dimensions: number;
  readonly #embeddings: ContextBoundEmbeddings;
  readonly #store: BaseStore<string, Uint8Array>;
  readonly #queries: boolean;

  /** @param store any byte store of LangChain's: in memory, a folder, Redis */
  constructor(
    embeddings: ContextBoundEmbeddings,
    store: BaseStore<string, Uint8Array>,
    options: CachedEmbeddingsOptions = {},
  ) {
    super({ maxRetries: 0 });
    this.modelId = embeddings.modelId;
    this.fingerprint = embeddings.fingerprint;
    this.dimensions = embeddings.dimensions;
    this.#embeddings = embeddings;
    this.#store = store;
    this.#queries = options.queries ?? false;
  }

  /** @throws FingerprintMismatchError, CorruptCacheError for what the store holds */
  async embedQuery(text: string): Promise<number[]> {
    if (!this.#queries) return this.#embeddings.embedQuery(text);
    const [vector] = await this.#cached("query", [text], async () => [await this.#embeddings.embedQuery(text)]);
    return vector as number[];
  }

  /** @throws FingerprintMismatchError, CorruptCacheError for what the store holds */
  embedDocuments(texts: string[]): Promise<number[][]> {
    return this.#cached("document", texts, (missing) => this.#embeddings.embedDocuments(missing));
  }

  async #cached(
    kind: Kind,
    texts: readonly string[],
    embed: (missing: string[]) => Promise<number[][]>,
  ): Promise<number[][]> {
    if (texts.length === 0) return [];
    const keys = new Map(texts.map((text) => [text, this.#keyOf(kind, text)]));
    const values = await this.#store.mget([...keys.values()]);
    const vectors = new Map<string, readonly number[]>();
    const missing: string[] = [];
    [...keys].forEach(([text, key], i) => {
      const value = values[i];
      if (value) vectors.set(text, this.#read(key, value));
      else missing.push(text);
    });
    if (missing.length > 0) {
      const made = await embed(missing);
      if (made.length !== missing.length || made.some(({ length }) => length !== this.dimensions)) {
        throw new InvalidInputError(
          `cache: the embeddings gave ${made.length} vectors of ${made[0]?.length} dimensions for ${missing.length} texts, ` +
            `expected ${this.dimensions} dimensions.`,
        );
      }
      // As they will be read: in single precision, whoever asks first.
      const rounded = made.map((vector) => Float32Array.from(vector));
      await this.#store.mset(
        missing.map((text, i) => {
          const key = keys.get(text) as string;
          return [key, this.#write(key, rounded[i] as Float32Array)];
        }),
      );
      missing.forEach((text, i) => {
        vectors.set(text, Array.from(rounded[i] as Float32Array));
      });
    }
    // A text that comes twice has an array of its own each time.
    return texts.map((text) => [...(vectors.get(text) as readonly number[])]);
  }

  #keyOf(kind: Kind, text: string): string {
    return `cde-${this.fingerprint}-${kind}-${createHash("sha256").update(text).digest("hex")}`;
  }

  #write(key: string, vector: Float32Array): Uint8Array {
    const bytes = littleEndian(vector);
    return Buffer.concat([Buffer.from(`${this.fingerprint}\n`), checksum(key, bytes), bytes]);
  }

  #read(key: string, value: Uint8Array): number[] {
    const head = value.indexOf(NEWLINE);
    const fingerprint = head < 0 ? undefined : Buffer.from(value.subarray(0, head)).toString("latin1");
    if (fingerprint !== undefined && fingerprint !== this.fingerprint && /^[0-9a-f]{64}$/.test(fingerprint)) {
      throw new FingerprintMismatchError(
        this.fingerprint,
        fingerprint,
        `cache: the value of ${key} was made under fingerprint ${fingerprint}, these embeddings have ${this.fingerprint}. ` +
          "Their vectors are not comparable; empty the cache.",
      );
    }
    const bytes = value.subarray(head + 1 + DIGEST_BYTES);
    const sound =
      fingerprint === this.fingerprint &&
      bytes.length === this.dimensions * Float32Array.BYTES_PER_ELEMENT &&
      checksum(key, bytes).equals(value.subarray(head + 1, head + 1 + DIGEST_BYTES));
    if (sound) return Array.from(fromLittleEndian(bytes));
    throw new CorruptCacheError(
      key,
      `cache: the value of ${key} (${value.length} bytes) is not what was written there. Remove it, or empty the cache.`,
    );
  }
}

/** Of the key too, so that a value under the key of another text is noticed. */
function checksum(key: string, bytes: Uint8Array): Buffer {
  return createHash("sha256").update(`${key}\n`).update(bytes).digest();
}
