/** A surrogate over planted topics, and pairs of them: `q 3 17` and `d 3 17` are near to all that is of topic 3. */
import { createRandom } from "../../random.js";
import type { PairRecord } from "../data/pair-record.js";
import { keyOf } from "../data/text-key.js";
import { functionSurrogate, type Surrogate } from "./surrogate.js";

const DIMENSIONS = 16;

const direction = (name: string): number[] => {
  const random = createRandom(keyOf(name));
  const vector = Array.from({ length: DIMENSIONS }, () => random.normal());
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
};

const made = new Map<string, Float32Array>();

/** Topic, then a third of what the pair has in common, then a sixth of its own. */
export function topicVector(text: string): Float32Array {
  const vector = made.get(text) ?? make(text);
  made.set(text, vector);
  return vector;
}

function make(text: string): Float32Array {
  const [, topic, pair] = text.split(" ");
  const parts = [direction(`topic ${topic}`), direction(`pair ${topic} ${pair}`), direction(text)];
  const vector = parts[0]!.map((value, i) => value + parts[1]![i]! / 3 + parts[2]![i]! / 6);
  const length = Math.hypot(...vector);
  return Float32Array.from(vector, (value) => value / length);
}

export function topicSurrogate(modelId = "topics"): { surrogate: Surrogate; embedded: string[] } {
  const embedded: string[] = [];
  const surrogate = functionSurrogate(
    async (texts) => {
      embedded.push(...texts);
      return texts.map(topicVector);
    },
    { modelId },
  );
  return { surrogate, embedded };
}

/** In an order that mixes the topics. */
export function topicPairs(topics: number, each: number, dataset = "default"): PairRecord[] {
  const pairs = Array.from({ length: topics * each }, (_, i) => {
    const [topic, pair] = [i % topics, Math.floor(i / topics)];
    return { id: `${topic} ${pair}`, dataset, query: `q ${topic} ${pair}`, positive: `d ${topic} ${pair}` };
  });
  return createRandom(9).shuffle(pairs);
}
