/**
 * A route handler as Next.js calls it (`app/api/ask/route.ts`: Request in, Response out), with the AI SDK: a question is
 * embedded in the context of the corpus, the nearest passages go to the model, its answer is streamed. The chat model is
 * the SDK's mock, so that this runs offline; put yours in its place. Below, the handler is called as a server would.
 */
import { createCde } from "@cde-js/adapters/ai-sdk";
import { cosineSimilarity, embed, embedMany, simulateReadableStream, streamText } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { ContextualEncoder, modelDirectory } from "cde-js";

const clauses = [
  "The rent is due on the third working day of each month.",
  "The deposit is three months of rent and is kept on an account of its own.",
  "The landlord repairs what storm, fire or flood has damaged.",
  "Cats and small animals in cages are allowed; a dog needs the landlord's consent.",
  "Both sides may end the lease with three months of notice to the end of a quarter.",
  "Instruments are played from nine to twelve and from three to eight.",
];

// 1. Once a process (in Next.js: a module of its own, imported by the route): encoder, context, vectors.
const encoder = await ContextualEncoder.load(modelDirectory);
const cde = createCde(encoder.withContext(await encoder.buildContext(clauses)));
const { embeddings } = await embedMany({ model: cde.document(), values: clauses });

/** Answers with a fixed sentence and the number of the first passage of its prompt. */
const model = new MockLanguageModelV3({
  doStream: async ({ prompt }) => {
    const [system] = prompt;
    const [, number] = (system?.role === "system" ? system.content : "").match(/^\[(\d+)\]/m) ?? [];
    const words = ["This ", "passage ", "answers ", `it: [${number}].`];
    const usage = {
      inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: undefined, text: undefined, reasoning: undefined },
    };
    return {
      stream: simulateReadableStream({
        chunks: [
          { type: "stream-start", warnings: [] },
          { type: "text-start", id: "1" },
          ...words.map((delta) => ({ type: "text-delta" as const, id: "1", delta })),
          { type: "text-end", id: "1" },
          { type: "finish", finishReason: { unified: "stop", raw: undefined }, usage },
        ],
      }),
    };
  },
});

// 2. The route.
export async function POST(request: Request): Promise<Response> {
  const body: unknown = await request.json().catch(() => undefined);
  const question = (body as { question?: unknown } | undefined)?.question;
  if (typeof question !== "string" || question.trim() === "") {
    return Response.json({ error: `expected { "question": "…" }` }, { status: 400 });
  }
  // Who closes the page stops the work.
  const abortSignal = request.signal;
  const { embedding } = await embed({ model: cde.query(), value: question, abortSignal });
  const best = embeddings
    .map((each, i) => ({ number: i + 1, text: clauses[i], score: cosineSimilarity(embedding, each) }))
    .sort((a, b) => b.score - a.score)
    .slice(0, 2);
  const passages = best.map(({ number, text }) => `[${number}] ${text}`).join("\n");
  const { textStream } = streamText({
    model,
    system: `Answer from these passages only and cite them by number.\n${passages}`,
    prompt: question,
    abortSignal,
  });
  return new Response(textStream.pipeThrough(new TextEncoderStream()), {
    headers: { "content-type": "text/plain; charset=utf-8", "x-passages": best.map(({ number }) => number).join(",") },
  });
}

// 3. What a server does with it.
const ask = (body: string, signal?: AbortSignal): Promise<Response> =>
  POST(new Request("http://localhost/api/ask", { method: "POST", body, ...(signal ? { signal } : {}) }));
const expected = {
  "who pays for water damage?": "3",
  "may I keep pets?": "4",
  "how do I terminate the contract?": "5",
};
for (const [question, clause] of Object.entries(expected)) {
  const response = await ask(JSON.stringify({ question }));
  const answer = await response.text();
  console.log(`${response.status} ${question} ${answer}`);
  if (!answer.endsWith(`[${clause}].`)) throw new Error(`expected clause ${clause}, got ${answer}`);
}
for (const body of ["{", "{}", `{"question": " "}`]) {
  const response = await ask(body);
  console.log(`${response.status} ${body} ${await response.text()}`);
  if (response.status !== 400) throw new Error(`${body} gave ${response.status}`);
}
const aborted = await ask(`{"question":"rent"}`, AbortSignal.abort()).catch((error: Error) => error);
console.log(`aborted: ${aborted instanceof Error ? aborted.name : aborted.status}`);
if (!(aborted instanceof Error)) throw new Error("an aborted request was answered");
await encoder.dispose();
