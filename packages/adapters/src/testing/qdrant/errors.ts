/** The failures that the double answers with: a status and Qdrant's words for it. */

/** Becomes the answer `{ status: { error } }` with this HTTP status. */
export class ServerError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export const wrongInput = (what: string): ServerError => new ServerError(400, `Wrong input: ${what}`);
export const badRequest = (what: string): ServerError => new ServerError(400, `Bad request: ${what}`);
export const badFormat = (what: string): ServerError => new ServerError(400, `Format error in JSON body: ${what}`);
export const invalid = (what: string): ServerError => new ServerError(422, `Validation error in JSON body: [${what}]`);
export const notFound = (what: string): ServerError => new ServerError(404, `Not found: ${what}`);

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonRecord = { [key: string]: Json };

export function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
