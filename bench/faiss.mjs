/**
 * Exact search beside FAISS's IndexFlatIP: 100,000 rows of 384 dimensions, one query at a time, the same unit rows and
 * queries, the ten nearest; both take turns in one run, after their answers were checked equal.
 *
 *   npm run build && node bench/faiss.mjs --python <interpreter with faiss> [--rows 100000] [--rounds 200]
 *
 * FAISS runs with one thread and with its default. Ours scans on one thread, a worker: a search is measured as the caller
 * sees it, with the way to the worker and back, and once more inside, where FAISS measures too. Processor time is compared as well, which a busy machine changes less.
 */
import { spawn } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { createRandom } from "@cde-js/core";
import { RowTable } from "../packages/retriever/dist/exact/row-table.js";
import { ExactIndex } from "../packages/retriever/dist/index.js";
import { line, machine, quantile } from "./lib/report.mjs";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    rows: { type: "string", default: "100000" },
    dimensions: { type: "string", default: "384" },
    rounds: { type: "string", default: "200" },
  },
});
if (values.python === undefined) {
  console.log("skipped: no --python <interpreter with faiss> was given");
  process.exit(0);
}
const [count, dimensions, rounds] = [values.rows, values.dimensions, values.rounds].map(Number);
const K = 10;
const random = createRandom(1);
const rows = new Float32Array(count * dimensions);
const queries = new Float32Array(rounds * dimensions);
for (const block of [rows, queries]) fillUnit(block);
machine();

const folder = tmpdir();
const paths = ["rows", "queries"].map((name) => join(folder, `cde-faiss-${process.pid}.${name}`));
await writeFile(paths[0], rows);
await writeFile(paths[1], queries);
const program = `
import sys, time, json, faiss, numpy
x = numpy.fromfile(${JSON.stringify(paths[0])}, dtype="float32").reshape(-1, ${dimensions})
q = numpy.fromfile(${JSON.stringify(paths[1])}, dtype="float32").reshape(-1, ${dimensions})
index = faiss.IndexFlatIP(${dimensions})
index.add(x)
default = faiss.omp_get_max_threads()
print(json.dumps({"version": faiss.__version__, "threads": default}), flush=True)
for line in sys.stdin:
    i, threads = map(int, line.split())
    faiss.omp_set_num_threads(threads if threads > 0 else default)
    t, p = time.perf_counter(), time.process_time()
    _, found = index.search(q[i:i+1], ${K})
    t, p = time.perf_counter() - t, time.process_time() - p
    print(json.dumps({"ms": 1000 * t, "cpu": 1000 * p, "labels": found[0].tolist()}), flush=True)
`;
const child = spawn(values.python, ["-c", program], { stdio: ["pipe", "pipe", "inherit"] });
const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
const indexes = {};
try {
  const { version, threads } = JSON.parse((await answers.next()).value);
  console.log(`FAISS ${version}, ${threads} threads by default`);
  const faiss = (ofThreads) => async (i) => {
    child.stdin.write(`${i} ${ofThreads}\n`);
    return JSON.parse((await answers.next()).value);
  };
  const labels = Uint32Array.from({ length: count }, (_, i) => i);
  const base = { read: async (wanted) => Float32Array.from([...wanted].flatMap((l) => [...row(rows, l)])) };
  const subjects = { "FAISS, 1 thread": faiss(1), "FAISS, default": faiss(0) };
  for (const type of ["float32", "int8"]) {
    const table = new RowTable(dimensions, type);
    table.upsert(labels, rows);
    subjects[`${type}, inside`] = async (i) => timed(() => [...table.search(row(queries, i), K).labels]);
    const index = new ExactIndex(dimensions, { rows: type, base });
    await index.upsert(labels, rows);
    indexes[type] = index;
    subjects[`${type}, as called`] = async (i) =>
      await timed(async () => (await index.search(row(queries, i), K)).map(({ label }) => label));
  }
  for (let i = 0; i < 10; i++) {
    const { labels: theirs } = await subjects["FAISS, 1 thread"](i);
    for (const name of ["float32, as called", "int8, as called"]) {
      const { labels: ours } = await subjects[name](i);
      if (ours.join() !== theirs.join()) throw new Error(`query ${i}: ${name} finds ${ours}, FAISS ${theirs}`);
    }
  }
  const [times, processor] = [0, 1].map(() => Object.fromEntries(Object.keys(subjects).map((name) => [name, []])));
  for (let i = 0; i < rounds; i++) {
    for (const [name, search] of Object.entries(subjects)) {
      const { ms, cpu } = await search(i);
      times[name].push(ms);
      processor[name].push(cpu);
    }
  }
  const shown = (part) => (name) => quantile(times[name], part);
  for (const name of Object.keys(subjects)) {
    console.log(
      `${name.padEnd(22)} fastest tenth ${shown(0.1)(name).toFixed(2)} ms, median ${shown(0.5)(name).toFixed(2)}`,
    );
  }
  for (const theirs of ["FAISS, 1 thread", "FAISS, default"]) {
    for (const ours of Object.keys(subjects).filter((name) => !name.startsWith("FAISS"))) {
      for (const [label, part] of Object.entries({ "fastest tenth": 0.1, median: 0.5 })) {
        const ratio = shown(part)(ours) / shown(part)(theirs);
        line(`${ours} over ${theirs}, ${label}`, { ratio }, { atMost: 1 });
      }
      const cpu = quantile(processor[ours], 0.5) / quantile(processor[theirs], 0.5);
      line(`${ours} over ${theirs}, processor time, median`, { ratio: cpu }, { atMost: 1 });
    }
  }
} finally {
  child.stdin.end();
  for (const index of Object.values(indexes)) await index.close();
  for (const path of paths) await rm(path, { force: true });
}
machine();

/** `cpu` is of the whole process, which does nothing else meanwhile. */
async function timed(work) {
  const before = process.cpuUsage();
  const start = performance.now();
  const labels = await work();
  const ms = performance.now() - start;
  const { user, system } = process.cpuUsage(before);
  return { ms, cpu: (user + system) / 1000, labels };
}

function row(of, i) {
  return of.subarray(i * dimensions, (i + 1) * dimensions);
}

function fillUnit(block) {
  for (let at = 0; at < block.length; at += dimensions) {
    let squares = 0;
    for (let k = at; k < at + dimensions; k++) {
      block[k] = random.normal();
      squares += block[k] ** 2;
    }
    for (let k = at; k < at + dimensions; k++) block[k] /= Math.sqrt(squares);
  }
}
