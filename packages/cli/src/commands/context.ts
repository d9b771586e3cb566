/** `cde context`: builds the context of a corpus as a file of its own, and says what is in one. */
import { randomUUID } from "node:crypto";
import { rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { CorpusContext, type Embedder, InvalidInputError, internal } from "@cde-js/core";
import { StorageError } from "@cde-js/retriever";
import { CONTEXT_HELP, CONTEXT_OPTIONS, surveyCorpus } from "../build-context.js";
import { type Command, type Invocation, UsageError } from "../command.js";
import { type ContextCluster, clusterContext } from "../context/clusters.js";
import { describe, descriptionLines } from "../context/describe.js";
import { differenceOf } from "../context/difference.js";
import { drawContext } from "../context/picture.js";
import { type NeighbourChange, reportContext } from "../context/report.js";
import { reportPage } from "../context/report-page.js";
import { Inputs } from "../inputs.js";
import { openListed } from "../listed-rows.js";
import { loadEncoder, MODEL_HELP, modelOption } from "../model.js";
import { counted, grouped, shortened } from "../printable.js";
import { readSettings } from "../settings.js";

const help = `cde context build <folder | file> ... --out FILE
cde context inspect <FILE | DIR> [--svg FILE]
cde context diff <FILE | DIR> <FILE | DIR>
cde context report <folder | file> ... [--html FILE] [--query TEXT] ...

build draws passages of the documents (see "cde help index") and writes the context built from them to FILE
(safetensors); "cde index --context FILE" uses it. inspect says what is in such a file, or in the context of the index in
DIR: its clusters, and of an index how well they cover the corpus, with examples. diff says how far two contexts are apart:
the fields of their fingerprints, shared texts, means, spectra, and how a text's vector changes from one to the other, beside
what chance does to it. report builds the context of a corpus and says whether it is worth having: spectrum, strength and
expected gain, and the neighbours of ten queries (made of the corpus, or yours) that change.

  --out FILE         the context
  --html FILE        for report: write it as a page
  --query TEXT       for report: a query to show neighbours of; may come several times
  --svg FILE         for inspect: draw the context (and the corpus behind it) in a plane
  ${CONTEXT_HELP}
  ${MODEL_HELP}
  --skip-unreadable  leave out files that are binary, not UTF-8 or can't be read, and say which
`;

export const context: Command = {
  summary: "build <folder | file> ... --out FILE, inspect FILE, diff A B, report <folder>: contexts by themselves",
  help,
  options: {
    out: { type: "string" },
    svg: { type: "string" },
    html: { type: "string" },
    query: { type: "string", multiple: true },
    ...CONTEXT_OPTIONS,
    model: { type: "string" },
    "skip-unreadable": { type: "boolean" },
  },
  run: async (invocation) => {
    const [action, ...paths] = invocation.positionals;
    if (action === "build") await build(paths, invocation);
    else if (action === "inspect") await inspect(paths, invocation);
    else if (action === "diff") await diff(paths, invocation);
    else if (action === "report") await report(paths, invocation);
    else
      throw new UsageError(
        `"build", "inspect", "diff" or "report" is missing${action === undefined ? "" : `, got ${JSON.stringify(action)}`}.`,
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
    ...descriptionLines(description),
    ...skipped.map(({ path, why }) => `left out: ${path} ${why}`),
  ]);
}

async function report(paths: readonly string[], invocation: Invocation): Promise<void> {
  const { options, signal } = invocation;
  const file = options.text("html");
  const inputs = new Inputs(paths, { skipUnreadable: options.flag("skip-unreadable"), signal });
  await using encoder = await loadEncoder(modelOption(invocation), invocation);
  const { context, survey } = await surveyCorpus(encoder, inputs, { wanted: true, invocation });
  const texts = survey.choice!.chosen;
  const embedders = { bound: encoder.withContext(context!), without: encoder.withoutContext() };
  const found = await reportContext(context!, texts, embedders, { queries: options.texts("query"), signal });
  if (file !== undefined) await writeWhole(resolve(file), reportPage(found, texts));
  const shown = ({ query, changed, with: after }: NeighbourChange) =>
    `  ${changed} of ${after.length} changed: ${shortened(query, 100)}`;
  const neighbours = found.queries.map((query) => ({
    ...query,
    without: query.without.map((at) => texts[at]!),
    with: query.with.map((at) => texts[at]!),
  }));
  invocation.answer({ ...found, queries: neighbours, ...(file === undefined ? {} : { html: resolve(file) }) }, [
    ...descriptionLines(describe(context!)),
    `nearest passages of ${counted(found.queries.length, "query")} among the context's, without and with it:`,
    ...found.queries.map(shown),
    ...(file === undefined ? [] : [`wrote ${resolve(file)}`]),
  ]);
}

async function inspect(paths: readonly string[], invocation: Invocation): Promise<void> {
  const { options, signal } = invocation;
  const [path, ...more] = paths;
  if (path === undefined || more.length > 0) throw new UsageError("inspect takes one file or index.");
  const svg = options.text("svg");
  const found = await contextAt("inspect", path);
  // What lies in the folder is read without a model: nothing is embedded.
  await using opened = (await isFolder(path)) ? await openListed(path, reader(found), { signal }) : undefined;
  const seen = await clusterContext(found, opened, signal);
  const description = describe(found);
  const { clusters, coverage } = seen;
  if (svg !== undefined) {
    const title = `${basename(resolve(path))}: ${found.stage} context of ${counted(found.size, "passage")}`;
    await writeWhole(resolve(svg), await drawContext(seen, found.dimensions, title));
  }
  invocation.answer({ ...description, clusters, coverage, ...(svg === undefined ? {} : { svg: resolve(svg) }) }, [
    ...descriptionLines(description),
    `${counted(clusters.length, "cluster")}:`,
    ...clusters.map(clusterLine),
    ...(coverage
      ? [
          `of ${counted(coverage.passages, "passage")} of the corpus: cosine to the nearest context document ${coverage.mean.toFixed(2)} in the mean, below ${coverage.tenth.toFixed(2)} for a tenth; ${(100 * coverage.imbalance).toFixed(0)} % of the context lies in other clusters than the corpus`,
          ...coverage.worst.map(
            ({ id, text, similarity }) => `  least covered (${similarity.toFixed(2)}): ${id}: ${text}`,
          ),
        ]
      : [
          opened
            ? "its vectors can't be compared with those of the corpus"
            : "a context holds no texts: inspect an index to see examples and coverage",
        ]),
    ...(svg === undefined ? [] : [`drawn to ${resolve(svg)}`]),
  ]);
}

function clusterLine({ size, tightness, corpusShare, example }: ContextCluster, i: number): string {
  const share = corpusShare === null ? "" : `, ${(100 * corpusShare).toFixed(0)} % of the corpus`;
  return `  ${i + 1}. ${counted(size, "passage")}${share}, tightness ${tightness.toFixed(2)}${example === null ? "" : `: ${example}`}`;
}

async function diff(paths: readonly string[], invocation: Invocation): Promise<void> {
  const [a, b, ...more] = paths;
  if (a === undefined || b === undefined || more.length > 0) throw new UsageError("diff takes two files or indexes.");
  const [left, right] = [await contextAt("diff", a), await contextAt("diff", b)];
  const difference = await differenceOf(left, right);
  const { same, fields, texts, spectral } = difference;
  const { shared, onlyA, onlyB, reordered } = texts;
  const pair = ([x, y]: readonly [number, number], digits: number): string =>
    `${x.toFixed(digits)} and ${y.toFixed(digits)}`;
  invocation.answer({ a: left.fingerprint, b: right.fingerprint, ...difference }, [
    same
      ? `the same context: ${left.fingerprint}`
      : `A ${left.fingerprint}, B ${right.fingerprint}; other ${fields.join(", ")}`,
    `texts: ${grouped(shared)} in both, ${grouped(onlyA)} only in A, ${grouped(onlyB)} only in B${reordered ? "; the same ones in another order" : ""}`,
    ...(spectral
      ? [
          `|mean|²: ${pair(spectral.meanNormSquared, 3)}${spectral.meanCosine === null ? "" : `, cosine of the means ${spectral.meanCosine.toFixed(3)}`}`,
          `directions in use: ${pair(spectral.effectiveDimensions, 0)}; similarity of the covariances ${spectral.covarianceSimilarity.toFixed(3)}`,
          `a text under A and under B: cosine ${spectral.effect.mean.toFixed(4)} in the mean, ${spectral.effect.least.toFixed(4)} at least${spectral.chance ? `; two halves of A: ${spectral.chance.mean.toFixed(4)}, ${spectral.chance.least.toFixed(4)}` : ""}`,
        ]
      : ["means and spectra can't be compared: other models, or contexts that aren't spectral"]),
  ]);
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

/** The context in a file, or of the index in a folder. */
async function contextAt(operation: string, path: string): Promise<CorpusContext> {
  const found = (await isFolder(path)) ? (await readSettings(path))?.context : await CorpusContext.load(path);
  if (found) return found;
  throw new InvalidInputError(`${operation}: the index in ${path} was built without context.`);
}

/** Stands for the embedder of an index that is only read: it has the fingerprints, and embeds nothing. */
function reader(context: CorpusContext): Embedder {
  const { modelId, dimensions, stage } = context;
  const refuse = () => Promise.reject(internal("an index that is only read was asked to embed"));
  const of = (fingerprint: string): Embedder => ({
    modelId,
    fingerprint,
    dimensions,
    stage,
    maxTokens: 1,
    batchInvariant: true,
    // Listing passages goes by way of a search, whose query is not looked at.
    embedQuery: async () => new Float32Array(dimensions).fill(1),
    embedQueries: refuse,
    embedDocuments: refuse,
    embedStream: () => {
      throw internal("an index that is only read was asked to embed");
    },
  });
  return { ...of(context.fingerprint), context, ...(context.map && { base: of(context.identity.model) }) };
}

/** Wholly or not at all. @throws StorageError */
async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    await writeFile(temporary, text, { flag: "wx" });
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    const { message, code } = cause as NodeJS.ErrnoException;
    throw new StorageError(path, `${path}: ${message}.`, { cause, errno: code });
  }
}
