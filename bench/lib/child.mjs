/** A step of a benchmark in a process of its own, so that its peak of memory is its own too. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Runs the program at `url` with `--child` and what it is told; gives the last message that it sends. */
export function askChild(url, options) {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(url), ["--child", JSON.stringify(options)]);
    let result;
    child.on("message", (message) => {
      result = message;
    });
    child.on("exit", (code) =>
      code === 0 ? resolve(result) : reject(new Error(`${options.task} ended with ${code}`)),
    );
  });
}
