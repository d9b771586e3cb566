/** How the double misbehaves on command. */

export type Fault =
  /** Answers with this status before anything is done; `retryAfter` in seconds becomes the header. */
  | { readonly kind: "status"; readonly status: number; readonly message?: string; readonly retryAfter?: number }
  /** Answers only after this many milliseconds, as usual. */
  | { readonly kind: "slow"; readonly milliseconds: number }
  /** Closes the socket: before the request is looked at, in the middle of the answer, or once it is done and not acknowledged. */
  | { readonly kind: "cut"; readonly when: "before" | "middle" | "after" }
  /** Half of the answer, with a length that says it is all. */
  | { readonly kind: "truncated" }
  /** The answer changed in any way. */
  | { readonly kind: "answer"; readonly change: (body: unknown) => unknown };

export interface FaultRule {
  /** Of the path, without query. @default every path */
  readonly path?: RegExp;
  /** @default every method */
  readonly method?: string;
  /** Matching requests that pass first; not of a function. @default 0 */
  readonly skip?: number;
  /** Matching requests that fail then, Infinity for all; not of a function. @default 1 */
  readonly times?: number;
  /** Or a function of a matching request (its number among them, its body) that says which fault it meets, if any. */
  readonly fault: Fault | ((request: { readonly number: number; readonly body: unknown }) => Fault | undefined);
}

export class Faults {
  readonly #rules: { readonly rule: FaultRule; seen: number }[] = [];

  add(rule: FaultRule): void {
    this.#rules.push({ rule, seen: 0 });
  }

  clear(): void {
    this.#rules.length = 0;
  }

  /** The fault of the first rule that wants this request. */
  take(method: string, path: string, body: unknown): Fault | undefined {
    for (const entry of this.#rules) {
      const { rule } = entry;
      if (rule.method !== undefined && rule.method !== method) continue;
      if (rule.path !== undefined && !rule.path.test(path)) continue;
      const at = entry.seen++ - (rule.skip ?? 0);
      const fault = typeof rule.fault === "function" ? rule.fault({ number: entry.seen - 1, body }) : rule.fault;
      if (typeof rule.fault === "function" ? fault : at >= 0 && at < (rule.times ?? 1)) return fault;
    }
    return undefined;
  }
}
