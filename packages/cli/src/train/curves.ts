/** Curves over the steps of a run as inline SVG. */
import { html, type Markup } from "@cde-js/core/evaluation";

export interface Point {
  readonly step: number;
  readonly value: number;
}

export interface Curve {
  readonly label: string;
  readonly unit?: string;
  readonly points: readonly Point[];
  /** Draws the running mean over the points, which then are pale. */
  readonly smooth?: boolean;
  /** A level to compare with, such as the figure before training. */
  readonly level?: { readonly label: string; readonly value: number } | undefined;
  /** Steps that are marked, such as the best. */
  readonly marks?: readonly Point[];
}

const [LEFT, TOP, WIDTH, HEIGHT] = [58, 12, 360, 170];
/** Points that are drawn at most: more are averaged in groups, since a screen shows no more. */
const DRAWN = 400;

/** One curve with its axes; undefined where there is nothing to draw. */
export function curveOf({ label, points, smooth = false, level, marks = [] }: Curve): Markup | undefined {
  const finite = points.filter(({ value }) => Number.isFinite(value));
  if (finite.length === 0) return undefined;
  const drawn = thinned(finite, DRAWN);
  const ends = [...drawn, ...marks].map(({ value }) => value).concat(level ? [level.value] : []);
  const yTicks = niceTicks(Math.min(...ends), Math.max(...ends));
  const xTicks = niceTicks(
    Math.min(...finite.map(({ step }) => step)),
    Math.max(...finite.map(({ step }) => step)),
    true,
  );
  const [low, high, first, last] = [yTicks[0]!, yTicks.at(-1)!, xTicks[0]!, xTicks.at(-1)!];
  const x = (step: number) => round(LEFT + ((step - first) / Math.max(1, last - first)) * WIDTH);
  const y = (value: number) => round(TOP + (1 - (value - low) / (high - low || 1)) * HEIGHT);
  const line = (of: readonly Point[]) => of.map(({ step, value }) => `${x(step)},${y(value)}`).join(" ");
  const grid = yTicks.map(
    (tick) => html`<line class="grid" x1="${LEFT}" x2="${LEFT + WIDTH}" y1="${y(tick)}" y2="${y(tick)}"/>
<text class="tick" x="${LEFT - 8}" y="${y(tick) + 4}" text-anchor="end">${tickText(tick)}</text>`,
  );
  const steps = xTicks.map(
    (tick) =>
      html`<text class="tick" x="${x(tick)}" y="${TOP + HEIGHT + 18}" text-anchor="middle">${tickText(tick)}</text>`,
  );
  const reference = level
    ? [
        html`<line class="zero" x1="${LEFT}" x2="${LEFT + WIDTH}" y1="${y(level.value)}" y2="${y(level.value)}"><title>${level.label}: ${short(level.value)}</title></line>
<text class="tick" x="${LEFT + WIDTH}" y="${y(level.value) - 4}" text-anchor="end">${level.label}</text>`,
      ]
    : [];
  const few = drawn.length <= 60;
  const dots = few
    ? drawn.map(
        ({ step, value }) =>
          html`<circle class="point" cx="${x(step)}" cy="${y(value)}" r="2.5"><title>step ${short(step)}: ${short(value)}</title></circle>`,
      )
    : [];
  const marked = marks.map(
    ({ step, value }) =>
      html`<circle class="mark" cx="${x(step)}" cy="${y(value)}" r="4.5"><title>best, step ${step}: ${short(value)}</title></circle>`,
  );
  const pale = smooth && drawn.length > 8;
  return html`<svg class="plot" viewBox="0 0 ${LEFT + WIDTH + 20} ${TOP + HEIGHT + 26}" role="img" aria-label="${label} by step">${grid}${steps}${reference}<g class="better"><polyline class="${pale ? "curve pale" : "curve"}" points="${line(drawn)}"/>${pale ? [html`<polyline class="curve" points="${line(runningMean(drawn))}"/>`] : []}${dots}${marked}</g></svg>`;
}

/** The style of curves, beside the reports' own sheet. */
export const CURVE_STYLE: string =
  "svg .curve{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round}svg .curve.pale{opacity:.28;stroke-width:1}svg .point{fill:currentColor}";

/** Means of groups of neighbouring points. */
function thinned(points: readonly Point[], most: number): Point[] {
  const size = Math.ceil(points.length / most);
  const groups = Array.from({ length: Math.ceil(points.length / size) }, (_, i) =>
    points.slice(i * size, (i + 1) * size),
  );
  const mean = (of: readonly Point[], value: (point: Point) => number) =>
    of.reduce((sum, point) => sum + value(point), 0) / of.length;
  return groups.map((of) => ({ step: mean(of, ({ step }) => step), value: mean(of, ({ value }) => value) }));
}

/** Over a twentieth of the points to either side. */
function runningMean(points: readonly Point[]): Point[] {
  const reach = Math.max(1, Math.round(points.length / 20));
  return points.map(({ step }, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return { step, value: near.reduce((sum, { value }) => sum + value, 0) / near.length };
  });
}

/** Round numbers around a range: three to seven. */
function niceTicks(low: number, high: number, whole = false): number[] {
  const range = high - low || Math.abs(high) || 1;
  const rough = range / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const found = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough)!;
  const step = whole ? Math.max(1, Math.round(found)) : found;
  const from = Math.floor(low / step + 1e-9);
  const to = Math.max(from + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: to - from + 1 }, (_, i) => Number(((from + i) * step).toPrecision(12)));
}

function tickText(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(0).replace("e+", "e");
  return value.toLocaleString("en-US", { maximumFractionDigits: 4 });
}

function short(value: number): string {
  return String(Number(value.toPrecision(4)));
}

function round(value: number): number {
  return Math.round(100 * value) / 100;
}
