/**
 * A reranker: the index finds fifty passages quickly, something slower and better orders them.
 *
 * By default a stand-in scores, so that this runs everywhere. For a real one install @huggingface/transformers and name the
 * directory of a cross-encoder with ONNX weights (Xenova/ms-marco-MiniLM-L-6-v2, say):
 *
 *   CDE_CROSS_ENCODER=./ms-marco-MiniLM-L-6-v2 node examples/dist/33-reranker.js
 */
import { basename, dirname, resolve } from "node:path";
import { ContextualEncoder, CorpusIndex, type Hit, modelDirectory, type Reranker } from "cde-js";

const texts = [
  "Error E7: the door is open. Close it until it clicks.",
  "Error E4: no water flows in. Open the tap and clean the sieve of the hose.",
  "Error E9: the machine is overheated. Let it cool down for an hour.",
  "If no water comes out of the tap in your kitchen, ask the landlord.",
  "The sieve of the hose is cleaned twice a year.",
  "Errors are shown on the display and by three short tones.",
];
const question = "what does error E4 on the display mean?";

/** How many words of the query a passage has; codes such as E4, which vectors blur, count ten times. */
const standIn: Reranker = (query, hits) => {
  const wordsOf = (text: string): Set<string> => new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu));
  const asked = [...wordsOf(query)];
  return hits.map(({ text }) => {
    const words = wordsOf(text);
    return asked.reduce((sum, word) => sum + (words.has(word) ? (/\d/.test(word) ? 10 : 1) : 0), 0);
  });
};

/** What is used of @huggingface/transformers. */
interface Transformers {
  readonly env: { allowRemoteModels: boolean; localModelPath: string };
  readonly AutoTokenizer: {
    from_pretrained(name: string): Promise<(texts: string[], options: object) => object>;
  };
  readonly AutoModelForSequenceClassification: {
    from_pretrained(name: string): Promise<(inputs: object) => Promise<{ logits: { tolist(): number[][] } }>>;
  };
}

/** A cross-encoder reads query and passage together, so it sees what two separate vectors can't. */
async function crossEncoder(directory: string): Promise<Reranker> {
  // Not a dependency of this repository: the name is widened so that the compiler doesn't look for it.
  const name: string = "@huggingface/transformers";
  const { env, AutoTokenizer, AutoModelForSequenceClassification } = (await import(name)) as Transformers;
  env.allowRemoteModels = false;
  env.localModelPath = dirname(resolve(directory));
  const tokenizer = await AutoTokenizer.from_pretrained(basename(directory));
  const model = await AutoModelForSequenceClassification.from_pretrained(basename(directory));
  return async (query, hits) => {
    const scores: number[] = [];
    // Sixteen pairs at a time: padding to the longest of fifty would waste most of the work.
    for (let first = 0; first < hits.length; first += 16) {
      const pairs = hits.slice(first, first + 16).map(({ text }) => text);
      const asked = pairs.map(() => query);
      const { logits } = await model(tokenizer(asked, { text_pair: pairs, padding: true, truncation: true }));
      scores.push(...logits.tolist().map(([score = Number.NaN]) => score));
    }
    return scores;
  };
}

const directory = process.env.CDE_CROSS_ENCODER;
const rerank = directory === undefined ? standIn : await crossEncoder(directory);

await using encoder = await ContextualEncoder.load(modelDirectory);
const context = await encoder.buildContext(texts);
const documents = texts.map((text, i) => ({ id: `manual-${i + 1}`, text }));
await using index = await CorpusIndex.build(encoder.withContext(context), documents);

const show = (hits: readonly Hit[]): string =>
  hits.map(({ text, score }) => `  ${score.toFixed(3)} ${text}`).join("\n");
console.log(`by meaning:\n${show(await index.search(question, { k: 3, mode: "dense" }))}`);
const reranked = await index.search(question, { k: 3, mode: "dense", rerank, rerankCandidates: 50 });
console.log(`reranked by ${directory === undefined ? "the stand-in" : basename(directory)}:\n${show(reranked)}`);
