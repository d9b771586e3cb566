/** The plots of a report as inline SVG: differences with their intervals, and one point a query. */
import type { Comparison } from "../comparison.js";
import type { MetricName } from "../metrics.js";
import { points, signed, tickLabel } from "./figures.js";
import { html, type Markup } from "./markup.js";

/** One row a system: the difference to the base in points, with its 95 % interval. */
export function differencePlot<M extends MetricName>({ systems, base }: Comparison<M>, metric: M): Markup {
  const rows = systems.flatMap(({ name, against }) => (against ? [{ name, of: against[metric] }] : []));
  const ends = rows.flatMap(({ of }) => [...of.interval, of.difference]).map((value) => 100 * value);
  const ticks = niceTicks(Math.min(0, ...ends), Math.max(0, ...ends));
  const [low, high] = [ticks[0]!, ticks.at(-1)!];
  const [left, width, rowHeight, top] = [116, 300, 26, 8];
  const bottom = top + rows.length * rowHeight;
  const x = (value: number) => round(left + ((value - low) / (high - low)) * width);
  const grid = ticks.map(
    (
      tick,
    ) => html`<line class="${tick === 0 ? "zero" : "grid"}" x1="${x(tick)}" x2="${x(tick)}" y1="${top}" y2="${bottom}"/>
<text class="tick" x="${x(tick)}" y="${bottom + 16}" text-anchor="middle">${tickLabel(tick)}</text>`,
  );
  const marks = rows.map(({ name, of }, i) => {
    const y = top + (i + 0.5) * rowHeight;
    const [from, to] = [x(100 * of.interval[0]), x(100 * of.interval[1])];
    return html`<g class="${verdict(of.interval)}"><title>${name}: ${signed(100 * of.difference)} (${signed(100 * of.interval[0])} to ${signed(100 * of.interval[1])}), p = ${of.pValue.toPrecision(2)}; above on ${of.wins} queries, equal on ${of.ties}, below on ${of.losses}</title>
<text class="label" x="${left - 14}" y="${y + 4}" text-anchor="end">${name}</text>
<line class="interval" x1="${from}" x2="${to}" y1="${y}" y2="${y}"/><line class="interval" x1="${from}" x2="${from}" y1="${y - 4}" y2="${y + 4}"/><line class="interval" x1="${to}" x2="${to}" y1="${y - 4}" y2="${y + 4}"/>
<circle class="mark" cx="${x(100 * of.difference)}" cy="${y}" r="4.5"/></g>`;
  });
  return html`<svg class="plot" viewBox="0 0 ${left + width + 24} ${bottom + 24}" role="img" aria-label="Differences to ${base} in ${metric}">${grid}${marks}</svg>`;
}

/** Queries of equal figures are one circle, whose area is their number. */
export function scatterPlot(
  pairs: readonly { readonly query: string; readonly base: number; readonly system: number }[],
  names: { readonly base: string; readonly system: string },
): Markup {
  const [left, top, size] = [66, 20, 250];
  const groups = new Map<string, { x: number; y: number; queries: string[] }>();
  for (const { query, base, system } of pairs) {
    const key = `${base.toFixed(2)} ${system.toFixed(2)}`;
    const group = groups.get(key) ?? { x: base, y: system, queries: [] };
    group.queries.push(query);
    groups.set(key, group);
  }
  const most = Math.max(1, ...[...groups.values()].map(({ queries }) => queries.length));
  const x = (value: number) => round(left + value * size);
  const y = (value: number) => round(top + (1 - value) * size);
  const radius = (count: number) => round(Math.max(2.5, 16 * Math.sqrt(count / Math.max(most, 40))));
  // Large circles first, so that small ones lie on them.
  const circles = [...groups.values()]
    .sort((a, b) => b.queries.length - a.queries.length)
    .map(({ x: base, y: system, queries }) => {
      const side = system > base ? "better" : system < base ? "worse" : "same";
      const shown = queries.slice(0, 4).join(" | ");
      const more = queries.length > 4 ? ` | and ${queries.length - 4} more` : "";
      return html`<circle class="dot ${side}" cx="${x(base)}" cy="${y(system)}" r="${radius(queries.length)}"><title>${names.base} ${points(base)}, ${names.system} ${points(system)}: ${shown}${more}</title></circle>`;
    });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(
    (
      tick,
    ) => html`<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="${y(0)}" y2="${y(1)}"/><line class="grid" x1="${x(0)}" x2="${x(1)}" y1="${y(tick)}" y2="${y(tick)}"/>
<text class="tick" x="${x(tick)}" y="${y(0) + 24}" text-anchor="middle">${100 * tick}</text><text class="tick" x="${left - 20}" y="${y(tick) + 4}" text-anchor="end">${100 * tick}</text>`,
  );
  return html`<svg class="plot" viewBox="0 0 ${left + size + 24} ${top + size + 50}" role="img" aria-label="${names.system} against ${names.base}, one point a query">
${ticks}<line class="zero" x1="${x(0)}" y1="${y(0)}" x2="${x(1)}" y2="${y(1)}"/>${circles}
<text class="axis" x="${x(0.5)}" y="${y(0) + 44}" text-anchor="middle">${names.base}</text><text class="axis" transform="translate(14 ${y(0.5)}) rotate(-90)" text-anchor="middle">${names.system}</text></svg>`;
}

/** Whether an interval lies on one side of 0. */
export function verdict([low, high]: readonly [number, number]): "better" | "worse" | "same" {
  return low > 0 ? "better" : high < 0 ? "worse" : "same";
}

/** Round steps that cover a range, about five of them. */
function niceTicks(low: number, high: number): number[] {
  const span = Math.max(high - low, 0.5);
  const rough = span / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough)!;
  const first = Math.floor(low / step);
  const last = Math.max(first + 1, Math.ceil(high / step));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

function round(value: number): number {
  return Math.round(10 * value) / 10;
}
