/** Holds exchanges with a Qdrant server to Qdrant's own description of its API, every object closed. */
import { readFileSync } from "node:fs";
import type { Exchange } from "@cde-js/adapters/testing";
import { Ajv, type ValidateFunction } from "ajv";
import { sharedPath } from "./shared.js";

interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
  readonly requestBody?: { readonly content: { readonly "application/json"?: { readonly schema: object } } };
  readonly responses: Readonly<
    Record<string, { readonly content?: { readonly "application/json"?: { readonly schema: object } } }>
  >;
}

/** Where the description is; tests that need it are skipped with this reason where it isn't. */
const openApiPath = sharedPath("qdrant/openapi.json");
export const openApiSkip = "skipped without Qdrant's openapi.json of the reference material";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** A `validate` for the double, or undefined where the description is absent. */
export function openApiValidator(): ((exchange: Exchange) => string | undefined) | undefined {
  if (openApiPath === undefined) return undefined;
  const api = close(JSON.parse(readFileSync(openApiPath, "utf8"))) as {
    readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  };
  // `strict` would refuse the description's own keywords, such as `example`.
  const ajv = new Ajv({ strict: false, allErrors: false, validateFormats: true });
  ajv.addFormat("uuid", UUID);
  ajv.addFormat("date-time", (text: string) => !Number.isNaN(Date.parse(text)));
  ajv.addFormat("binary", true);
  const whole = (least: number, most: number) => ({
    type: "number" as const,
    validate: (n: number) => Number.isInteger(n) && n >= least && n <= most,
  });
  for (const name of ["uint", "uint64"]) ajv.addFormat(name, whole(0, 2 ** 64));
  for (const name of ["int32", "int64"]) ajv.addFormat(name, whole(-(2 ** 63), 2 ** 63));
  for (const [name, bits] of [
    ["uint8", 8],
    ["uint16", 16],
    ["uint32", 32],
  ] as const) {
    ajv.addFormat(name, whole(0, 2 ** bits - 1));
  }
  for (const name of ["float", "double"]) ajv.addFormat(name, { type: "number", validate: Number.isFinite });
  ajv.addSchema(api as object, "api");

  const routes = Object.entries(api.paths).map(([template, operations]) => {
    const pattern = new RegExp(`^${template.replace(/\{[^}]+\}/g, "[^/]+")}$`);
    return { template, pattern, operations };
  });
  // Literal paths before those with a name in them: /collections/aliases is no collection.
  routes.sort((a, b) => a.template.split("{").length - b.template.split("{").length);
  const compiled = new Map<string, ValidateFunction>();
  const check = (key: string, pointer: string, value: unknown): string | undefined => {
    const validate = compiled.get(key) ?? ajv.compile({ $ref: `api#${pointer}` });
    compiled.set(key, validate);
    if (validate(value)) return undefined;
    const errors = (validate.errors ?? []).map(({ instancePath, message, params }) => {
      return `${instancePath} ${message} ${JSON.stringify(params)}`;
    });
    return errors.slice(-3).join("; ");
  };

  return ({ method, path, query, body, status, answer }) => {
    const route = routes.find(({ pattern, operations }) => pattern.test(path) && operations[method.toLowerCase()]);
    if (!route) return `the API has no ${method} ${path}`;
    const operation = route.operations[method.toLowerCase()]!;
    const pointer = ["", "paths", route.template, method.toLowerCase()].map(escaped).join("/");
    if (status === 0) {
      const known = new Set((operation.parameters ?? []).flatMap((p) => (p.in === "query" ? [p.name] : [])));
      const unknown = Object.keys(query).find((name) => !known.has(name));
      if (unknown !== undefined) return `unknown query parameter ${unknown}`;
      const wanted = operation.requestBody?.content["application/json"];
      if (!wanted) return body === undefined ? undefined : "a body where none is expected";
      return check(`${pointer} body`, `${pointer}/requestBody/content/application~1json/schema`, body);
    }
    const name = status < 400 ? "200" : "4XX";
    if (!operation.responses[name]?.content?.["application/json"]) return undefined;
    return check(`${pointer} ${name}`, `${pointer}/responses/${name}/content/application~1json/schema`, answer);
  };
}

/** One step of a JSON pointer inside a URI fragment. */
function escaped(step: string): string {
  return encodeURIComponent(step.replaceAll("~", "~0").replaceAll("/", "~1"));
}

/** Merges `allOf`, closes objects that list their properties, and writes OpenAPI's `nullable` as JSON Schema does. */
function close(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(close);
  if (typeof value !== "object" || value === null) return value;
  const closed: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(value)) {
    // Examples are data: nothing in them is a schema.
    if (key === "example" || key === "examples" || key === "default") continue;
    closed[key] = close(entry);
  }
  if (Array.isArray(closed.allOf)) {
    const parts = closed.allOf as Record<string, unknown>[];
    delete closed.allOf;
    for (const part of parts) {
      closed.properties = { ...(closed.properties as object), ...(part.properties as object) };
      closed.required = [...((closed.required as string[]) ?? []), ...((part.required as string[]) ?? [])];
      if (part.type !== undefined) closed.type = part.type;
    }
  }
  if (closed.type === "object" && closed.properties && closed.additionalProperties === undefined) {
    closed.additionalProperties = false;
  }
  if (closed.nullable === true) {
    delete closed.nullable;
    if (typeof closed.type === "string") {
      closed.type = [closed.type, "null"];
      if (Array.isArray(closed.enum)) closed.enum = [...closed.enum, null];
    } else if (Object.keys(closed).every((key) => key === "description")) closed.type = "null";
  }
  return closed;
}
