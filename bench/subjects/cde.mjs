/** cde-js as a subject: `cde.mjs <model directory> <dtype>`. */
import { ContextualEncoder } from "@cde-js/core";
import { serve, timed } from "../lib/subject.mjs";

const [directory, dtype] = process.argv.slice(2);
const encoder = await ContextualEncoder.load(directory, { dtype });
const embedder = encoder.withoutContext();
let texts = [];

await serve({
  async take(request) {
    ({ texts } = request);
    const lengths = texts.map((text) => embedder.countTokens(text));
    return { whole: lengths.flatMap((length, i) => (length <= embedder.maxTokens ? [i] : [])) };
  },
  async vectors({ positions }) {
    const { vectors } = await embedder.embedDocuments(positions.map((position) => texts[position]));
    return { vectors: vectors.map((vector) => [...vector]) };
  },
  async encode() {
    return timed(() => embedder.embedDocuments(texts));
  },
  async query({ text }) {
    const start = performance.now();
    const vector = await embedder.embedQuery(text);
    return { ms: performance.now() - start, vector: [...vector] };
  },
});
