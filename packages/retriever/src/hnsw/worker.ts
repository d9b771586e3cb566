/** The worker of the HNSW index: owns rows and graph, answers requests, and builds the graph between them. */
import { parentPort, workerData } from "node:worker_threads";
import { internal } from "@cde-js/core/errors";
import { answerRequests } from "../worker-client.js";
import { GraphTable } from "./graph-table.js";
import { loadHnswlib } from "./load.js";
import type { Answers, GraphReport, Request, WorkerSetup } from "./protocol.js";

/** Milliseconds of building after which a request gets its turn. */
const SLICE = 10;

const port = parentPort;
if (!port) throw internal("hnsw/worker.js runs as a worker only");
let opened: GraphTable | undefined;
let building = false;
let last: GraphReport | undefined;
let waiting: ((report: GraphReport) => void)[] = [];

function build(): void {
  const table = opened as GraphTable;
  table.work(SLICE);
  if (table.busy) setImmediate(build);
  else {
    building = false;
    finish(table);
  }
}

function finish(table: GraphTable): void {
  last = table.report();
  port?.postMessage({ event: last });
  for (const resolve of waiting) resolve(last);
  waiting = [];
}

/** Goes on building where there is something to build. */
function goOn(table: GraphTable): void {
  if (building) return;
  if (table.busy) {
    building = true;
    last = undefined;
    setImmediate(build);
  } else if (table.complete && last?.rows !== table.count) finish(table);
}

async function answer(request: Request): Promise<Answers[keyof Answers]> {
  if (request.name === "start") {
    opened = new GraphTable(await loadHnswlib(), workerData as WorkerSetup);
    return undefined;
  }
  const table = opened;
  if (!table) throw internal("the HNSW worker was asked before it was started");
  const found = answerFrom(table, request);
  if (request.name !== "read") goOn(table);
  return await found;
}

function answerFrom(
  table: GraphTable,
  request: Exclude<Request, { name: "start" }>,
): Answers[keyof Answers] | Promise<GraphReport> {
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
    case "ready":
      table.settle();
      if (last && table.complete) return last;
      return new Promise((resolve) => waiting.push(resolve));
  }
}

answerRequests<Request, Answers>(port, answer);
