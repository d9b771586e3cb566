/**
 * Base vectors of BEIR sets, as the reference's figures were made: documents (`title text`) cut at 128 tokens, queries at
 * 64, float32. Kept in a folder, since encoding a corpus takes minutes and the maps that are compared take none.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { ContextualEncoder, createRandom, DEFAULT_SMOOTHING } from "@cde-js/core";
import { readCorpus, readQrels, readQueries } from "@cde-js/core/evaluation";

const DOCUMENT_TOKENS = 128;
const QUERY_TOKENS = 64;

/** `{ set: { queries, context } }`: the test queries and context documents of the reference. */
export async function referenceIds(data) {
  return JSON.parse(gunzipSync(await readFile(join(data, "reference-ids.json.gz"))).toString("utf8"));
}

/** Reads sets, encoding what `cache` (a folder; none where absent) doesn't hold. Dispose of it. */
export class BaseVectors {
  #data;
  #base;
  #cache;
  #encoders = new Map();

  constructor({ data, base, cache }) {
    this.#data = data;
    this.#base = base;
    this.#cache = cache;
  }

  /**
   * `{ ids, titles, texts, rows }` of the documents; a text begins with its title, rows are packed. Of more than `limit` those of `keep` and as many others,
   * drawn by a seed, as fit.
   */
  async documents(set, { limit, keep = [] } = {}) {
    let documents = await documentsOf(this.#data, set);
    if (limit && documents.length > limit) {
      const kept = (await this.#cachedCut(set, keep)) ?? drawnIds(documents, { limit, keep });
      documents = documents.filter(({ id }) => kept.has(id));
    }
    const [ids, texts] = [documents.map(({ id }) => id), documents.map(({ text }) => text)];
    const rows = await this.#kept(`${set}.docs`, ids, async () => {
      const embedder = (await this.#encoder(DOCUMENT_TOKENS)).withoutContext();
      return await embedder.embedDocuments(texts);
    });
    return { ids, titles: documents.map(({ title }) => title), texts, rows };
  }

  /** `{ ids, texts, rows, qrels }` of judged queries: the ids asked for, or at most `limit` drawn by seed 7. */
  async queries(set, split, { only, limit = 400 } = {}) {
    const { ids, texts, qrels } = await queriesOf(this.#data, set, split, { only, limit });
    const rows = await this.#kept(`${set}.${split}`, ids, async () => {
      const embedder = (await this.#encoder(QUERY_TOKENS)).withoutContext();
      return await embedder.embedQueries(texts);
    });
    return { ids, texts, rows, qrels };
  }

  /** Queries of the dev split, and of the train split where that has fewer than `wanted`: at most 400 of each, none of test. */
  async judgedQueries(set, wanted) {
    const found = [];
    for (const split of ["dev", "train"]) {
      const most = Math.min(400, wanted - found.reduce((sum, { ids }) => sum + ids.length, 0));
      if (most <= 0) break;
      const queries = await this.queries(set, split, { limit: most }).catch((error) => {
        if (error.code === "MISSING_FILE") return undefined;
        throw error;
      });
      if (queries && queries.ids.length > 0) found.push(queries);
    }
    return found;
  }

  /**
   * Rows of a set's documents and queries whose tokens count by how rare they are in `context`, the set's context
   * documents; of other texts by `rows`, kept under a name. Queries are cut at 128 tokens too, since the weights belong to
   * one length.
   */
  async weighted(set, { context, documents, queries }) {
    const encoder = await this.#encoder(DOCUMENT_TOKENS);
    const tokenWeights = { smoothing: DEFAULT_SMOOTHING };
    const embedder = encoder.withContext(await encoder.buildContext(context, { strength: "off", tokenWeights }));
    const name = `${set}.weighted-${embedder.fingerprint.slice(0, 12)}`;
    const rows = await this.#kept(`${name}.docs`, documents.ids, () => embedder.embedDocuments(documents.texts));
    const asked = [];
    for (const [i, { ids, texts }] of queries.entries()) {
      asked.push(await this.#kept(`${name}.queries-${i}`, ids, () => embedder.embedQueries(texts)));
    }
    return {
      documents: rows,
      queries: asked,
      rows: (kind, texts, as) => this.#kept(`${name}.${as}`, texts, () => embedderOf(kind, embedder)(texts)),
    };
  }

  /** Vectors of other texts, kept under a name. */
  async rows(kind, texts, as) {
    const encoder = await this.#encoder(kind === "query" ? QUERY_TOKENS : DOCUMENT_TOKENS);
    return await this.#kept(as, texts, () => embedderOf(kind, encoder.withoutContext())(texts));
  }

  async dispose() {
    for (const encoder of this.#encoders.values()) await encoder.dispose();
  }

  /** The documents that an earlier cut kept, where they hold all that is asked for now. */
  async #cachedCut(set, keep) {
    const path = this.#cache && join(this.#cache, `${set}.docs.ids.json`);
    if (!path || !existsSync(path)) return undefined;
    const cached = new Set(JSON.parse(await readFile(path, "utf8")));
    return keep.every((id) => cached.has(id)) ? cached : undefined;
  }

  async #encoder(maxTokens) {
    if (!this.#encoders.has(maxTokens)) {
      this.#encoders.set(maxTokens, await ContextualEncoder.load(this.#base, { maxTokens }));
    }
    return this.#encoders.get(maxTokens);
  }

  async #kept(name, ids, embed) {
    const kept = await readRows(this.#cache, name, ids);
    if (kept) return kept;
    const rows = packed((await embed()).vectors);
    await keepRows(this.#cache, name, ids, rows);
    return rows;
  }
}

/** `{ id, title, text }` of a set's documents; a text begins with its title. */
export async function documentsOf(data, set) {
  const documents = [];
  for await (const { id, title, text } of readCorpus(join(data, set))) {
    documents.push({ id, title: title ?? "", text: (title ? `${title} ${text}` : text).trim() });
  }
  return documents;
}

/** `{ ids, texts, qrels }` of judged queries: the ids asked for, or at most `limit` drawn by seed 7. */
export async function queriesOf(data, set, split, { only, limit }) {
  const folder = join(data, set);
  const judged = await readQrels(folder, split);
  const ids =
    only ??
    createRandom(7)
      .shuffle([...judged.keys()])
      .slice(0, limit);
  const textOf = new Map();
  for await (const { id, text } of readQueries(folder)) textOf.set(id, text);
  return { ids, texts: ids.map((id) => textOf.get(id)), qrels: new Map(ids.map((id) => [id, judged.get(id)])) };
}

/** Ids of `keep` and of as many others, drawn by a seed, as fit. */
export function drawnIds(documents, { limit, keep, seed = 5 }) {
  const kept = new Set(keep);
  const others = createRandom(seed).shuffle(documents.filter(({ id }) => !kept.has(id)));
  for (const { id } of others.slice(0, Math.max(0, limit - kept.size))) kept.add(id);
  return kept;
}

/** Packed rows that a folder keeps under a name for these ids; undefined where there are none, or no folder. */
export async function readRows(folder, name, ids) {
  if (!folder) return undefined;
  const [path, idPath] = pathsOf(folder, name);
  if (!existsSync(path) || !existsSync(idPath)) return undefined;
  const bytes = await readFile(path);
  const rows = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  if (JSON.stringify(ids) === (await readFile(idPath, "utf8")) && rows.length % ids.length === 0) return rows;
  throw new Error(`${path} holds other texts than are asked for. Remove it.`);
}

/** Keeps packed rows under a name, with the ids that they belong to beside them; nothing without a folder. */
export async function keepRows(folder, name, ids, rows) {
  if (!folder) return;
  const [path, idPath] = pathsOf(folder, name);
  await mkdir(folder, { recursive: true });
  await writeFile(`${path}.tmp`, new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength));
  await writeFile(idPath, JSON.stringify(ids));
  await rename(`${path}.tmp`, path);
}

function pathsOf(folder, name) {
  return [join(folder, `${name}.f32`), join(folder, `${name}.ids.json`)];
}

/** Texts to vectors: as queries, or as documents. */
export function embedderOf(kind, embedder) {
  return (texts) => (kind === "query" ? embedder.embedQueries(texts) : embedder.embedDocuments(texts));
}

/** The rows at some positions, packed. */
export function takeRows(rows, positions, width) {
  const out = new Float32Array(positions.length * width);
  positions.forEach((position, i) => {
    out.set(rows.subarray(position * width, (position + 1) * width), i * width);
  });
  return out;
}

/** Vectors of one width as packed rows. */
export function packed(vectors) {
  const width = vectors[0]?.length ?? 0;
  const rows = new Float32Array(vectors.length * width);
  vectors.forEach((vector, i) => {
    rows.set(vector, i * width);
  });
  return rows;
}
