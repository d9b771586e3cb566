/** A process that downloads one model, for tests of many processes: `node child.js <repository>`; prints JSON. */
import { CdeError, downloadModel } from "@cde-js/core";

const result = await downloadModel(process.argv[2] ?? "", { retryDelay: 5, idleTimeout: 5000 }).catch(
  (error: unknown) =>
    error instanceof CdeError ? { code: error.code, message: error.message } : { message: String(error) },
);
process.stdout.write(JSON.stringify(result));
