/** Pairs from CSV or TSV with a header: the only user of csv-parse. */
import { Readable } from "node:stream";
import { CsvError, type Info, parse } from "csv-parse";
import { CdeError, InvalidInputError, MissingFileError } from "../../errors.js";
import { corrupt, openBytes } from "../../evaluation/lines.js";
import type { PairRecord } from "./pair-record.js";

const OPERATION = "readPairsCsv";

/** Which column of the header holds what. */
export interface CsvColumns {
  readonly query: string;
  readonly positive: string;
  /** One hard negative each; empty cells are none. */
  readonly negatives?: readonly string[];
  readonly id?: string;
  readonly dataset?: string;
  readonly group?: string;
}

export interface ReadCsvOptions {
  /** @default { query: "query", positive: "positive" }, and `id`, `dataset`, `group`, `negative` where the header has them */
  readonly columns?: CsvColumns;
  /** One character. @default "," and a tab where the name ends in `.tsv` or `.tsv.gz` */
  readonly delimiter?: string;
  /** Data set of rows that name none. @default "default" */
  readonly dataset?: string;
  /** Longest row in bytes; bounds the memory taken. @default 64 MiB */
  readonly maxRowBytes?: number;
  readonly signal?: AbortSignal;
}

/**
 * The pairs of a CSV file (RFC 4180: quotes are doubled, a quoted cell may have line ends), plain or `.gz`, in bounded
 * memory. With `columns`, other columns are passed over; without, they are refused.
 *
 * @throws MissingFileError; CorruptFileError with the line for what is no CSV, not UTF-8, or a row of another number of
 * cells than the header; InvalidInputError for a column that the header lacks
 */
export async function* readPairsCsv(
  path: string,
  options: ReadCsvOptions = {},
): AsyncGenerator<PairRecord, void, undefined> {
  const { signal, delimiter = /\.tsv(\.gz)?$/.test(path) ? "\t" : ",", maxRowBytes = 64 * 2 ** 20 } = options;
  if (delimiter.length !== 1) {
    throw new InvalidInputError(`${OPERATION}: delimiter must be one character, got ${JSON.stringify(delimiter)}.`);
  }
  const parser = parse({ bom: true, info: true, skip_empty_lines: true, delimiter, max_record_size: maxRowBytes });
  const text = Readable.from(utf8(path, openBytes(path, signal)), { objectMode: false });
  text.on("error", (error) => parser.destroy(error));
  text.pipe(parser);
  let cells: ReturnType<typeof chooseColumns> | undefined;
  let [last, line] = [0, 0];
  try {
    for await (const { record, info } of parser as AsyncIterable<{ record: string[]; info: Info }>) {
      signal?.throwIfAborted();
      line = last + 1; // of its first line: a quoted cell may have several
      last = info.lines;
      if (cells === undefined) {
        cells = chooseColumns(path, record, options.columns);
        continue;
      }
      yield cells(record, line, options.dataset);
    }
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof CdeError) throw cause;
    if (cause instanceof CsvError) {
      throw corrupt(OPERATION, path, Number((cause as { lines?: number }).lines ?? last + 1), cause.message, cause);
    }
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new MissingFileError(path, `${OPERATION}: there is no file ${path}.`, { cause });
    throw corrupt(OPERATION, path, last + 1, `can't be read: ${message}`, cause);
  } finally {
    text.destroy();
  }
  if (cells === undefined) throw corrupt(OPERATION, path, 1, "is missing: the header belongs there.");
}

/** csv-parse would put a sign for what can't be decoded in the text. */
async function* utf8(path: string, bytes: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let line = 1;
  for await (const chunk of bytes) {
    let text: string;
    try {
      text = decoder.decode(chunk, { stream: true });
    } catch (cause) {
      throw corrupt(OPERATION, path, line, "isn't UTF-8, or a line soon after it.", cause);
    }
    line += text.split("\n").length - 1;
    if (text !== "") yield text;
  }
  try {
    decoder.decode();
  } catch (cause) {
    throw corrupt(OPERATION, path, line, "ends within a character of UTF-8.", cause);
  }
}

function chooseColumns(
  path: string,
  header: readonly string[],
  chosen: CsvColumns | undefined,
): (row: readonly string[], line: number, dataset: string | undefined) => PairRecord {
  const has = (name: string) => header.includes(name);
  const columns: CsvColumns = chosen ?? {
    query: "query",
    positive: "positive",
    ...(has("negative") && { negatives: ["negative"] }),
    ...(has("id") && { id: "id" }),
    ...(has("dataset") && { dataset: "dataset" }),
    ...(has("group") && { group: "group" }),
  };
  const { negatives = [], ...single } = columns;
  const named = [...(Object.values(single) as string[]), ...negatives];
  for (const name of named) {
    if (header.filter((other) => other === name).length !== 1) {
      throw new InvalidInputError(
        `${OPERATION}: ${path} should have one column ${JSON.stringify(name)}; its header is ${header.join(", ")}. Name the columns with { columns }.`,
      );
    }
  }
  const other = chosen === undefined ? header.find((name) => !named.includes(name)) : undefined;
  if (other !== undefined) {
    throw new InvalidInputError(
      `${OPERATION}: ${path} has an unknown column ${JSON.stringify(other)}. Say which ones count with { columns }; others are then passed over.`,
    );
  }
  const at = (name: string | undefined): number => (name === undefined ? -1 : header.indexOf(name));
  const places = {
    query: at(columns.query),
    positive: at(columns.positive),
    id: at(columns.id),
    dataset: at(columns.dataset),
    group: at(columns.group),
    negatives: negatives.map(at),
  };
  return (row, line, otherwise) => {
    const dataset = row[places.dataset] || otherwise;
    const group = row[places.group];
    const rowNegatives = places.negatives.flatMap((place) => row[place] || []);
    return {
      id: row[places.id] || `${line}`,
      ...(dataset !== undefined && { dataset }),
      query: row[places.query]!,
      positive: row[places.positive]!,
      ...(rowNegatives.length > 0 && { negatives: rowNegatives }),
      ...(group && { group }),
      source: { path, line },
    };
  };
}
