/**
 * The lexical index as bytes: magic, byte order, version and header length (u32 each), a JSON header, the arrays
 * (u32, in the order of `encodeState`), the pool, the terms as JSON, and a CRC-32 of all that.
 */
import { crc32 } from "node:zlib";
import { CorruptFileError } from "@cde-js/core";
import { type PackedPostings, Postings } from "./postings.js";

export interface Bm25State {
  readonly analyzerId: string;
  readonly k1: number;
  readonly b: number;
  /** Undefined while it isn't frozen. */
  readonly averageLength: number | undefined;
  readonly lengths: Uint32Array;
  readonly rows: Uint32Array;
  readonly terms: readonly string[];
  readonly postings: PackedPostings;
}

interface Header {
  analyzerId: string;
  k1: number;
  b: number;
  averageLength: number | null;
  documents: number;
  terms: number;
  poolBytes: number;
  termBytes: number;
}

const MAGIC = 0x42454443; // "CDEB"
/** Written in the machine's order: a reader of the other order sees it reversed. */
const BYTE_ORDER = 0x01020304;
const VERSION = 1;
/** Rows index arrays, so they are small numbers; memory grows with the largest. */
export const LARGEST_ROW: number = 2 ** 28;

export function encodeState(state: Bm25State): Uint8Array {
  const terms = new TextEncoder().encode(JSON.stringify(state.terms));
  const { pool, heads, lasts, counts } = state.postings;
  const header: Header = {
    analyzerId: state.analyzerId,
    k1: state.k1,
    b: state.b,
    averageLength: state.averageLength ?? null,
    documents: state.rows.length,
    terms: heads.length,
    poolBytes: pool.length,
    termBytes: terms.length,
  };
  const json = JSON.stringify(header);
  const padding = " ".repeat((4 - (Buffer.byteLength(json) % 4)) % 4); // the arrays start at a multiple of 4
  const text = new TextEncoder().encode(json + padding);
  const body = Buffer.concat(
    [
      new Uint32Array([MAGIC, BYTE_ORDER, VERSION, text.length]),
      text,
      state.lengths,
      state.rows,
      heads,
      lasts,
      counts,
      pool,
      terms,
    ].map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength)),
  );
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32LE(crc32(body));
  return Buffer.concat([body, checksum]);
}

/** Reads and checks the bytes; the state holds copies. @throws CorruptFileError with what is wrong */
export function decodeState(bytes: Uint8Array, path: string): Bm25State {
  const corrupt = (what: string, cause?: unknown): CorruptFileError =>
    new CorruptFileError(path, `${path}: ${what}. Rebuild the lexical index from its documents.`, { cause });
  if (bytes.length < 24) throw corrupt(`a lexical index has at least 24 bytes, got ${bytes.length}`);
  const whole = Buffer.from(bytes); // a copy, so that arrays are aligned and the caller keeps its bytes
  const start = new Uint32Array(whole.buffer.slice(whole.byteOffset, whole.byteOffset + 16));
  if (start[0] !== MAGIC) throw corrupt("this is no lexical index (its first four bytes aren't CDEB)");
  if (start[1] !== BYTE_ORDER) throw corrupt("written on a machine of the other byte order");
  if (start[2] !== VERSION) throw corrupt(`format version ${start[2]}, this release reads version ${VERSION}`);
  const body = whole.subarray(0, -4);
  if (crc32(body) !== whole.readUInt32LE(whole.length - 4))
    throw corrupt("the checksum doesn't match: it was cut or altered");

  let header: Header;
  let terms: unknown;
  let at = 16 + start[3]!;
  const take = (length: number): ArrayBuffer => {
    const from = body.byteOffset + at;
    at += length;
    return body.buffer.slice(from, from + length) as ArrayBuffer;
  };
  try {
    header = JSON.parse(body.toString("utf8", 16, at)) as Header;
    terms = JSON.parse(body.toString("utf8", body.length - header.termBytes));
  } catch (cause) {
    throw corrupt("its header or terms are no JSON", cause);
  }
  const { documents, terms: termCount, poolBytes, termBytes } = header;
  if (at + 8 * documents + 12 * termCount + poolBytes + termBytes !== body.length)
    throw corrupt("its parts don't add up to its length");
  if (!Array.isArray(terms) || terms.length !== termCount)
    throw corrupt(`it names ${termCount} terms and lists others`);
  const u32 = (count: number): Uint32Array => new Uint32Array(take(4 * count));
  const state: Bm25State = {
    analyzerId: header.analyzerId,
    k1: header.k1,
    b: header.b,
    averageLength: header.averageLength ?? undefined,
    lengths: u32(documents),
    rows: u32(documents),
    terms: terms as string[],
    postings: {
      heads: u32(termCount),
      lasts: u32(termCount),
      counts: u32(termCount),
      pool: new Uint8Array(take(poolBytes)),
    },
  };
  const fault = findFault(state);
  if (fault !== undefined) throw corrupt(fault);
  return state;
}

/** What a matching checksum doesn't promise: bytes that some other program wrote. Searching would hang or lie. */
function findFault({ rows, lengths, terms, postings }: Bm25State): string | undefined {
  if (new Set(rows).size !== rows.length) return "a row occurs twice";
  if (rows.some((row) => row >= LARGEST_ROW)) return "a row is too large";
  if (new Set(terms).size !== terms.length || terms.some((term) => typeof term !== "string"))
    return "a term occurs twice";
  const { pool, heads, lasts, counts } = postings;
  const view = new DataView(pool.buffer);
  let expected = 0;
  for (const [term, head] of heads.entries()) {
    if (head !== expected || head + 8 > pool.length) return `the list of term ${term} is misplaced`;
    const used = view.getUint32(head + 4, true);
    expected = head + 8 + used;
    if (view.getUint32(head, true) !== 0 || expected > pool.length || counts[term]! < 1 || used < counts[term]!) {
      return `the list of term ${term} is cut`;
    }
  }
  if (expected !== pool.length) return "the lists don't fill their part";
  const store = new Postings(postings);
  const totals = new Float64Array(rows.length);
  for (const term of heads.keys()) {
    const { count, documents, frequencies } = store.read(term);
    if (count !== counts[term]) return `the list of term ${term} holds ${count} documents instead of ${counts[term]}`;
    let previous = -1;
    for (let i = 0; i < count; i++) {
      const document = documents[i]!;
      if (document <= previous || document >= rows.length) return `the list of term ${term} is out of order`;
      totals[document] = totals[document]! + frequencies[i]!;
      previous = document;
    }
    if (previous + 1 !== lasts[term]) return `the list of term ${term} ends elsewhere`;
  }
  const off = totals.findIndex((total, document) => total !== lengths[document]);
  return off < 0 ? undefined : `document ${off} has the length ${lengths[off]} and ${totals[off]} terms`;
}
