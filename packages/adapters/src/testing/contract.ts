/** Runs a contract's cases as tests of whatever framework the caller passes in. */

/** The two functions of vitest (or of `node:test`, or of jest) that a contract needs: `{ describe, test }`. */
export interface TestFramework {
  describe(name: string, body: () => void): unknown;
  readonly test: {
    (name: string, body: () => Promise<void>): unknown;
    skip(name: string, body: () => Promise<void>): unknown;
  };
}

export interface Case<Subject> {
  /** A sentence. */
  readonly title: string;
  /** Why this subject can't be asked, or undefined where it can. */
  readonly skip?: (subject: Subject) => string | undefined;
  readonly run: (subject: Subject) => Promise<void>;
}

/**
 * Known defects, with the reason. Such a case still runs, and must fail: the day it is repaired upstream, its test
 * fails and asks for its entry to be removed.
 */
export type ExpectedFailures<Name extends string> = Readonly<Partial<Record<Name, string>>>;

/** One test a case. */
export function runContract<Subject, Name extends string>(
  { describe, test }: TestFramework,
  title: string,
  cases: Readonly<Record<Name, Case<Subject>>>,
  subject: Subject & { readonly expectedFailures?: ExpectedFailures<Name> },
): void {
  describe(title, () => {
    for (const [name, { title, skip, run }] of Object.entries(cases) as [Name, Case<Subject>][]) {
      const reason = skip?.(subject);
      const defect = subject.expectedFailures?.[name];
      if (reason !== undefined) test.skip(`${name}: ${title} (skipped: ${reason})`, async () => {});
      else if (defect === undefined) test(`${name}: ${title}`, () => run(subject));
      else test(`${name}: ${title} (expected to fail: ${defect})`, () => mustFail(name, () => run(subject)));
    }
  });
}

async function mustFail(name: string, run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch {
    return;
  }
  throw new Error(`${name} holds now. Remove it from expectedFailures.`);
}
