/** HTML that is safe by construction: a template whose values are escaped, whatever they hold. */

/** A piece of finished HTML. */
export class Markup {
  readonly text: string;

  /** Only for literals of ours, such as the style sheet: nothing is escaped. */
  constructor(text: string) {
    this.text = text;
  }
}

export type MarkupValue = string | number | Markup | readonly Markup[];

/** Strings and numbers are escaped for text and for attributes in quotes; markup stays. */
export function html(parts: TemplateStringsArray, ...values: readonly MarkupValue[]): Markup {
  let text = parts[0]!;
  values.forEach((value, i) => {
    if (value instanceof Markup) text += value.text;
    else if (typeof value === "object") text += value.map((markup) => markup.text).join("");
    else text += escaped(String(value));
    text += parts[i + 1]!;
  });
  return new Markup(text);
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
  "`": "&#96;",
};

/** Control characters, which HTML doesn't allow, and lone surrogates become U+FFFD; so do marks that reorder text. */
function escaped(text: string): string {
  return text
    .replace(/[&<>"'`]/g, (character) => ENTITIES[character]!)
    .replace(/(?![\t\n])\p{Cc}|\p{Cs}|[\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");
}
