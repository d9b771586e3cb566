/**
 * What a context of 512 documents costs, against the same model without: latency of a query, throughput on documents of
 * 128 tokens, the first-stage pass, and building the context. Both embedders share one process and one session.
 *
 *   node bench/context-cost.mjs --base <all-MiniLM-L6-v2> [--data <BEIR sets>] [--rounds 9] [--queries 200] [--stages spectral] [--quick]
 */
import { ContextualEncoder, DEFAULT_STRENGTH } from "@cde-js/core";
import { cutQueries, readDocuments } from "./lib/documents.mjs";
import { readOptions, withFolder } from "./lib/options.mjs";
import { writePrefixModel } from "./lib/prefix-model.mjs";
import { leastCosine, line, machine, median, quantile, speedUp } from "./lib/report.mjs";
import { takeTurns, timed } from "./lib/subject.mjs";
import { writeTwoStageModel } from "./lib/two-stage-model.mjs";

const CONTEXT_DOCUMENTS = 512;
const DOCUMENT_TOKENS = 128;

/**
 * Second stages, by name. `open` gives the encoder that builds the context and the embedder of the same model without
 * context, with which the one bound is compared.
 */
const stages = {
  spectral: {
    targets: { query: 1.05, throughput: 0.97 },
    async open() {
      const encoder = await ContextualEncoder.load(base);
      return { encoder, plain: encoder.withoutContext() };
    },
  },
  prefix: prefixStage({ softmax: "gated" }),
  "prefix-all": prefixStage({ softmax: "gated", layers: 6 }),
  "prefix-joint": prefixStage({ softmax: "joint" }),
  // The paper's architecture on the same backbone, with random heads: no target, and its vectors mean nothing.
  full: {
    targets: {},
    async open() {
      const encoder = await withFolder(async (folder) => {
        await writeTwoStageModel(base, folder, CONTEXT_DOCUMENTS);
        return ContextualEncoder.load(folder);
      });
      return { encoder, plain: (await ContextualEncoder.load(base)).withoutContext() };
    },
  },
};

function prefixStage(stage) {
  return {
    targets: { query: 1.4, throughput: 0.8 },
    async open() {
      const encoder = await withFolder(async (folder) => {
        await writePrefixModel(base, folder, stage);
        return ContextualEncoder.load(folder);
      });
      return { encoder, plain: encoder.withoutContext() };
    },
  };
}

const defaults = { rounds: 9, queries: 200, documents: 128, corpus: 512, stages: "spectral" };
const { base, data, ...options } = readOptions(defaults, { rounds: 5, queries: 60, documents: 64, corpus: 128 });
const texts = await readDocuments({
  data,
  base,
  count: Math.max(CONTEXT_DOCUMENTS, options.corpus) + 2 * options.queries,
});
const queries = cutQueries(texts.slice(-2 * options.queries), options.queries);

machine();
for (const name of options.stages.split(",")) {
  const { targets, open } = stages[name];
  const { encoder, plain } = await open();
  console.log(`\n${name}, ${CONTEXT_DOCUMENTS} context documents`);

  const corpus = texts.slice(0, encoder.contextSize ?? options.corpus);
  // The first stage by itself: choosing a strength embeds up to 1,000 further short texts, once a corpus.
  const fixed = name.includes("spectral") ? { strength: DEFAULT_STRENGTH } : {};
  const first = await takeTurns(
    {
      plain: () => timed(() => plain.embedDocuments(corpus)),
      build: () => timed(() => encoder.buildContext(corpus, fixed)),
    },
    Math.ceil(options.rounds / 3),
  );
  const context = await encoder.buildContext(texts.slice(0, CONTEXT_DOCUMENTS), fixed);
  const bindTime = await timed(async () => encoder.withContext(context));
  const bound = encoder.withContext(context);

  // The same embedder must not be measured twice: a context moves vectors, and the plain one is not moved.
  const sample = texts.slice(0, 8);
  const [withoutContext, withContext] = [await plain.embedDocuments(sample), await bound.embedDocuments(sample)];
  const cosine = leastCosine(withoutContext.vectors, withContext.vectors);
  if (cosine > 0.999) throw new Error(`${name}: the context doesn't act, least cosine ${cosine}.`);
  console.log(`least cosine of ${sample.length} documents with and without context: ${cosine.toFixed(3)}`);

  const documents = Array.from({ length: options.documents }, (_, i) => cutTo(plain, texts[i % texts.length], texts));
  const embed = (embedder) => () => timed(() => embedder.embedDocuments(documents));
  const throughput = await takeTurns({ plain: embed(plain), bound: embed(bound) }, options.rounds, { warmUp: true });
  const query = (embedder) => (round) => timed(() => embedder.embedQuery(queries[round % queries.length]));
  const latency = await takeTurns({ plain: query(plain), bound: query(bound) }, options.queries, { warmUp: true });

  const ms = (list) => list.map((figure) => figure.ms);
  const ratioAt = (part) => quantile(ms(latency.bound), part) / quantile(ms(latency.plain), part);
  console.log(
    `query: p50 ${median(ms(latency.plain)).toFixed(2)} ms without, ${median(ms(latency.bound)).toFixed(2)} ms with context`,
  );
  line("query latency, p50: with / without context", { ratio: ratioAt(0.5) }, { atMost: targets.query });
  line("query latency, p95: with / without context", { ratio: ratioAt(0.95) });
  line("throughput on 128 tokens: with / without context", speedUp(ms(throughput.plain), ms(throughput.bound)), {
    atLeast: targets.throughput,
  });
  line(
    "throughput by processor time",
    speedUp(...["plain", "bound"].map((key) => throughput[key].map(({ cpu }) => cpu))),
  );
  line(`buildContext of ${corpus.length} / encode`, speedUp(ms(first.plain), ms(first.build)), { atLeast: 0.95 });
  console.log(
    `first stage and fit of ${corpus.length} documents: ${(median(ms(first.build)) / 1000).toFixed(2)} s, ` +
      `encode ${(median(ms(first.plain)) / 1000).toFixed(2)} s; binding: ${bindTime.ms.toFixed(1)} ms`,
  );
  await encoder.dispose();
}
machine();

/** `text`, filled up from others and cut at a word so that it takes DOCUMENT_TOKENS or the few less that words leave. */
function cutTo(embedder, text, others) {
  const words = text.split(/\s+/);
  for (let i = 0; embedder.countTokens(words.join(" ")) < DOCUMENT_TOKENS; i++) words.push(...others[i].split(/\s+/));
  let [low, high] = [1, words.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (embedder.countTokens(words.slice(0, middle).join(" ")) <= DOCUMENT_TOKENS) low = middle;
    else high = middle - 1;
  }
  return words.slice(0, low).join(" ");
}
