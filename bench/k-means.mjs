/**
 * Spherical k-means against FAISS: `node bench/k-means.mjs --python <interpreter with faiss>`. Both take turns, each
 * round on the same rows; besides the time on the clock it compares processor time, which a busy machine changes less.
 */
import { spawn } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { createRandom, kMeans, MatrixRuntime } from "@cde-js/core";
import { line, machine, median, speedUp } from "./lib/report.mjs";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    rows: { type: "string", default: "100000" },
    dimensions: { type: "string", default: "384" },
    clusters: { type: "string", default: "400" },
    iterations: { type: "string", default: "10" },
    rounds: { type: "string", default: "5" },
    threads: { type: "string", default: "2" },
  },
});
const [count, dimensions, k, iterations, rounds, threads] = [
  values.rows,
  values.dimensions,
  values.clusters,
  values.iterations,
  values.rounds,
  values.threads,
].map(Number);

/** Unit rows around as many centres as there are clusters, so that both have something to find. */
function makeRows() {
  const random = createRandom(1);
  const centres = Float32Array.from({ length: k * dimensions }, () => random.normal());
  const rows = new Float32Array(count * dimensions);
  for (let n = 0; n < count; n++) {
    const centre = random.integer(k) * dimensions;
    let squares = 0;
    for (let i = 0; i < dimensions; i++) {
      const value = centres[centre + i] + 1.5 * random.normal();
      rows[n * dimensions + i] = value;
      squares += value * value;
    }
    for (let i = 0; i < dimensions; i++) rows[n * dimensions + i] /= Math.sqrt(squares);
  }
  return rows;
}

const rows = makeRows();
const runtime = await MatrixRuntime.start({ threads });
machine();

async function ours(seed) {
  const before = process.cpuUsage();
  const start = performance.now();
  const { objective } = await kMeans(rows, dimensions, k, { seed, iterations, runtime });
  const wall = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(before);
  return { wall, cpu: (user + system) / 1e6, objective };
}

const path = join(tmpdir(), `cde-k-means-${process.pid}.f32`);
const program = `
import sys, time, json, faiss, numpy
faiss.omp_set_num_threads(${threads})
x = numpy.fromfile(${JSON.stringify(path)}, dtype="float32").reshape(${count}, ${dimensions})
print("ready", flush=True)
for line in sys.stdin:
    k = faiss.Kmeans(${dimensions}, ${k}, niter=${iterations}, spherical=True, seed=int(line))
    t, p = time.time(), time.process_time()
    k.train(x)
    t, p = time.time() - t, time.process_time() - p
    s, _ = k.index.search(x, 1)
    print(json.dumps({"wall": t, "cpu": p, "objective": float(s.mean())}), flush=True)
`;

async function startFaiss() {
  if (values.python === undefined) return undefined;
  await writeFile(path, rows);
  const child = spawn(values.python, ["-c", program], { stdio: ["pipe", "pipe", "inherit"] });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await answers.next();
  return {
    async run(seed) {
      child.stdin.write(`${seed + 1}\n`);
      return JSON.parse((await answers.next()).value);
    },
    close: () => child.stdin.end(),
  };
}

const faiss = await startFaiss();
try {
  await ours(0); // compiles
  const [own, theirs] = [[], []];
  for (let round = 0; round < rounds; round++) {
    own.push(await ours(round));
    if (faiss) theirs.push(await faiss.run(round));
  }
  const of = (list, name) => list.map((result) => result[name]);
  const name = `${count} x ${dimensions}, k = ${k}, ${iterations} iterations`;
  console.log(
    `${name}: ours ${median(of(own, "wall")).toFixed(2)} s, ${median(of(own, "cpu")).toFixed(2)} s of processor`,
  );
  console.log(`mean cosine ${median(of(own, "objective")).toFixed(4)}`);
  if (faiss) {
    console.log(
      `FAISS ${median(of(theirs, "wall")).toFixed(2)} s, ${median(of(theirs, "cpu")).toFixed(2)} s of processor, mean cosine ${median(of(theirs, "objective")).toFixed(4)}`,
    );
    line("k-means: our time over FAISS's", speedUp(of(own, "wall"), of(theirs, "wall")), { atMost: 1.5 });
    line("k-means: our processor time over FAISS's", speedUp(of(own, "cpu"), of(theirs, "cpu")), {});
  }
} finally {
  faiss?.close();
  await runtime.dispose();
  await rm(path, { force: true });
}
