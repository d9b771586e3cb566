/** Requests to a worker thread of an index: numbered messages there, promises here. Knows nothing of what is asked. */
import { type MessagePort, type TransferListItem, Worker } from "node:worker_threads";
import { CdeError, RuntimeFailureError } from "@cde-js/core/errors";
import { IndexClosedError } from "./errors.js";

interface NumberedRequest<R> {
  readonly number: number;
  readonly request: R;
}

type NumberedAnswer =
  | { readonly number: number; readonly answer: unknown }
  | { readonly number: number; readonly failure: { readonly code: string | undefined; readonly message: string } };

/** In place of a request: the worker ends itself. */
const END = "end";

interface Pending {
  readonly resolve: (answer: never) => void;
  readonly reject: (reason: unknown) => void;
}

/** `R` are the requests by `name`, `A` what each is answered with, `E` what the worker says unasked. */
export class WorkerClient<R extends { readonly name: keyof A }, A, E = never> {
  readonly #what: string;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #onEvent: ((event: E) => void) | undefined;
  #next = 0;
  #ended: Error | undefined;
  #exited: Promise<void> | undefined;

  /** `what` names the index in errors. */
  constructor(what: string, script: URL, workerData: unknown, onEvent?: (event: E) => void) {
    this.#what = what;
    this.#onEvent = onEvent;
    this.#worker = new Worker(script, { workerData });
    // An idle index doesn't keep the process alive; a running request does.
    this.#worker.unref();
    // Until it runs, Node holds a listened-to worker again.
    this.#worker.on("online", () => {
      if (this.#pending.size === 0) this.#worker.unref();
    });
    this.#worker.on("message", (message: NumberedAnswer | { readonly event: E }) => this.#settle(message));
    this.#worker.on("error", (cause) =>
      this.#end(new RuntimeFailureError(`${what}: its worker failed: ${cause.message}`, { cause })),
    );
    this.#worker.on("exit", (code) => this.#end(new RuntimeFailureError(`${what}: its worker ended with ${code}.`)));
  }

  ask<Q extends R>(request: Q, transfer: readonly TransferListItem[] = []): Promise<A[Q["name"]]> {
    if (this.#ended) return Promise.reject(this.#ended);
    const number = this.#next++;
    this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#pending.set(number, { resolve, reject });
      this.#worker.postMessage({ number, request } satisfies NumberedRequest<R>, transfer);
    });
  }

  async close(): Promise<void> {
    this.#end(new IndexClosedError(this.#what));
    await this.#worker.terminate();
  }

  /**
   * Closes a worker that runs code of others, which may bring the process down when it is stopped from outside: it ends
   * itself before its next request.
   */
  async closeBetweenRequests(): Promise<void> {
    this.#end(new IndexClosedError(this.#what));
    this.#exited ??= new Promise((resolve) => {
      this.#worker.once("exit", () => resolve());
      // One that has ended already, or can't be told, is not inside anything.
      if (this.#worker.threadId < 0) resolve();
      this.#worker.ref();
      this.#worker.postMessage(END);
    });
    await this.#exited;
  }

  #settle(message: NumberedAnswer | { readonly event: E }): void {
    if ("event" in message) {
      if (!this.#ended) this.#onEvent?.(message.event);
      return;
    }
    const pending = this.#pending.get(message.number);
    this.#pending.delete(message.number);
    if (this.#pending.size === 0) this.#worker.unref();
    if (!pending) return;
    if ("answer" in message) pending.resolve(message.answer as never);
    else {
      const { code, message: text } = message.failure;
      pending.reject(code ? new CdeError(code, text) : new RuntimeFailureError(`${this.#what}: ${text}`));
    }
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
  }
}

/** The worker's side: answers each request, in the order in which their answers are there. */
export function answerRequests<R extends { readonly name: keyof A }, A>(
  port: MessagePort,
  answer: (request: R) => A[keyof A] | Promise<A[keyof A]>,
): void {
  port.on("message", async (message: NumberedRequest<R> | typeof END) => {
    if (message === END) process.exit();
    const { number, request } = message;
    let reply: NumberedAnswer;
    try {
      const found = answer(request);
      // Without a turn of the event loop where there is nothing to wait for.
      reply = { number, answer: found instanceof Promise ? await found : found };
    } catch (error) {
      const code = error instanceof CdeError ? error.code : undefined;
      reply = { number, failure: { code, message: error instanceof Error ? error.message : String(error) } };
    }
    port.postMessage(reply);
  });
}

/** The promise, or the signal's reason if that comes first. The work behind it goes on and is dropped. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await promise;
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop as () => void);
  }
}
