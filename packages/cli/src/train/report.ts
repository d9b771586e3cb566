/** One HTML file that shows a run: curves and figures. It loads nothing, runs no script and holds no text of the data. */
import { html, Markup, REPORT_STYLE } from "@cde-js/core/evaluation";
import { clock, counted, grouped } from "../printable.js";
import { CURVE_STYLE, type Curve, curveOf, type Point } from "./curves.js";
import type { LogLine } from "./run-folder.js";

export interface RunReport {
  readonly title: string;
  /** How the run stands: "finished", "interrupted after step 12". */
  readonly status: string;
  /** Of step 0 the figures before training, then one line of each step. */
  readonly lines: readonly LogLine[];
  /** Such as "dev/ndcg@10"; undefined where nothing was measured. */
  readonly metric: string | undefined;
  /** What the dev figures are. */
  readonly dev: string;
  readonly facts: Readonly<Record<string, string>>;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly notes: readonly string[];
}

/** Equal input gives equal bytes. */
export function renderRunReport(report: RunReport): string {
  const { title, status, lines, metric, dev, facts, settings, notes } = report;
  const steps = lines.filter(({ step }) => step > 0);
  const last = steps.at(-1);
  const all: Readonly<Record<string, string>> = {
    Status: status,
    Steps: grouped(last?.step ?? 0),
    Time: clock(last?.seconds ?? 0),
    ...facts,
  };
  const curves = curvesOf(report, steps).flatMap((curve) => {
    const drawn = curveOf(curve);
    const { label, unit } = curve;
    return drawn ? [html`<figure><figcaption>${label}<small>${unit ?? ""}</small></figcaption>${drawn}</figure>`] : [];
  });
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${title}</title>
<style>${new Markup(REPORT_STYLE)}${new Markup(CURVE_STYLE)}</style>
</head>
<body><main>
<h1>${title}</h1>
<dl class="facts">${Object.entries(all).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
${notes.map((note) => html`<div class="warning" role="note">${note}</div>`)}
<section><h2>Curves</h2><p class="note">By step of the optimiser. Dev figures: ${dev}.</p><div class="plots">${curves}</div></section>
${metric === undefined ? [] : [figureTable(lines, metric)]}
<section><h2>Settings</h2><div class="scroll"><table><tbody>${Object.entries(settings).map(([name, value]) => html`<tr><th>${name}</th><td>${typeof value === "string" ? value : JSON.stringify(value)}</td></tr>`)}</tbody></table></div></section>
<footer>Made by cde train. Every figure of every step is in log.jsonl beside this file.</footer>
</main></body></html>
`;
  return page.text;
}

function curvesOf({ lines, metric }: RunReport, steps: readonly LogLine[]): Curve[] {
  const series = (value: (line: LogLine) => number | undefined, from = steps): Point[] =>
    from.flatMap((line) => {
      const found = value(line);
      return found === undefined ? [] : [{ step: line.step, value: found }];
    });
  const before = metric === undefined ? undefined : lines.find(({ step }) => step === 0)?.metrics?.[metric];
  const best = metric === undefined ? undefined : steps.findLast(({ isBest }) => isBest);
  return [
    {
      label: "Loss",
      unit: "contrastive and distillation, mean of a step's batches",
      points: series(({ loss }) => loss),
      smooth: true,
    },
    ...(metric === undefined
      ? []
      : [
          {
            label: metric,
            unit: "on texts that aren't trained on",
            points: series(({ metrics }) => metrics?.[metric], [...lines]),
            level: before === undefined ? undefined : { label: "before training", value: before },
            ...(best?.metrics && { marks: [{ step: best.step, value: best.metrics[metric]! }] }),
          },
        ]),
    {
      label: "Batch difficulty",
      unit: "mean surrogate score of queries and other pairs' documents: higher is harder",
      points: series(({ difficulty }) => difficulty),
      smooth: true,
    },
    {
      label: "False negatives filtered",
      unit: "per cent of what could be, pairs of a query and another's document",
      points: series(({ falseNegatives, candidates }) =>
        candidates === undefined || candidates === 0 || falseNegatives === undefined
          ? undefined
          : (100 * falseNegatives) / candidates,
      ),
      smooth: true,
    },
    {
      label: "Accuracy in the batch",
      unit: "share of queries whose positive comes first",
      points: series(({ accuracy }) => accuracy),
      smooth: true,
    },
    { label: "Learning rate", points: series(({ learningRate }) => learningRate) },
    {
      label: "Gradient norm",
      unit: "before clipping",
      points: series(({ gradientNorm }) => gradientNorm),
      smooth: true,
    },
    { label: "Pairs a second", points: series(({ pairsPerSecond }) => pairsPerSecond), smooth: true },
  ];
}

/** The figures before training, at the best step and at the last evaluation. */
function figureTable(lines: readonly LogLine[], metric: string): Markup {
  const measured = lines.filter(({ metrics }) => metrics !== undefined);
  const best = measured.findLast(({ isBest }) => isBest);
  const rows: readonly (readonly [string, LogLine | undefined])[] = [
    ["before training", measured.find(({ step }) => step === 0)],
    ["best", best],
    ["last", measured.findLast(({ step }) => step > 0)],
  ];
  const names = [...new Set(measured.flatMap(({ metrics }) => Object.keys(metrics!)))];
  names.sort((a, b) => Number(b === metric) - Number(a === metric));
  const shown = rows.filter((row): row is [string, LogLine] => row[1] !== undefined);
  return html`<section><h2>Figures</h2><p class="note">Times 100, ${counted(measured.length, "evaluation")}. The best is by ${metric}.</p><div class="scroll"><table><thead><tr><th></th><th>step</th>${names.map((name) => html`<th>${name}</th>`)}</tr></thead><tbody>${shown.map(([name, line]) => html`<tr><th>${name}</th><td>${line.step}</td>${names.map((figure) => html`<td>${(100 * (line.metrics as Readonly<Record<string, number>>)[figure]!).toFixed(1)}</td>`)}</tr>`)}</tbody></table></div></section>`;
}
