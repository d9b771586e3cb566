/** Which of a model's prompts stand before queries and documents. */
import { InvalidInputError } from "../errors.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";

/** Names of a model's prompts, such as `{ query: "classification", document: "classification" }`. */
export interface PromptNames {
  /** @default "query" */
  readonly query?: string;
  /** Context documents take it too. @default "document" */
  readonly document?: string;
}

/**
 * The texts themselves. A model without prompts of the default names has `byDefault`; a name that was asked for and
 * that it doesn't know is refused with the names that it knows.
 */
export function choosePrompts(
  prompts: Readonly<Record<string, string>>,
  byDefault: string,
  names: PromptNames = {},
): { query: string; document: string } {
  const promptOf = (kind: "query" | "document"): string => {
    const name = names[kind];
    if (name === undefined) return prompts[kind] ?? byDefault;
    if (Object.hasOwn(prompts, name)) return prompts[name]!;
    throw new InvalidInputError(
      `ContextualEncoder.load: the model knows no prompt "${name}" (asked for as prompts.${kind}), only: ${Object.keys(prompts).join(", ") || "none"}.`,
    );
  };
  return { query: promptOf("query"), document: promptOf("document") };
}

/** Refuses prompts that fill the whole input: every text would get the same vector. */
export function requireRoom(
  tokenizer: Tokenizer,
  prompts: { query: string; document: string },
  maxTokens: number,
): void {
  for (const [kind, prompt] of Object.entries(prompts)) {
    const tokens = tokenizer.countTokens(prompt);
    if (tokens < maxTokens) continue;
    throw new InvalidInputError(
      `ContextualEncoder.load: the ${kind} prompt takes ${tokens} of ${maxTokens} tokens, which leaves none for the text. Raise maxTokens.`,
    );
  }
}
