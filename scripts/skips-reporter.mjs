/** A vitest reporter that lists the skipped tests: their names carry the reason. */

export default class SkipsReporter {
  /** @param {ReadonlyArray<import("vitest/node").TestModule>} modules */
  onTestRunEnd(modules) {
    const names = modules.flatMap((module) => [...module.children.allTests("skipped")].map((test) => test.fullName));
    if (names.length === 0) return;
    process.stdout.write(`\n${names.length} skipped:\n${names.map((name) => `  ${name}\n`).join("")}`);
  }
}
