/** A context report as one HTML file: no script, nothing from elsewhere. */
import { html, type Markup, REPORT_STYLE } from "@cde-js/core/evaluation";
import { shortened } from "../printable.js";
import type { ContextReport, NeighbourChange } from "./report.js";

export function reportPage(report: ContextReport, texts: readonly string[]): string {
  const { modelId, fingerprint, passages, why, meanNormSquared, queries } = report;
  const changed = queries.filter((query) => query.changed > 0).length;
  return `<!doctype html>
${
  html`<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Context of ${passages} passages</title>
${STYLE_ELEMENT}</head>
<body><main><h1>What the context does to this corpus</h1>
<p class="lead">${why}.</p>
<section><dl class="facts"><div><dt>model</dt><dd>${modelId}</dd></div><div><dt>passages in the context</dt><dd>${passages}</dd></div><div><dt>|mean|²</dt><dd>${meanNormSquared.toFixed(3)}</dd></div><div><dt>fingerprint</dt><dd>${fingerprint}</dd></div></dl></section>
<section><h2>Spectrum</h2><p class="note">How much the passages differ along each direction, before the map and behind it. A steep curve means that a few directions, which say what the whole corpus is about, outweigh those that tell passages apart; the map flattens it.</p>
${spectrumPlot(report)}</section>
<section><h2>Neighbours of ${queries.length} queries</h2><p class="note">Among the ${passages} passages of the context, a sample of the corpus. ${changed} of ${queries.length} queries find other passages than without context. Whether those are better only judgements can say: cde evaluate.</p>
${queries.map((query) => neighbours(query, texts))}</section>
</main></body></html>`.text
}
`;
}

const STYLE_ELEMENT: Markup = html`<style>${REPORT_STYLE}.before{color:var(--worse)}.after{color:var(--better)}svg path{fill:none;stroke:currentColor;stroke-width:2}</style>`;

function neighbours({ query, without, with: after, changed }: NeighbourChange, texts: readonly string[]): Markup {
  const list = (title: string, rows: readonly number[], others: readonly number[]) =>
    html`<h4>${title}</h4><ol>${rows.map(
      (row) =>
        html`<li>${others.includes(row) ? "" : html`<span class="tag">only here</span>`}${shortened(texts[row]!, 240)}</li>`,
    )}</ol>`;
  return html`<details><summary><span class="q">${shortened(query, 240)}</span><span class="was">${changed} of ${after.length} changed</span></summary>
<div class="passages">${list("without context", without, after)}${list("with context", after, without)}</div></details>`;
}

/** Both axes logarithmic: rank of the direction, eigenvalue of mean 1. */
function spectrumPlot({ eigenvalues, mapped }: ContextReport): Markup {
  const [left, top, width, height] = [52, 12, 520, 220];
  const count = eigenvalues.length;
  const most = Math.log10(Math.max(10, eigenvalues[0] ?? 0, mapped[0] ?? 0));
  const least = -2;
  const x = (rank: number) => round(left + (width * Math.log10(rank)) / Math.log10(Math.max(2, count)));
  const y = (value: number) =>
    round(top + (height * (most - Math.log10(Math.max(value, 10 ** least)))) / (most - least));
  const path = (of: readonly number[]) => of.map((l, k) => `${k === 0 ? "M" : "L"}${x(k + 1)} ${y(l)}`).join("");
  const ranks = [1, 10, 100, 1000].filter((rank) => rank <= count);
  return html`<svg class="plot" viewBox="0 0 ${left + width + 16} ${top + height + 44}" role="img" aria-label="Eigenvalues before and behind the map">
${ranks.map((rank) => html`<line class="grid" x1="${x(rank)}" x2="${x(rank)}" y1="${top}" y2="${top + height}"/><text x="${x(rank)}" y="${top + height + 18}" text-anchor="middle">${rank}</text>`)}
${[0.01, 0.1, 1, 10].map((l) => html`<line class="grid" x1="${left}" x2="${left + width}" y1="${y(l)}" y2="${y(l)}"/><text x="${left - 8}" y="${y(l) + 4}" text-anchor="end">${l}</text>`)}
<path class="before" d="${path(eigenvalues)}"/><path class="after" d="${path(mapped)}"/>
<g class="before"><path d="M${left + width - 130} ${top + 14}h18"/></g><text class="label" x="${left + width - 104}" y="${top + 18}">without context</text>
<g class="after"><path d="M${left + width - 130} ${top + 34}h18"/></g><text class="label" x="${left + width - 104}" y="${top + 38}">with context</text>
<text class="axis" x="${left + width / 2}" y="${top + height + 38}" text-anchor="middle">direction, by rank</text></svg>`;
}

function round(value: number): number {
  return Math.round(10 * value) / 10;
}
