/** Loads a model as told, prints how that ended, and does nothing more: if anything kept running, the process would stay. */
import { writeSync } from "node:fs";
import { CdeError, ContextualEncoder, type LoadOptions } from "@cde-js/core";

const [source = "", options = "{}"] = process.argv.slice(2);
const { embed, ...load } = JSON.parse(options) as LoadOptions & { embed?: string };
let end: unknown;
try {
  const encoder = await ContextualEncoder.load(source, load);
  end = embed === undefined ? "loaded" : [...(await encoder.withoutContext().embedQuery(embed))].length;
} catch (error) {
  end = error instanceof CdeError ? { code: error.code, message: error.message } : String(error);
}
writeSync(1, JSON.stringify(end));
