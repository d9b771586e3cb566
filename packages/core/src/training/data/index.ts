/** The public names of training data. */
export { type CreatePairSetOptions, createPairSet } from "./create-pair-set.js";
export type { LeftOut } from "./pair-files.js";
export type { PairFault, PairRecord } from "./pair-record.js";
export { PairSet } from "./pair-set.js";
export {
  countDocumentFrequencies,
  type PairsFromDocumentsOptions,
  pairsFromDocuments,
  type UnlabelledDocument,
  type UnsupervisedMethod,
} from "./pairs-from-documents.js";
export { type ReadBeirOptions, readPairsBeir } from "./read-beir.js";
export { type CsvColumns, type ReadCsvOptions, readPairsCsv } from "./read-csv.js";
export { type ReadPairsOptions, readPairsJsonl } from "./read-jsonl.js";
export { type PairSplit, type SplitOptions, splitPairs } from "./split.js";
export type { DatasetStatistics, PairStatistics } from "./statistics.js";
