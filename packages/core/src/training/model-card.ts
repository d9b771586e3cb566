/** The README.md of an exported model: where it comes from, what it saw, how it was trained, what it reaches. */
import type { ExportedRun } from "./export-model.js";

/** What only the person who trained knows. */
export interface ModelCard {
  /** @default the base model's name, "fine-tuned" */
  readonly name?: string;
  /** Of the model, as an SPDX identifier in lower case. */
  readonly licence?: string;
  /** ISO 639-1 codes. */
  readonly languages?: readonly string[];
  /** By data set. */
  readonly data?: Readonly<Record<string, { readonly licence?: string; readonly source?: string }>>;
  /** Anything else, as Markdown. */
  readonly notes?: string;
}

export function modelCard(
  run: ExportedRun & { readonly weights: "best" | "last"; readonly averageWithBase: number },
  card: ModelCard,
): string {
  const { model, progress } = run;
  const { base, settings } = model;
  const name = card.name ?? `${base.modelId}, fine-tuned`;
  const sections = [
    frontMatter(base.kind, card),
    `# ${name}`,
    `${introduction(base.kind)}${settings.spectral ? " It was trained within a spectral context of each data set: search with one." : ""} Trained from ${base.modelId} (weights ${model.baseDigest.slice(0, 12)}) with cde-js.${run.dequantized ? " The base's weights were int8; training began from their rounded values." : ""}`,
    "## Use",
    usage(base.kind === "biencoder" && settings.spectral === null),
    "## Data",
    dataTable(progress.pairs, card.data ?? {}),
    "## Training",
    `${progress.step} steps; weights: ${weightsText(run)}.`,
    settingsTable(settings),
    "## Figures",
    figures(run),
    ...(card.notes === undefined ? [] : ["## Notes", card.notes]),
  ];
  return `${sections.join("\n\n")}\n`;
}

function frontMatter(kind: string, { licence, languages }: ModelCard): string {
  const lines = [
    "---",
    ...(languages ? ["language:", ...languages.map((code) => `- ${yamlText(code)}`)] : []),
    ...(licence === undefined ? [] : [`license: ${yamlText(licence)}`]),
    ...(kind === "biencoder" ? ["library_name: sentence-transformers"] : []),
    "pipeline_tag: sentence-similarity",
    "tags:",
    "- sentence-similarity",
    "- feature-extraction",
    "- cde-js",
    "---",
  ];
  return lines.join("\n");
}

/** A JSON string is a YAML string. */
function yamlText(text: string): string {
  return /^[a-z0-9][a-z0-9.-]*$/i.test(text) ? text : JSON.stringify(text);
}

function introduction(kind: string): string {
  if (kind === "biencoder") return "A sentence encoder.";
  if (kind === "prefix") return "A contextual sentence encoder: its upper layers read documents of the corpus.";
  return "A contextual sentence encoder of two stages (Morris & Rush 2024, arXiv 2410.02525).";
}

function usage(alone: boolean): string {
  const lines = alone
    ? ["const embedder = encoder.withoutContext();"]
    : ["const context = await encoder.buildContext(documents);", "const embedder = encoder.withContext(context);"];
  return [
    "```ts",
    'import { ContextualEncoder } from "@cde-js/core";',
    'const encoder = await ContextualEncoder.load("path/of/this/directory");',
    ...lines,
    "```",
  ].join("\n");
}

function dataTable(
  pairs: Readonly<Record<string, number>>,
  known: Readonly<Record<string, { readonly licence?: string; readonly source?: string }>>,
): string {
  const names = Object.keys(pairs);
  if (names.length === 0) return "None: the weights are the base's.";
  const rows = names.map((name) => {
    const { licence = "not stated", source = "not stated" } = Object.hasOwn(known, name) ? known[name]! : {};
    return `| ${[name, String(pairs[name]), licence, source].map(cell).join(" | ")} |`;
  });
  return ["| data set | pairs seen, repeats included | licence | source |", "|---|---|---|---|", ...rows].join("\n");
}

function weightsText({
  weights,
  progress,
  averageWithBase,
}: {
  weights: "best" | "last";
  progress: ExportedRun["progress"];
  averageWithBase: number;
}): string {
  const which =
    weights === "best" && progress.best ? `the best, of step ${progress.best.step}` : "those of the last step";
  return averageWithBase > 0 ? `${which}, averaged with the base (share of the base ${averageWithBase})` : which;
}

function settingsTable(settings: ExportedRun["model"]["settings"]): string {
  const { context, spectral, ...rest } = settings;
  const shown: Record<string, unknown> = {
    ...rest,
    ...(context && {
      "context documents": context.documents,
      "context from": context.from === "batch" ? "the batch" : "the corpus",
      "gradient through the first stage": context.gradient,
      "context dropout": context.dropout,
    }),
    ...(spectral && {
      "spectral context, documents": spectral.documents,
      "its strength": spectral.strength,
      "its token weights' smoothing": spectral.smoothing,
    }),
  };
  const rows = Object.entries(shown).map(([key, value]) => `| ${key} | ${cell(text(value))} |`);
  return ["| setting | value |", "|---|---|", ...rows].join("\n");
}

function text(value: unknown): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function figures({ progress, forgetting }: ExportedRun): string {
  const { metrics, best } = progress;
  const rows = Object.entries(metrics ?? {}).map(([name, value]) => `| ${cell(name)}, last | ${value.toFixed(4)} |`);
  if (best) rows.push(`| best, at step ${best.step} | ${best.value.toFixed(4)} |`);
  if (forgetting) {
    const { drift, correlation, paraphrasesFound: found } = forgetting;
    rows.push(`| drift of general similarities from the base | ${drift.toFixed(4)} |`);
    rows.push(`| their correlation with the base's | ${correlation.toFixed(4)} |`);
    rows.push(`| paraphrases found, base and now | ${found.base.toFixed(3)}, ${found.now.toFixed(3)} |`);
  }
  return rows.length === 0 ? "None were measured." : ["| figure | value |", "|---|---|", ...rows].join("\n");
}

/** In a table a bar would end the cell, a line break the row. */
function cell(value: string): string {
  return value.replaceAll("|", "\\|").replaceAll(/\s*\n\s*/g, " ");
}
