/** Loads the model that a command line names, or the bundled one. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { ContextualEncoder } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import type { Invocation } from "./command.js";

export const MODEL_HELP =
  "--model DIR        a model's directory, or a repository of the Hugging Face hub [the bundled model]";

/** The absolute path of --model, or the name of a repository; undefined for the bundled model. */
export function modelOption({ options }: Invocation): string | undefined {
  const model = options.text("model");
  return model !== undefined && existsSync(model) ? resolve(model) : model;
}

export function loadEncoder(model: string | undefined, invocation: Invocation): Promise<ContextualEncoder> {
  const { signal, progress } = invocation;
  return ContextualEncoder.load(model ?? modelDirectory, {
    signal,
    onProgress: ({ step, done, total }) => {
      if (step === "download") progress.update("downloading the model", { done, total, noun: "byte" });
    },
  });
}
