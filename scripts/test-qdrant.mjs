/** Runs the tests of the Qdrant adapter against the server at QDRANT_URL (and QDRANT_API_KEY); says how to start one. */
import { spawnSync } from "node:child_process";

const HOW = `QDRANT_URL names no server. To start one on this machine, version 1.19 or newer:

  docker run --rm -p 6333:6333 qdrant/qdrant:v1.19.0

or, from an archive of Qdrant's releases: ./qdrant. Then:

  QDRANT_URL=http://localhost:6333 npm run test:qdrant

The tests make collections named cde-test-… and remove them. A key, where the server asks for one, goes into
QDRANT_API_KEY. Tests that tell the server to misbehave are skipped, since only the double can be told to.
`;

if (!process.env.QDRANT_URL) {
  process.stdout.write(HOW);
  process.exit(2);
}
const { status } = spawnSync("npx", ["vitest", "run", "test/dist/qdrant", ...process.argv.slice(2)], {
  stdio: "inherit",
});
process.exit(status ?? 1);
