/** Encodes once and watches itself: resident memory, and how late a timer of 5 ms comes. */
import { ContextualEncoder } from "@cde-js/core";
import { readDocuments } from "../lib/documents.mjs";
import { serve } from "../lib/subject.mjs";

const PROBE_MS = 5;
const MB = 1e6;
const { base, data, documents, dtype, context } = JSON.parse(process.argv[2]);

await serve({
  async encode() {
    const texts = await readDocuments({ data, base, count: documents });
    const encoder = await ContextualEncoder.load(base, { dtype });
    const embedder = context
      ? encoder.withContext(await encoder.buildContext(texts.slice(0, 512)))
      : encoder.withoutContext();
    const before = process.memoryUsage.rss() / MB;

    const samples = [];
    const gaps = [];
    let done = 0;
    const start = performance.now();
    let last = start;
    let sampled = start;
    const look = () => {
      const now = performance.now();
      gaps.push([now - last - PROBE_MS, now - start]);
      gaps.sort((a, b) => b[0] - a[0]);
      gaps.length = Math.min(gaps.length, 5);
      last = performance.now();
      if (now - sampled < 250) return;
      samples.push([done, process.memoryUsage.rss() / MB]);
      sampled = now;
    };
    const probe = setInterval(look, PROBE_MS);
    const { vectors } = await embedder.embedDocuments(texts, {
      onProgress: (progress) => {
        done = progress.done;
      },
    });
    look();
    clearInterval(probe);
    const seconds = (performance.now() - start) / 1000;
    if (vectors.length !== documents) throw new Error(`${vectors.length} vectors of ${documents} documents`);
    const peak = (process.resourceUsage().maxRSS * 1024) / MB;
    return { peak, before, samples, seconds, gaps: gaps.map(([ms, at]) => [ms, at / 1000 / seconds]) };
  },
});
