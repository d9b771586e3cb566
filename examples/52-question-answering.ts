/**
 * Question answering over documents of your own: find, answer from what was found, and check every citation. The chat
 * model is a fake one that quotes passages, so that this runs offline; put a call of yours in its place.
 */
import { ContextualEncoder, CorpusIndex, type Hit, modelDirectory } from "cde-js";

const handbook = [
  [
    "Leave",
    "Employees have thirty days of paid leave a year. Up to five days may be carried over until the end of March.",
  ],
  ["Leave", "Leave is requested two weeks ahead in the portal. The head of the team answers within three days."],
  ["Illness", "Who is ill tells the head of the team before nine. From the fourth day on a doctor's note is needed."],
  ["Travel", "Trips of less than five hours are made by train. First class is allowed from two hours on."],
  [
    "Travel",
    "Expenses are handed in within a month, with all receipts. Meals are paid at a flat rate of 28 euros a day.",
  ],
  [
    "Equipment",
    "Laptops are replaced every four years. Whoever loses one reports it to the service desk the same day.",
  ],
  ["Remote work", "Up to three days a week may be worked from home, in agreement with the team."],
  ["Remote work", "Work from abroad is possible for twenty days a year within the European Union."],
  ["Training", "Each employee has a budget of 1,000 euros a year for courses and books."],
  ["Parents", "Parents may take up to three years of leave for each child. The job is kept for them."],
] as const;
const documents = handbook.map(([title, text], i) => ({ id: `section-${i + 1}`, title, text }));

/** What a chat model has to do. `fetch` one here; this one quotes the passage that shares most words with the question. */
type ChatModel = (messages: readonly { role: "system" | "user"; content: string }[]) => Promise<string>;
const fakeModel: ChatModel = async (messages) => {
  const content = messages.at(-1)!.content;
  const question = new Set(
    content
      .slice(content.lastIndexOf("Question:"))
      .toLowerCase()
      .match(/\p{L}{4,}/gu),
  );
  const passages = [...content.matchAll(/^\[(\d+)\] (.*)$/gm)].map(([, number, text]) => ({
    number,
    sentences: text!.split(/(?<=\.) /),
  }));
  const shared = (text: string) =>
    (text.toLowerCase().match(/\p{L}{4,}/gu) ?? []).filter((word) => question.has(word)).length;
  const best = passages
    .flatMap(({ number, sentences }, rank) =>
      sentences.map((text) => ({ number, text, score: shared(text) - rank / 10 })),
    )
    .sort((a, b) => b.score - a.score)[0];
  return best && best.score > 0 ? `${best.text.replace(/\.$/, "")} [${best.number}].` : "The passages don't say.";
};

await using encoder = await ContextualEncoder.load(modelDirectory);
const context = await encoder.buildContext(documents.map(({ title, text }) => `${title} ${text}`));
await using index = await CorpusIndex.build(encoder.withContext(context), documents);

for (const question of [
  "How many days can I work from home?",
  "When do I need a note from the doctor?",
  "How much is paid for meals on a trip?",
]) {
  const { answer, cited } = await ask(question, fakeModel);
  console.log(`\n${question}\n${answer}`);
  for (const [number, { id, title, score, text }] of cited)
    console.log(`  [${number}] ${id}, "${title}", score ${score.toFixed(2)}: ${text}`);
}

/** Retrieves, asks, and refuses an answer that cites what was not shown to the model. */
async function ask(question: string, model: ChatModel): Promise<{ answer: string; cited: Map<number, Hit> }> {
  const hits = await index.search(question, { k: 3 });
  const passages = hits.map(({ title, text }, i) => `[${i + 1}] ${title}: ${text}`).join("\n");
  const answer = await model([
    {
      role: "system",
      content: "Answer from the numbered passages only and cite them like [1]. Where they don't say, say so.",
    },
    { role: "user", content: `${passages}\n\nQuestion: ${question}` },
  ]);
  const cited = new Map<number, Hit>();
  for (const [, number] of answer.matchAll(/\[(\d+)\]/g)) {
    const hit = hits[Number(number) - 1];
    if (!hit) throw new Error(`the answer cites [${number}], and ${hits.length} passages were given`);
    cited.set(Number(number), hit);
  }
  return { answer, cited };
}
