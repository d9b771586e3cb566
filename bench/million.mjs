/**
 * Memory and time of a large index: random vectors and short texts into a folder, int8 rows in memory, float32 base
 * vectors on disk. Built in one process; opened, searched, updated and (with `--context`) given another context in
 * another; each says its peak.
 *
 *   node bench/million.mjs [--documents 1000000] [--dimensions 384] [--lexical] [--context] [--quick]
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { CorpusContext, CorpusIndex } from "cde-js";
import { askChild } from "./lib/child.mjs";
import { line, machine } from "./lib/report.mjs";

const child = process.argv[2] === "--child" ? JSON.parse(process.argv[3]) : undefined;
if (child) await runChild(child);
else await main();

async function main() {
  const switches = Object.fromEntries(["lexical", "context", "quick"].map((name) => [name, { type: "boolean" }]));
  const numbers = { documents: { type: "string" }, dimensions: { type: "string" } };
  const { values } = parseArgs({ options: { ...switches, ...numbers } });
  const options = {
    documents: Number(values.documents ?? (values.quick ? 20_000 : 1_000_000)),
    dimensions: Number(values.dimensions ?? 384),
    lexical: values.lexical === true,
    context: values.context === true,
  };
  machine();
  const directory = mkdtempSync(join(tmpdir(), "cde-million-"));
  try {
    for (const task of ["build", "serve"]) {
      const result = await askChild(import.meta.url, { ...options, directory, task });
      console.log(`${task}: ${JSON.stringify(result)}`);
      line(`${task}: peak resident memory`, { ratio: result.peakGb }, { atMost: 3, unit: " GB" });
    }
    const bytes = readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
    console.log(
      `${options.documents} passages of ${options.dimensions} dimensions: ${(bytes / 1e9).toFixed(2)} GB on disk`,
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  machine();
}

async function runChild({ task, directory, documents, dimensions, lexical, context }) {
  const start = performance.now();
  const seconds = () => Number(((performance.now() - start) / 1000).toFixed(2));
  const plain = embedderOf(dimensions);
  const encoder = { withContext: plain.withContext, withoutContext: () => plain };
  const result = {};
  if (task === "build") {
    const embedder = context ? plain.withContext(await contextOf(plain)) : plain;
    const index = await CorpusIndex.build(embedder, texts(documents), {
      directory,
      rows: "int8",
      split: false,
      ...(lexical ? {} : { lexical: false }),
    });
    result.buildSeconds = seconds();
    await index.close();
  } else {
    const index = await CorpusIndex.open(directory, encoder, { rows: "int8" });
    result.openSeconds = seconds();
    const at = performance.now();
    for (let i = 0; i < 20; i++) {
      const [hit] = await index.search(`passage ${i * 37}`, { k: 10, mode: "dense" });
      if (hit?.id !== String(i * 37)) throw new Error(`passage ${i * 37} is not its own nearest`);
    }
    result.searchMs = Number(((performance.now() - at) / 20).toFixed(1));
    const updated = performance.now();
    await index.upsert(Array.from({ length: 1000 }, (_, i) => ({ id: `new ${i}`, text: `passage ${documents + i}` })));
    result.upsert1000Ms = Number((performance.now() - updated).toFixed(0));
    if (context) {
      const { embedded, seconds: taken } = await index.recontext();
      if (embedded) throw new Error("the base vectors should have been enough");
      result.recontextSeconds = Number(taken.toFixed(2));
    }
    await index.close();
  }
  result.peakGb = Number((process.resourceUsage().maxRSS / 1e6).toFixed(3));
  process.send(result);
  process.disconnect();
}

function* texts(count) {
  for (let i = 0; i < count; i++) yield { id: String(i), text: `passage ${i}` };
}

/** A text's vector is random, with its number as the seed. */
function embedderOf(dimensions, context) {
  const vectorOf = (text) => {
    let state = Number(text.slice(8)) * 0x9e3779b1;
    const vector = new Float32Array(dimensions);
    let squares = 0;
    for (let i = 0; i < dimensions; i++) {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      vector[i] = ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
      squares += vector[i] * vector[i];
    }
    const length = Math.sqrt(squares);
    for (let i = 0; i < dimensions; i++) vector[i] /= length;
    return context ? context.map.applyRows(vector) : vector;
  };
  const embedDocuments = async (given) => ({ vectors: given.map(vectorOf), truncated: [] });
  return {
    modelId: "bench/random",
    dimensions,
    maxTokens: 512,
    fingerprint: context?.fingerprint ?? "0".repeat(64),
    batchInvariant: true,
    stage: "spectral",
    context,
    base: context && embedderOf(dimensions),
    withContext: (other) => embedderOf(dimensions, other),
    embedQuery: async (text) => vectorOf(text),
    embedQueries: embedDocuments,
    embedDocuments,
  };
}

async function contextOf(embedder) {
  const given = Array.from({ length: 512 }, (_, i) => `passage ${i}`);
  const { vectors } = await embedder.embedDocuments(given);
  const rows = Float32Array.from(vectors.flatMap((vector) => [...vector]));
  return await CorpusContext.fromBaseVectors(embedder, given, rows);
}
