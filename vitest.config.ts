import { defineConfig } from "vitest/config";

// Tests run on the compiled output, the code that is shipped: `npm test` builds first.
export default defineConfig({
  test: {
    include: ["packages/*/dist/**/*.test.js", "test/dist/**/*.test.js"],
    exclude: ["**/node_modules/**"],
    setupFiles: ["test/dist/setup.js"],
    reporters: ["default", "./scripts/skips-reporter.mjs"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    server: { deps: { external: [/\/packages\/[^/]+\/dist\/(?!.*\.test\.js)/] } },
  },
});
