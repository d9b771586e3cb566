/**
 * A LangChain agent that looks things up in a corpus by itself: a `CorpusRetriever` as its tool. The chat model is
 * LangChain's fake one, so that this runs offline: it asks for the tool twice and answers. Put your chat model there.
 */
import { CorpusRetriever } from "@cde-js/adapters/langchain";
import { AIMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { fakeModel } from "@langchain/core/testing";
import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";
import { createAgent, tool } from "langchain";

const handbook = [
  ["Leave", "Every employee has 25 days of paid leave a year; unused days expire at the end of March."],
  ["Leave", "Leave longer than two weeks needs the consent of the team lead two months ahead."],
  ["Sickness", "Who is ill for more than three days hands in a doctor's certificate on the fourth."],
  ["Travel", "Trains are booked in second class; above six hours first class is paid."],
  ["Travel", "Meals on a journey are paid up to 40 euros a day, against receipts."],
  ["Equipment", "A laptop is replaced after four years, a telephone after three."],
  ["Equipment", "Lost devices are reported to the service desk within an hour."],
] as const;
const documents = handbook.map(([title, text], i) => ({ id: `rule-${i + 1}`, title, text }));

await using encoder = await ContextualEncoder.load(modelDirectory);
await using index = await CorpusIndex.fromCorpus(encoder, () => documents);
const retriever = new CorpusRetriever({ index, k: 2 });

// The tool gives the model text to read, and the application the documents (`artifact`) to link to.
const searchHandbook = tool(
  async ({ query }: { query: string }, config) => {
    const found = await retriever.invoke(query, config);
    return [found.map(({ id, pageContent }) => `[${id}] ${pageContent}`).join("\n"), found];
  },
  {
    name: "search_handbook",
    description: "Searches the staff handbook. Ask for one thing at a time.",
    schema: {
      type: "object",
      properties: { query: { type: "string", description: "what to look for, in a few words" } },
      required: ["query"],
    },
    responseFormat: "content_and_artifact",
  },
);

const model = fakeModel()
  .respondWithTools([{ name: "search_handbook", args: { query: "who pays for food on a business trip" } }])
  .respondWithTools([{ name: "search_handbook", args: { query: "stolen notebook computer" } }])
  .respond(new AIMessage("Meals are paid up to 40 euros a day [rule-5]. Report the theft within an hour [rule-7]."));
const agent = createAgent({
  model,
  tools: [searchHandbook],
  systemPrompt: "Answer from the handbook and cite the rules.",
});
const { messages } = await agent.invoke({
  messages: [new HumanMessage("What may I spend on lunch in Lyon, and what if my laptop is stolen there?")],
});

const read = new Set<string>();
for (const message of messages) {
  if (AIMessage.isInstance(message)) {
    for (const { args } of message.tool_calls ?? []) console.log(`looks for: ${args.query}`);
  } else if (ToolMessage.isInstance(message)) {
    for (const line of message.text.split("\n")) console.log(`  ${line}`);
    for (const { id } of message.artifact as { id: string }[]) read.add(id);
  }
}
const answer = messages.at(-1)?.text ?? "";
console.log(answer);
for (const [, id = ""] of answer.matchAll(/\[([\w-]+)\]/g)) {
  if (!read.has(id)) throw new Error(`the answer cites ${id}, which the agent never read`);
}
