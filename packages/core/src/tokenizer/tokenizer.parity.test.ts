/** The tokenizer of all-MiniLM-L6-v2 against ids of transformers, and the word cache against the library. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { describe, expect, test } from "vitest";
import { Tokenizer } from "./tokenizer.js";

const root = new URL("../../../../", import.meta.url);
const golden = JSON.parse(readFileSync(new URL("test/parity/golden/minilm/minilm.json", root), "utf8")) as {
  max_tokens: number;
  sentences: { name: string; text: string; ids: number[]; tokens_before_truncation: number }[];
  prefixed_texts: { text: string; ids: number[] }[];
};
const shared = fileURLToPath(new URL("../shared/", root));
const model = `${shared}models/all-MiniLM-L6-v2`;
const missing = !existsSync(`${model}/tokenizer.json`);
const reason = missing ? " (skipped: no ../shared/models/all-MiniLM-L6-v2)" : "";
const CORPORA =
  "bankfaq boolq checkthat2020 cisi climate_fever_sent covidqa cuad fin10k medquad multirc nfcorpus npl_vaswani nq obliqa oyez race scitldr squad tatqa techqa tldr_pages".split(
    " ",
  );
/** Every n-th line of a corpus; all of them in the full run. */
const STEP = process.env.CDE_FULL === "1" ? 1 : 199;

describe.skipIf(missing)(`all-MiniLM-L6-v2${reason}`, () => {
  test("gives the ids of transformers, cut where it cuts, and says which were cut", async () => {
    const tokenizer = await Tokenizer.load(model, { embeddingRows: 30_522 });
    const { sentences, max_tokens: maxTokens } = golden;
    const { ids, truncated } = await tokenizer.encodeBatch(
      sentences.map(({ text }) => text),
      { maxTokens },
    );
    for (const [i, { name, ids: expected }] of sentences.entries()) expect([...ids[i]!], name).toEqual(expected);
    const long = sentences.flatMap((sentence, i) => (sentence.tokens_before_truncation > maxTokens ? [i] : []));
    expect(truncated).toEqual(long);
    expect(long.length).toBeGreaterThan(0);
    for (const { text, tokens_before_truncation: count } of sentences) expect(tokenizer.countTokens(text)).toBe(count);
  });

  test("gives the ids of transformers for texts behind the four prefixes, also as a prompt", async () => {
    const tokenizer = await Tokenizer.load(model);
    for (const { text, ids } of golden.prefixed_texts) {
      expect([...tokenizer.encode(text)], text).toEqual(ids);
      const cut = text.indexOf(": ") + 2;
      const batch = await tokenizer.encodeBatch([text.slice(cut)], { maxTokens: 256, prompt: text.slice(0, cut) });
      expect([...batch.ids[0]!], text).toEqual(ids);
    }
  });

  test.each(CORPORA)(
    "gives the library's ids on documents and queries of %s",
    async (corpus) => {
      const tokenizer = await Tokenizer.load(model);
      const library = new Library(JSON.parse(readFileSync(`${model}/tokenizer.json`, "utf8")), {});
      for (const file of ["corpus", "queries"]) {
        const lines = gunzipSync(readFileSync(`${shared}data/${corpus}/${file}.jsonl.gz`))
          .toString()
          .trim()
          .split("\n");
        for (let i = 0; i < lines.length; i += STEP) {
          const { title, text } = JSON.parse(lines[i]!) as { title?: string; text: string };
          const whole = title ? `${title} ${text}` : text;
          const ids = tokenizer.encode(whole);
          // Compared as text: toEqual on 30 million numbers takes minutes.
          expect(ids.join(), `${corpus} ${file} line ${i + 1}`).toBe(library.encode(whole).ids.join());
        }
      }
    },
    600_000,
  );
});
