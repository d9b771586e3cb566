import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, test } from "vitest";
import { isCheckout, readText } from "../repository/files.js";

interface Schema {
  readonly description?: string;
  readonly default?: unknown;
  readonly oneOf?: readonly Schema[];
  readonly items?: Schema;
  readonly additionalProperties?: false | Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
}

/** A row of the table of docs/training.md for every option, in the order of the schema. */
function rowsOf(schema: Schema, path = ""): string[] {
  const { oneOf = [], items, additionalProperties, properties = {} } = schema;
  return [
    ...oneOf.flatMap((branch) => rowsOf(branch, path)),
    ...(items ? rowsOf(items, `${path}[]`) : []),
    ...(additionalProperties ? rowsOf(additionalProperties, `${path}.*`) : []),
    ...Object.entries(properties).flatMap(([key, inner]) => {
      const place = path === "" ? key : `${path}.${key}`;
      const { description = "", default: value } = inner;
      const byDefault = value === undefined ? "–" : `\`${JSON.stringify(value)}\``;
      // What a name's meaning says already needs no row of its own.
      const own = description === "" ? [] : [`| \`${place}\` | ${byDefault} | ${description.replaceAll("|", "\\|")} |`];
      return [...own, ...rowsOf(inner, place)];
    }),
  ];
}

test.skipIf(!isCheckout)(
  "docs/training.md has a row for every option of cde train, as the schema says it, and no other (needs a git checkout)",
  () => {
    const schema = JSON.parse(readText("packages/cli/train.schema.json")) as Schema;
    const [, section = ""] = readText("docs/training.md").split("### Every option\n");
    const rows = section
      .split("\n## ")[0]!
      .split("\n")
      .filter((line) => line.startsWith("| `"));
    expect(rows).toEqual([...new Set(rowsOf(schema))]);
    expect(rows.length).toBeGreaterThan(100);
  },
);

test.skipIf(!isCheckout)("the configurations in the docs are ones that the schema takes (needs a git checkout)", () => {
  const validate = new Ajv2020({ strict: false }).compile(
    JSON.parse(readText("packages/cli/train.schema.json")) as object,
  );
  const blocks = [...readText("docs/training.md").matchAll(/```json\n([\s\S]*?)```/g)].map(([, block]) => block!);
  expect(blocks.length).toBeGreaterThan(1);
  for (const block of blocks) expect(validate(JSON.parse(block)), block).toBe(true);
});
