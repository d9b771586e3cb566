/** Servers for the tests of the Qdrant adapter: the double, or a real one where `QDRANT_URL` names it. */
import { type FaultRule, QdrantDouble } from "@cde-js/adapters/testing";
import { mulberry32 } from "@cde-js/core";
import type { CorpusDocument, Hit } from "@cde-js/retriever";
import { afterAll, expect } from "vitest";
import { openApiValidator } from "../support/qdrant-openapi.js";

const { QDRANT_URL, QDRANT_API_KEY } = process.env;
export const isReal: boolean = QDRANT_URL !== undefined && QDRANT_URL !== "";
/** Of tests that tell the double to misbehave. */
export const doubleOnly = "skipped on a real server: it can't be told to misbehave";

export interface TestServer {
  readonly options: { readonly url: string; readonly apiKey?: string; readonly retryDelayMs: number };
  /** Undefined for a real server. */
  readonly double: QdrantDouble | undefined;
}

const validate = openApiValidator();
const open: QdrantDouble[] = [];
const made: { options: TestServer["options"]; name: string }[] = [];
afterAll(async () => {
  const violations = open.flatMap((double) => double.violations);
  await Promise.all(open.splice(0).map((double) => double.close()));
  for (const { options, name } of made.splice(0)) {
    const headers = options.apiKey === undefined ? {} : { "api-key": options.apiKey };
    await fetch(`${options.url}/collections/${name}`, { method: "DELETE", headers });
  }
  if (violations.length > 0) throw new Error(`broke the description of Qdrant's API:\n${violations.join("\n")}`);
});

export async function testServer(): Promise<TestServer> {
  if (isReal) {
    const apiKey = QDRANT_API_KEY === undefined ? {} : { apiKey: QDRANT_API_KEY };
    return { options: { url: QDRANT_URL as string, ...apiKey, retryDelayMs: 50 }, double: undefined };
  }
  const double = await newDouble();
  return { options: { url: double.url, retryDelayMs: 1 }, double };
}

export async function newDouble(): Promise<QdrantDouble> {
  const double = await QdrantDouble.start(validate ? { validate } : {});
  open.push(double);
  return double;
}

let collections = 0;
/** A name that no other test has; on a real server the collection is removed at the end. */
export function newName({ options }: TestServer): string {
  const name = `cde-test-${process.pid}-${collections++}`;
  if (isReal) made.push({ options, name });
  return name;
}

export function misbehave({ double }: TestServer, rule: FaultRule): void {
  if (!double) throw new Error("a real server can't be told to misbehave");
  double.misbehave(rule);
}

const WORDS =
  "flood insurance claim denied landlord tenant repairs roof patent damages infringement court appeal notice contract lease rent dismissal employee appeals judge evidence river water storm policy premium breach remedy statute".split(
    " ",
  );

/** Documents of several passages, with metadata of all kinds; equal seeds give equal corpora. */
export function corpus(count: number, seed = 1): CorpusDocument[] {
  const random = mulberry32(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  return Array.from({ length: count }, (_, i) => {
    const sentences = Array.from({ length: 1 + Math.floor(random() * 4) }, () => {
      return `${Array.from({ length: 6 + Math.floor(random() * 12) }, () => pick(WORDS)).join(" ")}.`;
    });
    return {
      id: `case/${i}`,
      text: sentences.join(" "),
      ...(i % 3 === 0 ? { title: `Case ${pick(WORDS)} ${i}` } : {}),
      metadata: {
        court: pick(["supreme", "appeals", "district"]),
        year: 1990 + Math.floor(random() * 30),
        tags: Array.from({ length: Math.floor(random() * 3) }, () => pick(["tax", "ip", "labor"])),
        open: random() < 0.5,
        ...(i % 5 === 0 ? { note: null } : {}),
      },
    };
  });
}

/**
 * Sentences of as many words as no other has, so that no two score alike: the order of equal scores is open, and with it
 * every rank below.
 */
export function unequalCorpus(count: number): CorpusDocument[] {
  const random = mulberry32(4);
  let length = 6;
  return corpus(count).map(({ id, metadata }) => {
    const sentences = Array.from({ length: 1 + Math.floor(random() * 3) }, () => {
      const words = Array.from({ length: length++ }, () => {
        return random() < 0.5 ? WORDS[Math.floor(random() ** 2 * WORDS.length)] : `term${Math.floor(random() * 300)}`;
      });
      return `${words.join(" ")}.`;
    });
    return { id, text: sentences.join(" "), ...(metadata ? { metadata } : {}) };
  });
}

/** A splitter: a passage a sentence. */
export function bySentence({ text }: CorpusDocument): { start: number; end: number }[] {
  return [...text.matchAll(/[^ .][^.]*\./g)].map(({ 0: sentence, index }) => ({
    start: index,
    end: index + sentence.length,
  }));
}

export function queries(count: number, seed = 2): string[] {
  const random = mulberry32(seed);
  return Array.from({ length: count }, () => {
    return Array.from({ length: 2 + Math.floor(random() * 4) }, () => WORDS[Math.floor(random() * WORDS.length)]).join(
      " ",
    );
  });
}

/**
 * `count` documents of two sentences, common and rare words in them, as words come in a language: enough passages for the
 * weights of mixes to be chosen.
 */
export function largeCorpus(count: number): CorpusDocument[] {
  const random = mulberry32(6);
  return corpus(count, 6).map(({ id, metadata }) => {
    const sentences = Array.from({ length: 2 }, () => {
      const words = Array.from({ length: 6 + Math.floor(random() * 20) }, () => {
        const rank = Math.floor(1200 ** random()) - 1;
        return WORDS[rank] ?? `term${rank}`;
      });
      return `${words.join(" ")}.`;
    });
    return { id, text: sentences.join(" "), ...(metadata ? { metadata } : {}) };
  });
}

/** Of common words, some said twice, and rare ones, some of which no passage has. */
export function mixedQueries(count: number): string[] {
  const random = mulberry32(9);
  return queries(count, 7).map((query, i) => {
    const rare = Array.from({ length: i % 4 }, () => `term${30 + Math.floor(random() ** 2 * 1500)}`);
    return [query, ...rare].join(" ");
  });
}

export const key = (hit: Hit): string => `${hit.id} ${hit.passage.start}`;

/** Equal scores within 1e-4 at every place, and equal hits but for those whose scores are equal. */
export function same(found: readonly Hit[], expected: readonly Hit[]): void {
  expect(found).toHaveLength(expected.length);
  const own = new Map(expected.map((hit) => [key(hit), hit]));
  const last = expected.at(-1)?.score ?? 0;
  found.forEach((hit, i) => {
    expect(Math.abs(hit.score - expected[i]!.score)).toBeLessThan(1e-4);
    const twin = own.get(key(hit));
    // Of hits that tie with the last one, either may be left out.
    expect(Math.abs((twin?.score ?? last) - hit.score)).toBeLessThan(1e-4);
    if (!twin) return;
    const { score: _, scores: __, ...rest } = hit;
    const { score: ___, scores: ____, ...same } = twin;
    expect(rest).toEqual(same);
  });
}
