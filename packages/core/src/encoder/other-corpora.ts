/** The sample of other corpora that a model's directory may hold beside the weights: what drift calls far away. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { CorpusContext } from "../context/corpus-context.js";
import { CorruptFileError } from "../errors.js";

/** A context of this model, made of texts of corpora that have nothing to do with each other; its vectors alone are read. */
const OTHER_CORPORA_FILE = "other-corpora.safetensors";
/** 1,000 texts of 4,096 dimensions; a larger file is none of these. */
const MOST_BYTES = 16 * 2 ** 20;

/** Reads the sample of a model's directory when it is first asked for, and again where that failed. */
export function otherCorporaOf(directory: string): () => Promise<CorpusContext | undefined> {
  let reading: Promise<CorpusContext | undefined> | undefined;
  return () => {
    reading ??= read(join(directory, OTHER_CORPORA_FILE)).catch((error: unknown) => {
      reading = undefined;
      throw error;
    });
    return reading;
  };
}

/** Whose vectors they are is for the embedder to say. @throws CorruptFileError for a file that is no such sample */
async function read(path: string): Promise<CorpusContext | undefined> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (!found) return undefined;
  const corrupt = (what: string) =>
    new CorruptFileError(path, `${path} ${what}. Take it from the model's source again.`);
  if (!found.isFile()) throw corrupt("is not a file");
  if (found.size > MOST_BYTES)
    throw corrupt(`has ${found.size} bytes, a sample of other corpora at most ${MOST_BYTES}`);
  return await CorpusContext.load(path);
}
