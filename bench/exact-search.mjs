/**
 * Exact search of 100,000 rows of 384 dimensions, one query at a time, beside the memory bound: a plain streaming sum over
 * the same bytes in the same WebAssembly, on one thread. Processor time, of the
 * worker too, is compared as well: a busy machine changes it less. In one run, turn by turn: `node bench/exact-search.mjs [rows]`.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brIf, encodeModule, f32, f32x4, i32, local, loop, v128 } from "../packages/retriever/dist/exact/wasm.js";
import { CorpusIndex, ExactIndex } from "../packages/retriever/dist/index.js";

const count = Number(process.argv[2] ?? 100_000);
const dimensions = 384;
const turns = 200;

/** sum(rows, end, out): four sums of 16 bytes a turn, nothing but loads and additions. */
function streamingSum(bytes) {
  const four = [0, 1, 2, 3];
  const kernel = {
    name: "sum",
    parameters: 3,
    locals: { i32: 1, v128: 4 },
    body: [
      loop(
        ...four.flatMap((n) => [local.get(4 + n), local.get(0), v128.load(16 * n), f32x4.add, local.set(4 + n)]),
        ...[local.get(0), i32.const(64), i32.add, local.set(0), local.get(0), local.get(1), i32.ltU, brIf(0)],
      ),
      local.get(2),
      ...four.flatMap((n) => [local.get(4 + n), f32x4.extractLane(0), ...(n > 0 ? [f32.add] : [])]),
      f32.store,
    ],
  };
  const { memory, sum } = new WebAssembly.Instance(new WebAssembly.Module(encodeModule([kernel]))).exports;
  memory.grow(Math.ceil(bytes / 65_536));
  new Float32Array(memory.buffer).fill(1);
  return () => sum(64, 64 + bytes, 0);
}

const random = (n) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
const vectors = random(count * dimensions);
const base = {
  read: async (labels) => {
    const rows = new Float32Array(labels.length * dimensions);
    for (const [i, label] of labels.entries()) {
      rows.set(vectors.subarray(label * dimensions, (label + 1) * dimensions), i * dimensions);
    }
    return rows;
  },
};
const labels = Uint32Array.from({ length: count }, (_, i) => i);
const subjects = {};
for (const rows of ["float32", "int8"]) {
  const index = new ExactIndex(dimensions, { rows, base });
  const before = performance.now();
  await index.upsert(labels, vectors);
  console.log(`${rows}: ${count} rows loaded in ${(performance.now() - before).toFixed(0)} ms`);
  const sum = streamingSum(count * dimensions * (rows === "float32" ? 4 : 1));
  subjects[`${rows} bound`] = async () => sum();
  subjects[`${rows} search`] = () => index.search(random(dimensions), 10);
}
const [times, processor] = [0, 1].map(() => Object.fromEntries(Object.keys(subjects).map((name) => [name, []])));
for (let turn = 0; turn < turns + 5; turn++) {
  for (const [name, work] of Object.entries(subjects)) {
    const cpu = process.cpuUsage();
    const before = performance.now();
    await work();
    const took = performance.now() - before;
    const { user, system } = process.cpuUsage(cpu);
    if (turn < 5) continue;
    times[name].push(took);
    processor[name].push((user + system) / 1000);
  }
}
for (const list of [...Object.values(times), ...Object.values(processor)]) list.sort((a, b) => a - b);
const at = (name, part) => times[name][Math.floor(turns * part)];
const middle = (name) => processor[name][Math.floor(turns / 2)];
for (const rows of ["float32", "int8"]) {
  const [bound, search] = [`${rows} bound`, `${rows} search`];
  console.log(
    `${rows}: search ${at(search, 0.5).toFixed(2)} ms (fastest tenth ${at(search, 0.1).toFixed(2)}), ` +
      `streaming sum ${at(bound, 0.5).toFixed(2)} ms (${at(bound, 0.1).toFixed(2)}), ratio ${(at(search, 0.5) / at(bound, 0.5)).toFixed(2)}, ` +
      `of the fastest tenth ${(at(search, 0.1) / at(bound, 0.1)).toFixed(2)}, ` +
      `of processor time ${(middle(search) / middle(bound)).toFixed(2)} (${middle(search).toFixed(2)} and ${middle(bound).toFixed(2)} ms)`,
  );
}

const embedder = {
  modelId: "bench/random",
  fingerprint: "bench",
  dimensions,
  maxTokens: 256,
  embedDocuments: async (texts) => ({ vectors: texts.map(() => random(dimensions)), truncated: [] }),
  embedQuery: async () => random(dimensions),
};
const directory = await mkdtemp(join(tmpdir(), "cde-bench-"));
try {
  const text = "The tenant pays for flood damage unless the landlord was told of it in time. ".repeat(8);
  const documents = Array.from({ length: count }, (_, i) => ({
    id: `d${i}`,
    text: `${i} ${text}`,
    metadata: { n: i },
  }));
  let before = performance.now();
  await (await CorpusIndex.build(embedder, documents, { directory, split: false, lexical: false })).close();
  console.log(`built into a folder and read back in ${(performance.now() - before).toFixed(0)} ms`);
  for (const rows of ["float32", "int8", "float32", "int8"]) {
    before = performance.now();
    const index = await CorpusIndex.open(directory, embedder, { rows });
    console.log(`opened with ${rows} rows in ${(performance.now() - before).toFixed(0)} ms`);
    const searches = [];
    for (let i = 0; i < 20; i++) {
      before = performance.now();
      await index.search("x", { mode: "dense" });
      searches.push(performance.now() - before);
    }
    console.log(`  search, text and all: ${searches.sort((a, b) => a - b)[10].toFixed(2)} ms`);
    await index.close();
  }
} finally {
  await rm(directory, { recursive: true });
}
process.exit(0);
