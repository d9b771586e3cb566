/**
 * What `cde adapt` gains on people's questions: the bundled model adapted to each corpus without labels, then int8, beside the bundled
 * model, both as they are used by default, on dev queries that it never saw. nDCG@10; several seeds.
 *
 *   npm run build && node bench/adapt.mjs --data <folder of BEIR sets> --out <folder> [--sets obliqa,cuad,nfcorpus,fin10k] [--seeds 3]
 *     [--minutes 20] [--documents 3500] [--queries 400]
 *
 * Leave the machine alone meanwhile: minutes are made into steps by what steps take. What `--out` holds isn't made again. Intervals:
 * 95 %, paired bootstrap over queries of the mean over seeds, sets weighing the same.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { exportInt8 } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { gain, interval, meanOf, meanRun } from "./lib/gains.mjs";
import { measureInUse, readSet } from "./lib/in-use.mjs";

const COLUMNS = { plain: "without context", context: "with context", hybrid: "hybrid, with context" };
const { values } = parseArgs({
  options: {
    data: { type: "string" },
    out: { type: "string" },
    sets: { type: "string", default: "obliqa,cuad,nfcorpus,fin10k" },
    seeds: { type: "string", default: "3" },
    minutes: { type: "string", default: "20" },
    documents: { type: "string", default: "3500" },
    queries: { type: "string", default: "400" },
  },
});
if (!values.data || !values.out) {
  console.error("usage: node bench/adapt.mjs --data <folder of BEIR sets> --out <folder>");
  process.exit(2);
}
const [out, sets] = [resolve(values.out), values.sets.split(",")];
await mkdir(out, { recursive: true });
const cde = fileURLToPath(new URL("../packages/cli/dist/cde.js", import.meta.url));

/** `{ column: { set: { query id: nDCG@10 } } }`, and the same of each seed. */
const base = {};
const runs = Array.from({ length: Number(values.seeds) }, () => ({}));
for (const set of sets) {
  const cut = { split: "dev", documents: Number(values.documents), queries: Number(values.queries) };
  const corpora = [await readSet(values.data, set, cut)];
  add(base, await kept(`${set}-base`, () => measureInUse("base", modelDirectory, corpora)));
  for (const [i, run] of runs.entries()) add(run, await kept(`${set}-${i}`, (name) => adapted(set, i, name, corpora)));
}
for (const [column, title] of Object.entries(COLUMNS)) {
  const ours = meanRun(runs.map((run) => run[column]));
  console.log(`\n${title}: the bundled model, the mean over seeds, each seed`);
  console.table(
    Object.fromEntries(
      [...sets, "mean"].map((set) => {
        const of = (figures) => (set === "mean" ? figures : { [set]: figures[set] });
        const line = { base: meanOf(of(base[column])), adapted: meanOf(of(ours)) };
        for (const [i, run] of runs.entries()) line[`seed ${i}`] = meanOf(of(run[column]));
        return [set, { ...line, gain: interval(gain(of(ours), of(base[column]))) }];
      }),
    ),
  );
}

function add(figures, found) {
  for (const column of Object.keys(COLUMNS)) figures[column] = { ...figures[column], ...found[column] };
}

/** Figures that the folder holds under a name, or that are made and kept there. */
async function kept(name, make) {
  const path = join(out, `${name}.json`);
  if (!existsSync(path)) await writeFile(path, JSON.stringify(await make(join(out, name))));
  return JSON.parse(await readFile(path, "utf8"));
}

async function adapted(set, seed, name, corpora) {
  for (const left of [name, `${name}-adapt`, `${name}-int8`]) await rm(left, { recursive: true, force: true });
  const args = ["adapt", join(values.data, set), "--out", name, "--minutes", values.minutes, "--seed", String(seed)];
  const { status } = spawnSync(process.execPath, [cde, ...args], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  await exportInt8(name, `${name}-int8`);
  return measureInUse(`seed ${seed}`, `${name}-int8`, corpora);
}
