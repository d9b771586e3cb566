/**
 * Documents and their passages as checksummed records, the same bytes in memory and on disk. Texts are decoded only when
 * they are asked for. Passages are numbered through the corpus, in the order of documents.
 *
 * Numbers are never given out twice: a document that is removed, or replaced by another text, leaves its own unused (and
 * its record readable, for a search that found it just before), and the new one comes at the end.
 *
 * A record: u32 payload bytes, u32 CRC-32 of the payload, payload. The payload: u32 bytes of the id, u32 UTF-16 units of
 * the text, u32 passages, the id (UTF-8), [u32 start, u32 end] a passage, JSON of { text, title?, metadata? } (UTF-8).
 */
import { crc32 } from "node:zlib";
import { CorruptFileError, InvalidInputError, internal } from "@cde-js/core";
import { type CorpusDocument, checkDocument } from "../documents.js";
import type { Passage } from "../split/pieces.js";

const HEADER = 8;
const FIXED = 12;
/** Memory is taken in segments of at least this size. */
const SEGMENT = 4 * 2 ** 20;
/** A record has to fit one buffer and its text one string. */
const MAX_PAYLOAD = 2 ** 29 - 2 ** 16;

export interface StoredDocument {
  readonly document: CorpusDocument;
  readonly passages: readonly Passage[];
}

interface Segment {
  readonly buffer: Buffer;
  used: number;
}

/** A record's parts, as offsets in its buffer. */
interface Payload {
  readonly id: string;
  readonly textUnits: number;
  readonly count: number;
  readonly passagesAt: number;
  readonly jsonAt: number;
}

export class DocumentStore {
  /** Named in errors of the records that were read. */
  readonly #path: string;
  readonly #segments: Segment[] = [];
  readonly #numbers = new Map<string, number>();
  // By document number: where its record lies, and the number of its first passage.
  readonly #segmentOf: number[] = [];
  readonly #offsets: number[] = [];
  readonly #firstPassages: number[] = [];
  /** Numbers of documents that are no longer there. */
  readonly #removed = new Set<number>();
  #passages = 0;
  #removedPassages = 0;

  constructor(path = "memory") {
    this.#path = path;
  }

  /** Numbers of documents given out, those of removed ones included. */
  get documents(): number {
    return this.#offsets.length;
  }

  /** Numbers of passages given out. */
  get passages(): number {
    return this.#passages;
  }

  get liveDocuments(): number {
    return this.#offsets.length - this.#removed.size;
  }

  get livePassages(): number {
    return this.#passages - this.#removedPassages;
  }

  isLive(number: number): boolean {
    return !this.#removed.has(number);
  }

  /** Numbers of the documents that are there, ascending. */
  *live(): Generator<number> {
    for (let number = 0; number < this.documents; number++) if (this.isLive(number)) yield number;
  }

  /** Numbers of the passages that are there, ascending. */
  liveLabels(): Uint32Array {
    const labels = new Uint32Array(this.livePassages);
    let at = 0;
    for (const number of this.live()) {
      const end = this.firstPassage(number + 1);
      for (let label = this.firstPassage(number); label < end; label++) labels[at++] = label;
    }
    return labels;
  }

  /** A document's number by its id. */
  numberOf(id: string): number | undefined {
    return this.#numbers.get(id);
  }

  append(document: CorpusDocument, passages: readonly Passage[]): void {
    if (this.#numbers.has(document.id)) throw internal(`document ${JSON.stringify(document.id)} is there already`);
    const parts = recordParts(document, passages);
    const record = this.#room(parts.bytes);
    fillRecord(record, parts);
    const segment = this.#segments.at(-1) as Segment;
    this.#enter(document.id, passages.length, this.#segments.length - 1, segment.used);
    segment.used += record.length;
  }

  /** Removes a document and says which passages went with it: from `first`, `count` of them. */
  remove(number: number): { readonly first: number; readonly count: number } {
    const first = this.firstPassage(number);
    const count = this.firstPassage(number + 1) - first;
    if (this.#removed.has(number)) throw internal(`document ${number} is removed already`);
    this.#numbers.delete(this.idOf(number));
    this.#removed.add(number);
    this.#removedPassages += count;
    return { first, count };
  }

  /** Puts another record in place of a document's, with as many passages: of other metadata. */
  replace(number: number, document: CorpusDocument, passages: readonly Passage[]): void {
    if (passages.length !== this.firstPassage(number + 1) - this.firstPassage(number)) {
      throw internal(`document ${number} has another number of passages`);
    }
    const parts = recordParts(document, passages);
    const record = this.#room(parts.bytes);
    fillRecord(record, parts);
    const segment = this.#segments.at(-1) as Segment;
    this.#segmentOf[number] = this.#segments.length - 1;
    this.#offsets[number] = segment.used;
    segment.used += record.length;
  }

  /** A document by its number, decoded anew for every call. */
  read(number: number): StoredDocument {
    const segment = this.#segments[this.#segmentOf[number] as number];
    if (!segment) throw internal(`no document ${number}`);
    const { buffer } = segment;
    const record = this.#offsets[number] as number;
    const at = record + HEADER;
    const end = at + buffer.readUInt32LE(record);
    try {
      if (crc32(buffer.subarray(at, end)) !== buffer.readUInt32LE(record + 4)) throw internal("another checksum");
      const { id, textUnits, count, passagesAt, jsonAt } = this.#parse(buffer, at, end - at);
      const content = JSON.parse(buffer.toString("utf8", jsonAt, end)) as object;
      const document = checkDocument({ ...content, id }, number, "read");
      if (document.text.length !== textUnits) throw internal(`${document.text.length} units, not ${textUnits}`);
      return { document, passages: Array.from({ length: count }, (_, i) => passageAt(buffer, passagesAt, i)) };
    } catch (cause) {
      throw new CorruptFileError(this.#path, `${this.#path}: record ${number} is not a document.`, { cause });
    }
  }

  /** The document that a passage belongs to, and the passage's position in it. */
  locate(passage: number): { number: number; position: number } {
    // The last document whose first passage is not behind this one; documents without passages come before it.
    let [low, high] = [0, this.documents];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#firstPassages[middle] as number) <= passage) low = middle;
      else high = middle;
    }
    return { number: low, position: passage - (this.#firstPassages[low] as number) };
  }

  /** The number of a document's first passage; of the document behind the last, the number of all passages. */
  firstPassage(number: number): number {
    return this.#firstPassages[number] ?? this.#passages;
  }

  /** The records of the documents that are there as one stream of bytes, in the order of their numbers. */
  *bytes(): Generator<Uint8Array> {
    let stretch = { segment: -1, start: 0, end: 0 };
    const bytesOf = ({ segment, start, end }: typeof stretch): Uint8Array =>
      (this.#segments[segment] as Segment).buffer.subarray(start, end);
    for (const number of this.live()) {
      const segment = this.#segmentOf[number] as number;
      const start = this.#offsets[number] as number;
      const end = start + DocumentStore.recordLength((this.#segments[segment] as Segment).buffer.subarray(start));
      if (segment === stretch.segment && start === stretch.end) stretch.end = end;
      else {
        if (stretch.end > stretch.start) yield bytesOf(stretch);
        stretch = { segment, start, end };
      }
    }
    if (stretch.end > stretch.start) yield bytesOf(stretch);
  }

  /**
   * Takes over the whole records at the head of `buffer` and says how many bytes they are. All but their JSON and
   * checksums is checked, which wait until a record is read: the caller checks the file's checksum. A document that is
   * there already is an error, or, with `onReplaced`, gives way to the new one.
   *
   * @throws CorruptFileError at the first record that isn't one.
   */
  adopt(buffer: Buffer, onReplaced?: (passages: { readonly first: number; readonly count: number }) => void): number {
    const segment = { buffer, used: 0 };
    const index = this.#segments.push(segment) - 1;
    while (buffer.length - segment.used >= HEADER) {
      const length = buffer.readUInt32LE(segment.used);
      if (length < FIXED || length > MAX_PAYLOAD) throw this.#corrupt(`has an impossible length of ${length} bytes`);
      const at = segment.used + HEADER;
      if (at + length > buffer.length) break;
      const { id, textUnits, count, passagesAt } = this.#parse(buffer, at, length);
      const known = this.#numbers.get(id);
      if (known !== undefined && !onReplaced) throw this.#corrupt(`repeats the id ${JSON.stringify(id)}`);
      for (let i = 0; i < count; i++) {
        const { start, end } = passageAt(buffer, passagesAt, i);
        if (start > end || end > textUnits) {
          throw this.#corrupt(`has a passage from ${start} to ${end} in a text of ${textUnits} units`);
        }
      }
      if (known !== undefined) onReplaced?.(this.remove(known));
      this.#enter(id, count, index, segment.used);
      segment.used = at + length;
    }
    if (segment.used === 0) this.#segments.pop();
    return segment.used;
  }

  /** Bytes of the record at the head of `buffer`, of which at least the header is there. */
  static recordLength(buffer: Buffer): number {
    return HEADER + buffer.readUInt32LE(0);
  }

  #enter(id: string, passages: number, segment: number, offset: number): void {
    this.#numbers.set(id, this.documents);
    this.#firstPassages.push(this.#passages);
    this.#segmentOf.push(segment);
    this.#offsets.push(offset);
    this.#passages += passages;
  }

  /** Also of one that was removed. */
  idOf(number: number): string {
    const { buffer } = this.#segments[this.#segmentOf[number] as number] as Segment;
    const at = (this.#offsets[number] as number) + HEADER;
    return buffer.toString("utf8", at + FIXED, at + FIXED + buffer.readUInt32LE(at));
  }

  #room(bytes: number): Buffer {
    const last = this.#segments.at(-1);
    if (last && last.buffer.length - last.used >= bytes) return last.buffer.subarray(last.used, last.used + bytes);
    // Segments double up to 64 MiB, so that a small index stays small.
    const size = Math.max(bytes, Math.min(2 ** 26, SEGMENT * 2 ** this.#segments.length));
    this.#segments.push({ buffer: Buffer.allocUnsafeSlow(size), used: 0 });
    return this.#room(bytes);
  }

  #parse(buffer: Buffer, at: number, length: number): Payload {
    const idBytes = buffer.readUInt32LE(at);
    const count = buffer.readUInt32LE(at + 8);
    const idAt = at + FIXED;
    const passagesAt = idAt + idBytes;
    const jsonAt = passagesAt + 8 * count;
    if (idBytes === 0 || jsonAt > at + length) throw this.#corrupt("is shorter than its parts");
    const id = buffer.toString("utf8", idAt, passagesAt);
    // Bytes that are not UTF-8 would come back as others.
    if (id.includes("\ufffd") && !Buffer.from(id).equals(buffer.subarray(idAt, passagesAt))) {
      throw this.#corrupt("has an id that is not UTF-8");
    }
    return { id, textUnits: buffer.readUInt32LE(at + 4), count, passagesAt, jsonAt };
  }

  #corrupt(what: string): CorruptFileError {
    return new CorruptFileError(this.#path, `${this.#path}: record ${this.documents} ${what}.`);
  }
}

/** The record of one document. @throws InvalidInputError for a document that no record can hold */
export function encodeRecord(document: CorpusDocument, passages: readonly Passage[]): Buffer {
  const parts = recordParts(document, passages);
  const record = Buffer.allocUnsafeSlow(parts.bytes);
  fillRecord(record, parts);
  return record;
}

interface RecordParts {
  readonly id: Buffer;
  readonly json: Buffer;
  readonly textUnits: number;
  readonly passages: readonly Passage[];
  /** Of the whole record. */
  readonly bytes: number;
}

function recordParts(document: CorpusDocument, passages: readonly Passage[]): RecordParts {
  const { id, ...content } = document;
  const [idBytes, json] = [Buffer.from(id), Buffer.from(JSON.stringify(content))];
  const payload = FIXED + idBytes.length + 8 * passages.length + json.length;
  if (payload > MAX_PAYLOAD) {
    throw new InvalidInputError(
      `document ${JSON.stringify(id)} takes ${payload} bytes, at most ${MAX_PAYLOAD} are allowed. Part it.`,
    );
  }
  return { id: idBytes, json, textUnits: document.text.length, passages, bytes: HEADER + payload };
}

function fillRecord(record: Buffer, { id, json, textUnits, passages, bytes }: RecordParts): void {
  const body = record.subarray(HEADER);
  let at = body.writeUInt32LE(id.length, 0);
  at = body.writeUInt32LE(textUnits, at);
  at = body.writeUInt32LE(passages.length, at);
  at += id.copy(body, at);
  for (const { start, end } of passages) at = body.writeUInt32LE(end, body.writeUInt32LE(start, at));
  json.copy(body, at);
  record.writeUInt32LE(bytes - HEADER, 0);
  record.writeUInt32LE(crc32(body), 4);
}

function passageAt(buffer: Buffer, passagesAt: number, position: number): Passage {
  const at = passagesAt + 8 * position;
  return { start: buffer.readUInt32LE(at), end: buffer.readUInt32LE(at + 4) };
}
