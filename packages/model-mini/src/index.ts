/** Where the bundled model lies. */
import { fileURLToPath } from "node:url";

/** Directory of the bundled model, for `ContextualEncoder.load`. Its name is the model's id. */
export const modelDirectory: string = fileURLToPath(new URL("../all-MiniLM-L6-v2-int8", import.meta.url));

/**
 * A context of texts from nine other corpora by this model, for `index.drift({ reference })`: a file for `CorpusContext.load`.
 * See NOTICE.
 */
export const otherCorporaFile: string = fileURLToPath(new URL("../other-corpora.safetensors", import.meta.url));
