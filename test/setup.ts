/** Runs before every test file: the library never prints, so a call of `console` is a failure. */
for (const method of ["log", "info", "warn", "error", "debug"] as const) {
  console[method] = (...values: unknown[]) => {
    throw new Error(`console.${method} was called: ${values.map(String).join(" ")}`);
  };
}
