/** As much of a Qdrant server as @langchain/qdrant 1.0.3 calls, on loopback. No filters: what it doesn't know is a 400. */
import { createServer } from "node:http";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** @returns the URL, what was asked of it (method and path) and a function that ends it */
export async function startQdrantStub() {
  const collections = new Map();
  const requests = [];
  const answer = (method, path, body) => {
    if (path === "/") return { title: "qdrant", version: "1.18.0" };
    if (path === "/collections") return { collections: [...collections.keys()].map((name) => ({ name })) };
    const [, , name, ...rest] = path.split("/");
    const what = `${method} ${rest.join("/")}`;
    if (what === "PUT ") {
      const { size, distance } = body.vectors;
      if (!Number.isSafeInteger(size) || distance !== "Cosine") throw new Error("bad vectors");
      collections.set(name, { size, points: new Map() });
      return true;
    }
    const collection = collections.get(name);
    if (!collection) throw new Error(`no collection ${name}`);
    const check = (vector) => {
      const sound = Array.isArray(vector) && vector.length === collection.size && vector.every(Number.isFinite);
      if (!sound) throw new Error(`expected ${collection.size} numbers, got ${JSON.stringify(vector)?.slice(0, 80)}`);
    };
    if (what === "PUT points") {
      for (const { id, vector, payload } of body.points) {
        if (!UUID.test(id)) throw new Error(`${id} is not a valid point ID`);
        check(vector);
        collection.points.set(id, { vector, payload });
      }
      return { operation_id: 1, status: "completed" };
    }
    if (what === "POST points/query") {
      check(body.query);
      if (body.filter) throw new Error("this stub knows no filters");
      const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
      const points = [...collection.points].map(([id, { vector, payload }]) => {
        return { id, version: 1, payload, score: cosine(body.query, vector) };
      });
      return { points: points.sort((a, b) => b.score - a.score).slice(0, body.limit) };
    }
    throw new Error(`this stub doesn't know ${what}`);
  };
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { pathname } = new URL(request.url, "http://localhost");
    requests.push(`${request.method} ${pathname}`);
    const send = (status, body) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    };
    try {
      const result = answer(request.method, pathname, text === "" ? undefined : JSON.parse(text));
      send(200, pathname === "/" ? result : { result, status: "ok", time: 0 });
    } catch (error) {
      send(400, { status: { error: error.message }, time: 0 });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, requests, close };
}

function dot(a, b) {
  return a.reduce((sum, x, i) => sum + x * b[i], 0);
}
