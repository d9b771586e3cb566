/** Where the bundled model lies. */
import { fileURLToPath } from "node:url";

/** Directory of the bundled model, for `ContextualEncoder.load`. */
export const modelDirectory: string = fileURLToPath(new URL("../model/", import.meta.url));
