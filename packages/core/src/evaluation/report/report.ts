/** One HTML file that shows a comparison of systems; it loads nothing and runs no script. */
import { InvalidInputError } from "../../errors.js";
import type { ComparedSystem, Comparison } from "../comparison.js";
import { type DataSet, missingDocuments } from "../data-set.js";
import type { MetricName } from "../metrics.js";
import type { Slice } from "../slices.js";
import { writeLines } from "../write-lines.js";
import { grouped, metricTitle, points, signed } from "./figures.js";
import { html, Markup } from "./markup.js";
import { differencePlot, scatterPlot, verdict } from "./plots.js";
import { queryLists } from "./queries.js";
import { STYLE } from "./style.js";

export interface ReportOptions {
  /** @default "Retrieval on <name of the set>" */
  readonly title?: string;
  /** More lines of the head: what and its value, such as the model's name. */
  readonly facts?: Readonly<Record<string, string>>;
  /** Name of the system whose queries are listed. @default the one with the best mean, the base apart */
  readonly focus?: string;
}

/**
 * The report as HTML. All texts of the data set are escaped; a policy in the page forbids it to load anything. Equal
 * input gives equal bytes. Raises InvalidInputError for a `focus` that is no system, or is the base, and for another data set than was evaluated.
 */
export function renderReport<M extends MetricName>(
  dataSet: DataSet,
  comparison: Comparison<M>,
  options: ReportOptions = {},
): string {
  const { base, metrics, systems } = comparison;
  const metric = metrics[0]!;
  const reference = systems.find(({ name }) => name === base)!;
  const others = systems.filter(({ name }) => name !== base);
  const focus = focusOf(others, metric, options.focus);
  for (const { name, result } of systems)
    for (const { id } of dataSet.queries)
      if (!result.perQuery.has(id))
        throw new InvalidInputError(
          `renderReport: query "${id}" of ${dataSet.name} was not evaluated with ${name}. Pass the data set that the figures are of.`,
        );
  const title = options.title ?? `Retrieval on ${dataSet.name}`;
  const facts: Record<string, string> = {
    "Data set": dataSet.name,
    Split: dataSet.split,
    Documents: grouped(dataSet.documents.length),
    Queries: grouped(dataSet.queries.length),
    ...options.facts,
  };
  const warning = (text: string): Markup => html`<div class="warning" role="note">${text}</div>`;
  const missing = missingDocuments(dataSet).length;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${title}</title>
<style>${new Markup(STYLE)}</style>
</head>
<body><main>
<header><h1>${title}</h1><p class="lead">Every system against ${base}, query by query.</p>
<dl class="facts">${Object.entries(facts).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></header>
${dataSet.synthetic === undefined ? [] : [warning(dataSet.synthetic)]}
${missing === 0 ? [] : [warning(`${grouped(missing)} judged documents are not in the corpus. They count as relevant and are never found, so every figure is too low.`)]}
<section><h2>Figures</h2><p class="note">Means over all queries × 100. Below: the difference to ${base} and its 95 % interval (paired bootstrap), coloured where the interval excludes 0; the best of a column is underlined.</p>
${figures(comparison)}</section>
${
  others.length === 0
    ? []
    : [
        html`<section><h2>Differences to ${base}</h2><p class="note">In points. An interval that crosses the dashed line is compatible with no difference. Each is one comparison of several: one in twenty would exclude 0 by chance.</p>
<div class="plots">${metrics.map((name) => html`<figure><figcaption>${metricTitle(name)}</figcaption>${differencePlot(comparison, name)}</figure>`)}</div></section>
<section><h2>Query by query</h2><p class="note">${metricTitle(metric)} of each query with ${base} (across) and with another system (up): above the diagonal the other system is better. Larger circles are more queries of equal figures; rest the pointer on one to see them.</p>
<div class="plots small">${others.map((system) => scatter(dataSet, reference, system, metric))}</div></section>`,
      ]
}
${
  focus === undefined
    ? []
    : [
        html`<section><h2>Queries to read</h2><p class="note">${metricTitle(metric)} with ${base} and with ${focus.name}. Open a line to see what should have been found, and what was.</p>
${queryLists({ dataSet, metric, base: reference, system: focus })}</section>`,
      ]
}
<section><h2>By length</h2><p class="note">${metricTitle(metric)} of about equal parts of the queries, lengths in words. A document's length is the mean over a query's relevant documents.</p>
<h3>Length of the query</h3>${sliceTable(systems, metric, "queryLength")}
<h3>Length of the relevant documents</h3>${sliceTable(systems, metric, "documentLength")}</section>
<footer>Metrics as in trec_eval. A query without results counts as 0. Intervals of few queries are too narrow.</footer>
</main></body>
</html>
`;
  return page.text;
}

/** Writes the report, wholly or not at all. Errors as `renderReport`; RuntimeFailureError where the disk fails. */
export async function writeReport<M extends MetricName>(
  path: string,
  dataSet: DataSet,
  comparison: Comparison<M>,
  options: ReportOptions = {},
): Promise<void> {
  const page = renderReport(dataSet, comparison, options);
  await writeLines("writeReport", path, () => [page]);
}

function focusOf<M extends MetricName>(
  others: readonly ComparedSystem<M>[],
  metric: M,
  wanted: string | undefined,
): ComparedSystem<M> | undefined {
  if (wanted === undefined) return [...others].sort((a, b) => b.result.mean[metric] - a.result.mean[metric])[0];
  const found = others.find(({ name }) => name === wanted);
  if (found) return found;
  throw new InvalidInputError(
    `renderReport: focus is "${wanted}", which is no system beside the base; there are ${others.map(({ name }) => name).join(", ")}.`,
  );
}

function figures<M extends MetricName>({ systems, metrics, base }: Comparison<M>): Markup {
  const best = new Map(
    metrics.map((metric) => [metric, Math.max(...systems.map(({ result }) => result.mean[metric]))]),
  );
  const rows = systems.map(({ name, description, result, against }) => {
    const cells = metrics.map((metric) => {
      const mean = result.mean[metric];
      const mark = mean === best.get(metric) ? "best" : "other";
      if (!against)
        return html`<td class="${mark}"><b>${points(mean)}</b><small>${name === base ? "base" : ""}</small></td>`;
      const { difference, interval } = against[metric];
      const [low, high] = interval;
      return html`<td class="${mark}"><b>${points(mean)}</b><small class="${verdict(interval)}">${signed(100 * difference)} (${signed(100 * low)} to ${signed(100 * high)})</small></td>`;
    });
    return html`<tr><th scope="row">${name}<small>${description}</small></th>${cells}</tr>`;
  });
  return html`<div class="scroll"><table><thead><tr><th scope="col">System</th>${metrics.map((metric) => html`<th scope="col">${metricTitle(metric)}</th>`)}</tr></thead><tbody>${rows}</tbody></table></div>`;
}

function scatter<M extends MetricName>(
  { queries }: DataSet,
  base: ComparedSystem<M>,
  system: ComparedSystem<M>,
  metric: M,
): Markup {
  const pairs = queries.map(({ id, text }) => ({
    query: text.length > 90 ? `${text.slice(0, 90)}…` : text,
    base: base.result.perQuery.get(id)![metric],
    system: system.result.perQuery.get(id)![metric],
  }));
  const { wins, ties, losses } = system.against![metric];
  return html`<figure><figcaption>${system.name}<small>above on ${wins}, equal on ${ties}, below on ${losses}</small></figcaption>${scatterPlot(pairs, { base: base.name, system: system.name })}</figure>`;
}

function sliceTable<M extends MetricName>(
  systems: readonly ComparedSystem<M>[],
  metric: M,
  by: "queryLength" | "documentLength",
): Markup {
  const slices: readonly Slice<M>[] = systems[0]!.result.slices[by];
  const span = ({ from, to }: Slice<M>) => {
    const [low, high] = [Math.round(from), Math.round(to)];
    return low === high ? `${low}` : `${low} to ${high}`;
  };
  const rows = slices.map((slice, i) => {
    const means = systems.map(({ result }) => result.slices[by][i]!.mean[metric]);
    const most = Math.max(...means);
    const cells = means.map(
      (mean) => html`<td class="${mean === most ? "best" : "other"}"><b>${points(mean)}</b></td>`,
    );
    return html`<tr><th scope="row">${span(slice)}</th><td>${grouped(slice.queries.length)}</td>${cells}</tr>`;
  });
  return html`<div class="scroll"><table><thead><tr><th scope="col">Words</th><th scope="col">Queries</th>${systems.map(({ name }) => html`<th scope="col">${name}</th>`)}</tr></thead><tbody>${rows}</tbody></table></div>`;
}
