/** The worker of the exact index: owns the rows and answers one request after another. */
import { parentPort, workerData } from "node:worker_threads";
import { internal } from "@cde-js/core/errors";
import { answerRequests } from "../worker-client.js";
import type { Answers, Request, WorkerSetup } from "./protocol.js";
import { RowTable } from "./row-table.js";

const port = parentPort;
if (!port) throw internal("exact/worker.js runs as a worker only");
const { dimensions, type } = workerData as WorkerSetup;
const table = new RowTable(dimensions, type);

function answer(request: Request): Answers[keyof Answers] {
  switch (request.name) {
    case "upsert":
      table.upsert(request.labels, request.vectors);
      return table.count;
    case "delete": {
      const removed = table.delete(request.labels);
      return { removed, count: table.count };
    }
    case "read":
      return table.read(request.labels);
    case "search":
      return table.search(request.query, request.k, request.allowed);
  }
}

answerRequests<Request, Answers>(port, answer);
