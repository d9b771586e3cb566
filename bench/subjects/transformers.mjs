/** transformers.js as a subject: `transformers.mjs <folder of models> <name>`. */
import { env, pipeline } from "@huggingface/transformers";
import { serve, timed } from "../lib/subject.mjs";

const [models, name] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = models;
const extract = await pipeline("feature-extraction", name, { dtype: "fp32", device: "cpu" });
const options = { pooling: "mean", normalize: true };
let texts = [];

/** Vectors in the order given; with `sorted`, texts of like length run together, as far as characters tell. */
async function embed(all, { sorted, batch }) {
  const order = [...all.keys()];
  if (sorted) order.sort((a, b) => all[b].length - all[a].length);
  const vectors = new Array(all.length);
  for (let start = 0; start < order.length; start += batch) {
    const positions = order.slice(start, start + batch);
    const output = await extract(
      positions.map((position) => all[position]),
      options,
    );
    const width = output.dims[1];
    positions.forEach((position, row) => {
      vectors[position] = output.data.subarray(row * width, (row + 1) * width);
    });
  }
  return vectors;
}

await serve({
  async take(request) {
    ({ texts } = request);
  },
  async vectors({ positions }) {
    const vectors = await embed(
      positions.map((position) => texts[position]),
      { sorted: true, batch: 8 },
    );
    return { vectors: vectors.map((vector) => [...vector]) };
  },
  async encode({ sorted, batch }) {
    return timed(() => embed(texts, { sorted, batch }));
  },
  async query({ text }) {
    const start = performance.now();
    const output = await extract(text, options);
    return { ms: performance.now() - start, vector: [...output.data] };
  },
});
