/** A server on loopback that speaks the OpenAI embeddings protocol, with limits, delays and faults where a test wants them. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface EndpointRequest {
  readonly path: string;
  readonly authorization: string | undefined;
  readonly body: { model: string; input: string[]; dimensions?: number };
}

/** Answers in place of the server by returning true. `answer` is what it would have said. */
export type EndpointFault = (
  request: EndpointRequest,
  response: ServerResponse,
  answer: { data: { index: number; embedding: unknown }[] },
) => boolean;

/** What the server's model gives: not of unit length, as many servers do. */
export function vectorOf(text: string, dimensions = 8, version = 1): number[] {
  const digest = createHash("sha512").update(`${version} ${text}`).digest();
  return Array.from({ length: dimensions }, (_, i) => digest.readInt16LE(2 * i) / 4096);
}

export class FakeEndpoint {
  readonly requests: EndpointRequest[] = [];
  /** Requests being answered now, and the most there were. */
  open = 0;
  mostOpen = 0;
  /** Another version is another model under the same name. */
  version = 1;
  fault: EndpointFault | undefined;
  url = "";
  readonly #server: Server = createServer((request, response) => void this.#answer(request, response));

  static async start(): Promise<FakeEndpoint> {
    const endpoint = new FakeEndpoint();
    await new Promise<void>((resolve) => endpoint.#server.listen(0, "127.0.0.1", resolve));
    endpoint.url = `http://127.0.0.1:${(endpoint.#server.address() as AddressInfo).port}/v1`;
    return endpoint;
  }

  reset(): void {
    this.requests.length = 0;
    this.mostOpen = 0;
    this.version = 1;
    this.fault = undefined;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(message: IncomingMessage, response: ServerResponse): Promise<void> {
    this.mostOpen = Math.max(this.mostOpen, ++this.open);
    response.on("close", () => this.open--);
    const chunks: Buffer[] = [];
    for await (const chunk of message) chunks.push(chunk as Buffer);
    const request = {
      path: message.url ?? "",
      authorization: message.headers.authorization,
      body: JSON.parse(Buffer.concat(chunks).toString("utf8")) as EndpointRequest["body"],
    };
    this.requests.push(request);
    const data = request.body.input.map((text, index) => ({
      object: "embedding",
      index,
      embedding: vectorOf(text, request.body.dimensions, this.version) as unknown,
    }));
    if (this.fault?.(request, response, { data })) return;
    // Long enough that another request, if there may be one, is open meanwhile.
    await new Promise((resolve) => setImmediate(resolve));
    reply(response, 200, { object: "list", data, model: request.body.model, usage: { prompt_tokens: 1 } });
  }
}

export function reply(response: ServerResponse, status: number, body: unknown, headers = {}): true {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(typeof body === "string" ? body : JSON.stringify(body));
  return true;
}
