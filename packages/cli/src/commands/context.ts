/** `cde context`: builds the context of a corpus as a file of its own, and says what is in one. */

import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { CorpusContext, InvalidInputError } from "@cde-js/core";
import { CONTEXT_HELP, surveyCorpus } from "../build-context.js";
import { type Command, type Invocation, UsageError } from "../command.js";
import { Inputs } from "../inputs.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { counted } from "../printable.js";
import { readSettings } from "../settings.js";

const help = `cde context build <folder | file> ... --out FILE
cde context inspect <FILE | DIR>

build draws passages of the documents (see "cde help index") and writes the context built from them to FILE
(safetensors); "cde index --context FILE" uses it. inspect says what is in such a file, or in the context of an index.

  --out FILE         the context
  ${CONTEXT_HELP}
  ${MODEL_HELP}
  --skip-unreadable  leave out files that are binary, not UTF-8 or can't be read, and say which
`;

export const context: Command = {
  summary: "build <folder | file> ... --out FILE, inspect FILE: contexts by themselves",
  help,
  options: {
    out: { type: "string" },
    "context-size": { type: "string" },
    seed: { type: "string" },
    model: { type: "string" },
    "skip-unreadable": { type: "boolean" },
  },
  run: async (invocation) => {
    const [action, ...paths] = invocation.positionals;
    if (action === "build") await build(paths, invocation);
    else if (action === "inspect") await inspect(paths, invocation);
    else
      throw new UsageError(
        `"build" or "inspect" is missing${action === undefined ? "" : `, got ${JSON.stringify(action)}`}.`,
      );
  },
};

async function build(paths: readonly string[], invocation: Invocation): Promise<void> {
  const { options, signal } = invocation;
  const out = options.text("out");
  if (out === undefined) throw new UsageError("--out is missing: the file that the context is written to.");
  const file = resolve(out);
  const inputs = new Inputs(paths, { skipUnreadable: options.flag("skip-unreadable"), signal });
  await using encoder = await loadEncoder(modelOption(invocation), invocation);
  const { context } = await surveyCorpus(encoder, inputs, { wanted: true, invocation });
  await context!.save(file);
  const skipped = [...inputs.skipped].map(([path, why]) => ({ path, why }));
  const description = describe(context!);
  invocation.answer({ file, ...description, skipped }, [
    `wrote ${file}`,
    ...lines(description),
    ...skipped.map(({ path, why }) => `left out: ${path} ${why}`),
  ]);
}

async function inspect(paths: readonly string[], invocation: Invocation): Promise<void> {
  const [path, ...more] = paths;
  if (path === undefined || more.length > 0) throw new UsageError("inspect takes one file or index.");
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() === true;
  const found = isFolder ? (await readSettings(path)).context : await CorpusContext.load(path);
  if (!found) throw new InvalidInputError(`inspect: the index in ${path} was built without context.`);
  const description = describe(found);
  invocation.answer(description, lines(description));
}

interface Description {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly stage: string;
  readonly size: number;
  /** Different texts among them. */
  readonly differentTexts: number;
  readonly dimensions: number;
  readonly strength: CorpusContext["identity"]["strength"];
  readonly spectrum: {
    /** |m|², from 0 to 1: how much all passages have in common. */
    readonly meanNormSquared: number;
    /** (Σ l)² / Σ l² of the covariance's eigenvalues l: directions that the corpus really uses. */
    readonly effectiveDimensions: number;
  } | null;
}

function describe({ modelId, fingerprint, stage, size, dimensions, identity, map }: CorpusContext): Description {
  const sum = (values: Float64Array): number => values.reduce((a, b) => a + b, 0);
  const squares = map ? sum(map.eigenvalues.map((l) => l * l)) : 0;
  return {
    modelId,
    fingerprint,
    stage,
    size,
    differentTexts: new Set(identity.texts).size,
    dimensions,
    strength: identity.strength,
    spectrum: map
      ? {
          meanNormSquared: map.meanNormSquared,
          effectiveDimensions: squares === 0 ? 0 : sum(map.eigenvalues) ** 2 / squares,
        }
      : null,
  };
}

function lines({
  modelId,
  fingerprint,
  stage,
  size,
  differentTexts,
  dimensions,
  strength,
  spectrum,
}: Description): string[] {
  return [
    `${stage} context of ${counted(size, "passage")} (${differentTexts} different), fingerprint ${fingerprint}`,
    `for ${modelId}, ${dimensions} dimensions${strength === null ? "" : `, strength ${JSON.stringify(strength)}`}`,
    ...(spectrum
      ? [
          `common to all passages: |mean|² = ${spectrum.meanNormSquared.toFixed(3)}; directions in use: ${spectrum.effectiveDimensions.toFixed(0)} of ${dimensions}`,
        ]
      : []),
  ];
}
