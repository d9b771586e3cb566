/**
 * An index of many real passages, end to end with a stand-in encoder: building (and what of it the index costs), opening,
 * hybrid search with the latency of its slowest queries, memory. Texts are the documents of BEIR sets, joined and split.
 *
 *   npm run build && node bench/hybrid-latency.mjs --data <BEIR sets> [--passages 100000] [--queries 1000] [--rows float32]
 *
 * The stand-in hashes words into a random projection: a text's vector costs next to nothing, so that what is measured is
 * the index. Queries are 200 of each set. Each step is a process of its own, which says its peak memory. Processor time, of the worker too, is
 * printed beside the time on the clock: a busy machine changes it less.
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRandom } from "@cde-js/core";
import { readCorpus, readQueries } from "@cde-js/core/evaluation";
import { CorpusIndex } from "../packages/retriever/dist/index.js";
import { askChild } from "./lib/child.mjs";
import { line, machine, quantile } from "./lib/report.mjs";

const DIMENSIONS = 384;
/** Queries before the first that is counted. */
const WARM_UP = 50;
const child = process.argv[2] === "--child" ? JSON.parse(process.argv[3]) : undefined;
if (child) await runChild(child);
else await main();

async function main() {
  const { values } = parseArgs({
    options: {
      data: { type: "string" },
      passages: { type: "string", default: "100000" },
      queries: { type: "string", default: "1000" },
      rows: { type: "string", default: "float32" },
    },
  });
  if (!values.data) {
    console.error("usage: node bench/hybrid-latency.mjs --data <folder of BEIR sets> [--passages 100000]");
    process.exit(2);
  }
  const options = { ...values, passages: Number(values.passages), queries: Number(values.queries) };
  const asked = Math.min(options.queries, (await queriesOf(values.data)).length);
  if (!(options.passages >= 1) || !(asked > WARM_UP)) {
    console.error(
      `hybrid-latency: at least 1 passage and ${WARM_UP + 1} queries are needed (the first ${WARM_UP} aren't counted), got ` +
        `--passages ${values.passages}, --queries ${values.queries} and ${asked} queries in ${values.data}.`,
    );
    process.exit(2);
  }
  machine();
  const directory = mkdtempSync(join(tmpdir(), "cde-hybrid-"));
  try {
    const built = await askChild(import.meta.url, { ...options, directory, task: "build" });
    console.log(`build: ${JSON.stringify(built)}`);
    const bytes = readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
    console.log(`${built.passages} passages of ${built.documents} documents, ${(bytes / 1e6).toFixed(0)} MB on disk`);
    const served = await askChild(import.meta.url, { ...options, directory, task: "serve" });
    console.log(`serve: ${JSON.stringify(served)}`);
    line("hybrid search, encoding aside: p99", { ratio: served.hybrid.p99 }, { atMost: 25, unit: " ms" });
    line("opening: best of three", { ratio: served.openSeconds }, { atMost: 1, unit: " s" });
    line("build: peak resident memory", { ratio: built.peakGb }, { atMost: 3, unit: " GB" });
    line("serve: peak resident memory", { ratio: served.peakGb }, { atMost: 3, unit: " GB" });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  machine();
}

async function runChild({ task, ...options }) {
  const result = task === "build" ? await build(options) : await serve(options);
  result.peakGb = Number((process.resourceUsage().maxRSS / 1e6).toFixed(3));
  process.send(result);
  process.disconnect();
}

async function build({ data, passages, rows, directory }) {
  const encoder = standIn();
  const start = performance.now();
  const cpu = process.cpuUsage();
  const index = await CorpusIndex.build(encoder, documents(data, passages), {
    directory,
    rows,
    split: { maxTokens: 256 },
  });
  const { user, system } = process.cpuUsage(cpu);
  const result = {
    seconds: seconds(start),
    processorSeconds: Number(((user + system) / 1e6).toFixed(1)),
    encodingSeconds: Number((encoder.spent.milliseconds / 1000).toFixed(1)),
    documents: index.count,
    passages: index.passageCount,
    fusion: index.fusion,
  };
  await index.close();
  return result;
}

async function serve({ data, queries, rows, directory }) {
  const encoder = standIn();
  const [opens, opensProcessor] = [[], []];
  let index;
  for (let i = 0; i < 3; i++) {
    await index?.close();
    const before = process.cpuUsage();
    const start = performance.now();
    index = await CorpusIndex.open(directory, encoder, { rows });
    opens.push(seconds(start));
    const { user, system } = process.cpuUsage(before);
    opensProcessor.push(Number(((user + system) / 1e6).toFixed(2)));
  }
  const asked = (await queriesOf(data)).slice(0, queries);
  const result = { openSeconds: Math.min(...opens), opens, opensProcessor };
  for (const mode of ["hybrid", "dense", "lexical"]) {
    const [times, processor] = [[], []];
    for (const [i, query] of asked.entries()) {
      const encoding = encoder.spent.milliseconds;
      const before = process.cpuUsage();
      const start = performance.now();
      await index.search(query, { mode });
      const took = performance.now() - start - (encoder.spent.milliseconds - encoding);
      const { user, system } = process.cpuUsage(before);
      if (i < WARM_UP) continue;
      times.push(took);
      processor.push((user + system) / 1000);
    }
    const at = (part) => Number(quantile(times, part).toFixed(2));
    const processorAt = (part) => Number(quantile(processor, part).toFixed(2));
    result[mode] = { p10: at(0.1), p50: at(0.5), p99: at(0.99), most: at(1) };
    result[mode].processor = { p50: processorAt(0.5), p99: processorAt(0.99), most: processorAt(1) };
  }
  await index.close();
  return result;
}

/** The documents of one set after the other, until about so many passages can be cut from them. */
async function* documents(data, passages) {
  let words = 0;
  for (const set of setsOf(data)) {
    for await (const { id, title, text } of readCorpus(join(data, set))) {
      if (text.trim() === "") continue;
      yield { id: `${set}/${id}`, text, ...(title ? { title } : {}), metadata: { set } };
      words += Math.max(1, Math.ceil(text.split(/\s+/).length / 220));
      if (words >= passages) return;
    }
  }
}

function setsOf(data) {
  const folders = readdirSync(data, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return folders.map(({ name }) => name).sort();
}

async function queriesOf(data) {
  const found = [];
  for (const set of setsOf(data)) {
    let count = 0;
    for await (const { text } of readQueries(join(data, set))) {
      if (count++ === 200) break;
      found.push(text);
    }
  }
  return createRandom(1).shuffle(found);
}

/** Each word is four components drawn by its hash; `spent` says what encoding took. */
function standIn() {
  const spent = { milliseconds: 0 };
  const vectorOf = (text) => {
    const start = performance.now();
    const vector = new Float32Array(DIMENSIONS);
    vector[0] = 0.1;
    for (const [word] of text.toLowerCase().matchAll(/[\p{L}\p{N}]+/gu)) {
      let h = 0x811c9dc5;
      for (let i = 0; i < word.length; i++) h = Math.imul(h ^ word.charCodeAt(i), 0x01000193);
      for (let i = 0; i < 4; i++) {
        h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
        vector[(h >>> 8) % DIMENSIONS] += (h & 255) / 128 - 1;
      }
    }
    const length = Math.hypot(...vector);
    for (let i = 0; i < DIMENSIONS; i++) vector[i] /= length;
    spent.milliseconds += performance.now() - start;
    return vector;
  };
  const embedDocuments = async (texts) => ({ vectors: texts.map(vectorOf), truncated: [] });
  return {
    modelId: "bench/stand-in",
    fingerprint: "bench/stand-in",
    dimensions: DIMENSIONS,
    maxTokens: 512,
    batchInvariant: true,
    countTokens: (text) => 2 + Math.ceil(1.2 * (text.match(/\S+/gu)?.length ?? 0)),
    embedQuery: async (text) => vectorOf(text),
    embedQueries: embedDocuments,
    embedDocuments,
    spent,
  };
}

function seconds(start) {
  return Number(((performance.now() - start) / 1000).toFixed(2));
}
