/** Makes a pair set from a stream of records: checked, without duplicates, in bounded memory. */
import { crc32 } from "node:zlib";
import { CorruptFileError, InvalidInputError } from "../../errors.js";
import { GrowingColumns } from "./pair-columns.js";
import { exists, PairFilesWriter } from "./pair-files.js";
import { comparedTexts, type PairFault, type PairRecord, pairFault, shapeFault } from "./pair-record.js";
import { PairSet } from "./pair-set.js";
import { keyOf } from "./text-key.js";

export interface CreatePairSetOptions {
  /**
   * What happens with an empty or one-sided pair, a query that equals its positive, an empty negative or one that
   * equals the positive: an error that says where, or it is left out and counted by fault.
   * @default "error"
   */
  readonly faulty?: "error" | "skip";
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly read: number; readonly kept: number }) => void;
}

/** Records between two reports, and between two turns of the event loop where the source never waits. */
const SLICE = 1000;
const MAX_DATASETS = 2 ** 16;

/**
 * Writes the pairs of `records` to a new folder and opens it. Of pairs with the same query and positive (but for case,
 * punctuation and white space) the first one stays. Takes 38 bytes of memory a pair, and twice as much while it grows.
 *
 * @example
 * const pairs = await createPairSet("pairs", readPairsJsonl("train.jsonl"));
 *
 * @throws InvalidInputError where the folder is there already, no pair is left, or a record is faulty;
 * CorruptFileError with path and line where a reader said where the record came from; RuntimeFailureError where the
 * folder can't be written
 */
export async function createPairSet(
  folder: string,
  records: AsyncIterable<PairRecord> | Iterable<PairRecord>,
  options: CreatePairSetOptions = {},
): Promise<PairSet> {
  const { faulty = "error", signal, onProgress } = options;
  if (await exists(folder)) {
    throw new InvalidInputError(
      `createPairSet: ${folder} is there already. Open it with PairSet.open, or choose another folder.`,
    );
  }
  const datasets = new Map<string, number>();
  const negativesOf: number[] = [];
  const columns = new GrowingColumns();
  const faults: Partial<Record<PairFault, number>> = {};
  let [read, duplicates, repeatedNegatives] = [0, 0, 0];
  const writer = await PairFilesWriter.create(folder);
  try {
    for await (const record of records) {
      const position = read++;
      const malformed = shapeFault(record);
      if (malformed !== undefined) throw faultError(record, position, malformed);
      const compared = comparedTexts(record);
      const fault = pairFault(compared);
      if (fault !== undefined) {
        if (faulty === "error") throw faultError(record, position, `is a faulty pair: ${fault}`);
        faults[fault] = (faults[fault] ?? 0) + 1;
        continue;
      }
      const { id = `#${position}`, dataset = "default", query, positive, negatives = [], group } = record;
      const [queryKey, documentKey] = [keyOf(compared.query), keyOf(compared.positive)];
      if (columns.has(queryKey, documentKey)) {
        duplicates++;
        continue;
      }
      const different = [...new Map(negatives.map((text, i) => [compared.negatives[i], text])).values()];
      repeatedNegatives += negatives.length - different.length;
      let number = datasets.get(dataset);
      if (number === undefined) {
        number = datasets.size;
        if (number === MAX_DATASETS) {
          throw faultError(record, position, `is of one more data set than the ${MAX_DATASETS} that fit`);
        }
        datasets.set(dataset, number);
      }
      negativesOf[number] = (negativesOf[number] ?? 0) + different.length;
      const fields = different.length > 0 ? [id, query, positive, different] : [id, query, positive];
      const bytes = Buffer.from(`${JSON.stringify(fields)}\n`);
      const groupKey = group === undefined ? Number.NaN : keyOf(group);
      columns.push({
        byteLength: bytes.length,
        queryKey,
        documentKey,
        groupKey,
        checksum: crc32(bytes),
        dataset: number,
      });
      await writer.append(bytes);
      if (read % SLICE === 0) {
        onProgress?.({ read, kept: columns.length });
        await new Promise((resolve) => setImmediate(resolve));
        signal?.throwIfAborted();
      }
    }
    signal?.throwIfAborted();
    if (columns.length === 0) {
      throw new InvalidInputError(
        `createPairSet: no pair is left of ${read} records (${JSON.stringify(faults)}); give at least one.`,
      );
    }
    const leftOut = { duplicates, faults, repeatedNegatives };
    await writer.finish(columns.finish(), [...datasets.keys()], { leftOut, negatives: negativesOf });
  } catch (error) {
    await writer.abandon();
    throw error;
  }
  onProgress?.({ read, kept: columns.length });
  return PairSet.open(folder);
}

function faultError(record: PairRecord | null, position: number, what: string): InvalidInputError | CorruptFileError {
  const { id, source } = record ?? ({} as Partial<PairRecord>);
  const help = 'Mend it, or leave such pairs out with { faulty: "skip" }.';
  const name = id === undefined ? "" : ` (${id})`;
  if (source) {
    const { path, line } = source;
    return new CorruptFileError(path, `createPairSet: ${path}, line ${line}${name}: ${what}. ${help}`, { line });
  }
  return new InvalidInputError(`createPairSet: record ${position}${name}: ${what}. ${help}`, { position });
}
