/** A context drawn in a plane, as one SVG file without scripts: its documents by cluster, the corpus behind them. */

import type { ContextClusters } from "./clusters.js";
import { fitPlane } from "./projection.js";

const SIZE = 720;
const MARGIN = 24;
const LEGEND = 24;
/** Told apart by most eyes, on light and dark ground (after Okabe and Ito). */
const COLOURS = [
  "#0072b2",
  "#e69f00",
  "#009e73",
  "#cc79a7",
  "#56b4e9",
  "#d55e00",
  "#8a7d00",
  "#7a5cc7",
  "#b04a5a",
  "#4b8f29",
  "#00868b",
  "#8c6d46",
];
/** Points of the corpus that are drawn. */
const DRAWN = 3000;

export async function drawContext(found: ContextClusters, dimensions: number, title: string): Promise<string> {
  const { rows, clusterOf, clusters, corpus } = found;
  const plane = await fitPlane(rows, dimensions);
  const own = plane.project(rows);
  const behind = corpus ? plane.project(corpus.rows) : new Float32Array(0);
  const place = placement([own, behind]);
  const step = Math.max(1, Math.ceil(behind.length / 2 / DRAWN));
  const height = SIZE + LEGEND * (clusters.length + 2) + MARGIN;
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SIZE} ${height}" role="img" font-family="system-ui, sans-serif" font-size="13">`,
    `<title>${escaped(title)}</title>`,
    "<style>.ground{fill:#fff}.ink{fill:#1b2330}.soft{fill:#5b6676}.corpus{fill:#9aa6b6;opacity:.45}@media (prefers-color-scheme:dark){.ground{fill:#161b22}.ink{fill:#e4e9f0}.soft{fill:#98a4b5}.corpus{fill:#5a6675}}</style>",
    `<rect class="ground" width="${SIZE}" height="${height}"/>`,
  ];
  for (let n = 0; n < behind.length / 2; n += step) {
    const [x, y] = place(behind, n);
    lines.push(
      `<circle class="corpus" cx="${x}" cy="${y}" r="1.5"><title>${escaped(corpus?.ids[n] ?? "")}</title></circle>`,
    );
  }
  for (let n = 0; n < own.length / 2; n++) {
    const [x, y] = place(own, n);
    const cluster = clusterOf[n] as number;
    lines.push(
      `<circle cx="${x}" cy="${y}" r="3.5" fill="${colourOf(cluster)}" fill-opacity=".8"><title>cluster ${cluster + 1}</title></circle>`,
    );
  }
  const share = `two main axes, ${(100 * plane.share).toFixed(0)} % of the variance${behind.length > 0 ? "; grey: passages of the corpus" : ""}`;
  lines.push(`<text class="ink" x="${MARGIN}" y="${SIZE + LEGEND}" font-weight="600">${escaped(title)}</text>`);
  lines.push(`<text class="soft" x="${MARGIN}" y="${SIZE + 2 * LEGEND - 4}">${share}</text>`);
  for (const [i, { size, corpusShare, example }] of clusters.entries()) {
    const y = SIZE + LEGEND * (i + 3) - 6;
    const label = `${size} of ${own.length / 2}${corpusShare === null ? "" : `, ${(100 * corpusShare).toFixed(0)} % of the corpus`}`;
    const text =
      example === null ? "" : `  ${example.length > 62 ? `${example.slice(0, 62).toWellFormed()}…` : example}`;
    lines.push(`<circle cx="${MARGIN + 6}" cy="${y - 4}" r="5" fill="${colourOf(i)}"/>`);
    lines.push(
      `<text class="ink" x="${MARGIN + 20}" y="${y}">${label}<tspan class="soft">${escaped(text)}</tspan></text>`,
    );
  }
  return `${lines.join("\n")}\n</svg>\n`;
}

function colourOf(cluster: number): string {
  return COLOURS[cluster % COLOURS.length] as string;
}

/** Where the points of these lists come to lie, all on one scale. */
function placement(lists: readonly Float32Array[]): (list: Float32Array, n: number) => [x: string, y: string] {
  const low = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  const high = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const list of lists) {
    for (const [i, x] of list.entries()) {
      low[i % 2] = Math.min(low[i % 2] as number, x);
      high[i % 2] = Math.max(high[i % 2] as number, x);
    }
  }
  const extent = [0, 1].map((k) => (high[k] as number) - (low[k] as number));
  const scale = (SIZE - 2 * MARGIN) / (Math.max(...extent) || 1);
  const at = (list: Float32Array, n: number, k: number): number =>
    SIZE / 2 + ((list[2 * n + k] as number) - (low[k] as number) - (extent[k] as number) / 2) * scale;
  return (list, n) => [at(list, n, 0).toFixed(1), (SIZE - at(list, n, 1)).toFixed(1)];
}

function escaped(text: string): string {
  // What XML can't carry at all, then what it reads as markup.
  return text
    .toWellFormed()
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd")
    .replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);
}
