/**
 * HNSW beside exact search, one query at a time in one run: recall@10, time of a search, of building and of opening the
 * kept graph.
 *
 *   npm run build && node bench/hnsw.mjs --vectors <folder> [--rows 100000] [--ef 40,60,100,200]
 *
 * `--vectors` is a folder of real base vectors as `context-strategies.mjs` keeps them (`<set>.docs.f32`, `<set>.dev.f32`
 * and `<set>.test.f32` of 384 dimensions); corpora are joined until there are enough rows, and queries are those of their
 * sets. Without it, random vectors around random centres.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRandom } from "../packages/core/dist/index.js";
import { ExactIndex, HnswIndex } from "../packages/retriever/dist/index.js";

const { values } = parseArgs({
  options: {
    vectors: { type: "string" },
    rows: { type: "string", default: "100000" },
    queries: { type: "string", default: "500" },
    ef: { type: "string", default: "20,40,60,100,200" },
    m: { type: "string", default: "16" },
    "ef-construction": { type: "string", default: "200" },
  },
});
const dimensions = 384;
const limit = Number(values.rows);
const random = createRandom(3);
const { rows, queries, source } = values.vectors === undefined ? made() : real(values.vectors);
const count = rows.length / dimensions;
const labels = Uint32Array.from({ length: count }, (_, i) => i);
const [m, efConstruction] = [Number(values.m), Number(values["ef-construction"])];

function real(folder) {
  const read = (name) => {
    const bytes = readFileSync(join(folder, name));
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  };
  const names = readdirSync(folder);
  const corpora = names.filter((name) => name.endsWith(".docs.f32"));
  // The largest first, so that few corpora are needed.
  corpora.sort((a, b) => statSync(join(folder, b)).size - statSync(join(folder, a)).size);
  const [blocks, asked, sets] = [[], [], []];
  let total = 0;
  for (const name of corpora) {
    if (total >= limit) break;
    const set = name.replace(".docs.f32", "");
    const block = read(name).subarray(0, (limit - total) * dimensions);
    blocks.push(block);
    sets.push(set);
    total += block.length / dimensions;
    for (const split of ["dev", "test"]) {
      const file = `${set}.${split}.f32`;
      if (!names.includes(file)) continue;
      const found = read(file);
      for (let at = 0; at < found.length; at += dimensions) asked.push(found.slice(at, at + dimensions));
    }
  }
  const joined = new Float32Array(total * dimensions);
  let at = 0;
  for (const block of blocks) {
    joined.set(block, at);
    at += block.length;
  }
  return { rows: joined, queries: random.shuffle(asked).slice(0, Number(values.queries)), source: sets.join(", ") };
}

function made() {
  const centres = Array.from({ length: 300 }, () => Array.from({ length: dimensions }, () => random.normal()));
  const vector = () => {
    const centre = centres[random.integer(centres.length)];
    return Float32Array.from(centre, (x) => x + random.normal());
  };
  const joined = new Float32Array(limit * dimensions);
  for (let n = 0; n < limit; n++) joined.set(vector(), n * dimensions);
  return { rows: joined, queries: Array.from({ length: Number(values.queries) }, vector), source: "made up" };
}

const quantile = (times, part) => [...times].sort((a, b) => a - b)[Math.floor(times.length * part)];
const timed = async (work) => {
  const start = performance.now();
  const result = await work();
  return { result, milliseconds: performance.now() - start };
};
async function fill(index) {
  const block = 4096;
  for (let first = 0; first < count; first += block) {
    const end = Math.min(count, first + block);
    await index.upsert(labels.subarray(first, end), rows.subarray(first * dimensions, end * dimensions));
  }
}

console.log(
  `${count} rows of ${dimensions} (${source}), ${queries.length} queries, m ${m}, efConstruction ${efConstruction}`,
);
const folder = mkdtempSync(join(tmpdir(), "cde-bench-"));
const cacheFile = join(folder, "graph");
try {
  const exact = new ExactIndex(dimensions);
  await fill(exact);
  const built = await HnswIndex.create(dimensions, { m, efConstruction, cacheFile });
  const building = await timed(async () => {
    await fill(built);
    return await built.ready();
  });
  console.log(
    `graph built in ${(building.milliseconds / 1000).toFixed(1)} s, ${(statSync(cacheFile).size / 2 ** 20).toFixed(0)} MiB`,
  );
  await built.close();
  const subjects = { exact };
  for (const ef of values.ef.split(",").map(Number)) {
    const index = await HnswIndex.create(dimensions, { m, efConstruction, cacheFile, ef });
    const opening = await timed(async () => {
      await fill(index);
      return await index.ready();
    });
    if (opening.result.source !== "cache") throw new Error(`the kept graph was not used: ${opening.result.reason}`);
    if (ef === Number(values.ef.split(",")[0])) {
      console.log(
        `opened with the kept graph, rows and checks included, in ${(opening.milliseconds / 1000).toFixed(2)} s`,
      );
    }
    subjects[`ef ${ef}`] = index;
  }
  const times = Object.fromEntries(Object.keys(subjects).map((name) => [name, []]));
  const found = Object.fromEntries(Object.keys(subjects).map((name) => [name, 0]));
  for (const [turn, query] of queries.entries()) {
    let truth;
    for (const [name, index] of Object.entries(subjects)) {
      const { result, milliseconds } = await timed(() => index.search(query, 10));
      truth ??= new Set(result.map(({ label }) => label));
      found[name] += result.filter(({ label }) => truth.has(label)).length;
      if (turn >= 20) times[name].push(milliseconds);
    }
  }
  const median = quantile(times.exact, 0.5);
  for (const name of Object.keys(subjects)) {
    const [p50, p99] = [quantile(times[name], 0.5), quantile(times[name], 0.99)];
    const recall = found[name] / (10 * queries.length);
    console.log(
      `${name}: recall@10 ${recall.toFixed(4)}, p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms, ${(median / p50).toFixed(1)}x exact`,
    );
  }
} finally {
  rmSync(folder, { recursive: true });
}
process.exit(0);
