/**
 * The picture of docs/spectral-context.md: the spectrum of one corpus before and after its map.
 *
 *   npm run build && node bench/spectral-picture.mjs --data <folder> --base <folder> --vectors <cache> [--set obliqa] > docs/images/spectrum.svg
 */
import { parseArgs } from "node:util";
import { createRandom, DEFAULT_STRENGTH, Spectrum } from "@cde-js/core";
import { BaseVectors } from "./lib/base-vectors.mjs";

const WIDTH = 384;
const { values } = parseArgs({
  options: {
    data: { type: "string" },
    base: { type: "string" },
    vectors: { type: "string" },
    set: { type: "string", default: "obliqa" },
  },
});
const source = new BaseVectors({ data: values.data, base: values.base, cache: values.vectors });
const { rows } = await source.documents(values.set);
await source.dispose();
const sample = createRandom(1)
  .shuffle([...Array(rows.length / WIDTH).keys()])
  .slice(0, 512);
const { eigenvalues, meanNormSquared } = await Spectrum.fit(
  sample.map((i) => rows.subarray(i * WIDTH, (i + 1) * WIDTH)),
);
const { a, s } = DEFAULT_STRENGTH;
const mapped = eigenvalues.map((l) => l * ((1 - s) * l + s) ** -a);
const mean = mapped.reduce((sum, l) => sum + l, 0) / WIDTH;

const [left, top, width, height] = [60, 24, 560, 260];
const [most, least] = [Math.log10(40), Math.log10(0.01)];
const x = (k) => left + (width * Math.log10(k + 1)) / Math.log10(WIDTH);
const y = (l) => top + (height * (most - Math.log10(Math.max(l, 0.01)))) / (most - least);
const path = (of) => [...of].map((l, k) => `${k === 0 ? "M" : "L"}${x(k).toFixed(1)} ${y(l).toFixed(1)}`).join("");
const ticks = [
  ...[1, 10, 100].map(
    (k) =>
      `<path class="g" d="M${x(k - 1).toFixed(1)} ${top}v${height}"/><text x="${x(k - 1).toFixed(1)}" y="${top + height + 18}" text-anchor="middle">${k}</text>`,
  ),
  ...[0.01, 0.1, 1, 10].map(
    (l) =>
      `<path class="g" d="M${left} ${y(l).toFixed(1)}h${width}"/><text x="${left - 8}" y="${(y(l) + 4).toFixed(1)}" text-anchor="end">${l}</text>`,
  ),
];
console.log(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 330" role="img" aria-label="Eigenvalues of ${values.set} before and after the map">
<style>text{font:12px sans-serif;fill:#57606a}.g{stroke:#8c959f;stroke-opacity:.3}.l{fill:none;stroke-width:2}.b{stroke:#8250df}.a{stroke:#1a7f37}rect{fill:#fff}@media(prefers-color-scheme:dark){rect{fill:#0d1117}text{fill:#9198a1}.b{stroke:#ab7df8}.a{stroke:#3fb950}}</style>
<rect width="640" height="330"/>
${ticks.join("\n")}
<path class="l b" d="${path(eigenvalues)}"/><path class="l a" d="${path(mapped.map((l) => l / mean))}"/>
<text x="${left + 316}" y="${top + 20}">before: ${values.set}, 512 documents, |m|² ${meanNormSquared.toFixed(2)}</text>
<text x="${left + 316}" y="${top + 38}">after: a ${a}, s ${s} (flatter)</text>
<path class="l b" d="M${left + 294} ${top + 16}h14"/><path class="l a" d="M${left + 294} ${top + 34}h14"/>
<text x="${left + width / 2}" y="${top + height + 38}" text-anchor="middle">direction, by rank (log scale)</text>
<text x="14" y="${top + height / 2}" text-anchor="middle" transform="rotate(-90 14 ${top + height / 2})">eigenvalue, mean 1 (log scale)</text>
</svg>`);
