/** Where the bundled model lies. */
import { fileURLToPath } from "node:url";

/** Directory of the bundled model, for `ContextualEncoder.load`. Its name is the model's id. */
export const modelDirectory: string = fileURLToPath(new URL("../all-MiniLM-L6-v2-int8", import.meta.url));
