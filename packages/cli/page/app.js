/** The page of `cde serve`. Whatever comes from documents is written as text, never as HTML. */

const $ = (id) => document.getElementById(id);
const side = { with: { points: [] }, without: { points: [] } };
let map;
let running;
let comparison;
let near;

async function ask(path, body, signal) {
  const response = await fetch(path, {
    ...(body === undefined
      ? {}
      : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
    signal,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ? `${answer.error}: ${answer.detail}` : answer.error);
  return answer;
}

const number = (value) => value.toLocaleString("en-US");
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function say(text, bad = false) {
  const message = $("message");
  message.hidden = text === undefined;
  message.textContent = text ?? "";
  message.classList.toggle("bad", bad);
}

// What is shown beside the query

function showIndex(index) {
  const name = index.directory.split(/[\\/]/).filter(Boolean).at(-1) ?? "index";
  $("corpus").textContent = name;
  document.title = `${name} · cde`;
  const context = index.context
    ? `${index.context.stage} context of ${plural(index.context.size, "passage")}`
    : "no context";
  $("facts").textContent = [
    plural(index.documents, "document"),
    plural(index.passages, "passage"),
    `${index.modelId}, ${index.dimensions} dimensions`,
    context,
  ].join("  ·  ");
  const names = { hybrid: "meaning and words", dense: "meaning", lexical: "words" };
  for (const mode of ["hybrid", "dense", "lexical"].filter((known) => index.modes.includes(known))) {
    const option = element("option", "", names[mode]);
    option.value = mode;
    $("mode").append(option);
  }
  $("with-title").textContent = index.context ? "With context" : "Hits";
  showComparison(index.comparison);
}

function showComparison(state) {
  comparison = state;
  const wanted = $("compare").checked;
  $("compare").disabled = state.state === "unavailable";
  $("compare").parentElement.title = state.state === "unavailable" ? state.reason : "";
  $("comparison").hidden = state.state === "ready" || (!wanted && state.state !== "unavailable");
  $("comparison-start").hidden = !["possible", "failed"].includes(state.state);
  $("comparison-bar").hidden = state.state !== "building";
  const texts = {
    unavailable: () => state.reason,
    possible: () => "The side without context needs the corpus embedded once more, in memory.",
    building: () => `Embedding without context: ${number(state.done)} of ${plural(state.total, "passage")}`,
    failed: () => `That did not work: ${state.reason}`,
    ready: () => "",
  };
  $("comparison-text").textContent = texts[state.state]();
  if (state.state === "building") {
    $("comparison-bar").value = state.total === 0 ? 0 : state.done / state.total;
    setTimeout(poll, 500);
  }
}

async function poll() {
  try {
    const before = comparison.state;
    showComparison((await ask("/api/index")).comparison);
    if (before === "building" && comparison.state === "ready" && $("query").value.trim() !== "") search();
  } catch (error) {
    say(error.message, true);
  }
}

// Searching

function readFilter() {
  const text = $("filter").value.trim();
  if ($("filter-box").hidden || text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The filter is not JSON: ${error.message}`);
  }
}

async function search() {
  const query = $("query").value;
  if (query.trim() === "") return;
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  say();
  $("go").disabled = true;
  try {
    const filter = readFilter();
    const compare = $("compare").checked && comparison?.state === "ready";
    const body = {
      query,
      k: Number($("k").value),
      mode: $("mode").value,
      compare,
      ...(filter === undefined ? {} : { filter }),
    };
    const answer = await ask("/api/search", body, signal);
    const others = answer.without?.hits;
    showSide("with", answer.with, others);
    $("without").hidden = !answer.without;
    if (answer.without) showSide("without", answer.without, answer.with.hits);
    else side.without.points = [];
    drawMap();
  } catch (error) {
    if (!signal.aborted) say(error.message, true);
  } finally {
    if (running?.signal === signal) $("go").disabled = false;
  }
}

const keyOf = (hit) => `${hit.passage.start} ${hit.passage.end} ${hit.id}`;

function showSide(name, { hits, milliseconds }, others) {
  $(`${name}-time`).textContent = `${plural(hits.length, "hit")} in ${milliseconds.toFixed(1)} ms`;
  const list = $(`${name}-hits`);
  const ranks = others && new Map(others.map((hit, i) => [keyOf(hit), i]));
  list.replaceChildren(...hits.map((hit, i) => hitElement(hit, i, ranks?.get(keyOf(hit)), ranks !== undefined, name)));
  if (hits.length === 0) list.append(element("li", "empty", "Nothing matches."));
  side[name].points = hits.map((hit, i) => ({
    point: hit.point,
    name: hit.title ?? hit.id,
    rank: i + 1,
    key: keyOf(hit),
  }));
}

function hitElement(hit, position, other, compared, name) {
  const item = element("li", "hit");
  item.dataset.key = keyOf(hit);
  const heading = element("h3");
  heading.append(element("span", "rank", `${position + 1}`), element("span", "name", hit.title ?? hit.id));
  if (compared) {
    const move = other === undefined ? "new" : other > position ? "up" : other < position ? "down" : "same";
    const label = {
      new: name === "with" ? "only with" : "only without",
      up: `↑ from ${(other ?? 0) + 1}`,
      down: `↓ from ${(other ?? 0) + 1}`,
      same: "same place",
    };
    heading.append(element("span", `move ${move === "new" ? `only-${name}` : move}`, label[move]));
  }
  const parts = [`${hit.scoring} ${hit.score.toFixed(3)}`];
  if (hit.scores.dense !== undefined && hit.scoring !== "cosine") parts.push(`cosine ${hit.scores.dense.toFixed(3)}`);
  if (hit.scores.lexical !== undefined && hit.scoring !== "bm25") parts.push(`bm25 ${hit.scores.lexical.toFixed(2)}`);
  parts.push(
    hit.title === undefined
      ? `${hit.passage.start}–${hit.passage.end}`
      : `${hit.id}, ${hit.passage.start}–${hit.passage.end}`,
  );
  item.append(heading, element("p", "scores", parts.join("  ·  ")), marked(hit));
  if (Object.keys(hit.metadata).length > 0) item.append(element("pre", "", JSON.stringify(hit.metadata)));
  item.addEventListener("click", () => {
    if (String(getSelection()) === "") item.classList.toggle("open");
  });
  item.addEventListener("mouseenter", () => point(item.dataset.key));
  item.addEventListener("mouseleave", () => point(undefined));
  return item;
}

function marked({ text, highlights }) {
  const paragraph = element("p", "text");
  let at = 0;
  for (const { start, end } of highlights) {
    paragraph.append(text.slice(at, start), element("mark", "", text.slice(start, end)));
    at = end;
  }
  paragraph.append(text.slice(at));
  return paragraph;
}

// The map

function point(key) {
  near = key;
  for (const item of document.querySelectorAll(".hit")) item.classList.toggle("near", item.dataset.key === key);
  drawMap();
}

const MARGIN = 14;

function drawMap() {
  if (!map) return;
  const canvas = $("map");
  const size = canvas.clientWidth;
  const scale = devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(size * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const place = ([x, y]) => [MARGIN + x * (size - 2 * MARGIN), size - MARGIN - y * (size - 2 * MARGIN)];
  const radius = map.points.length > 3000 ? 1.1 : map.points.length > 500 ? 1.8 : 2.6;
  pen.fillStyle = colour("point");
  pen.globalAlpha = map.points.length > 3000 ? 0.45 : 0.7;
  for (const entry of map.points) {
    const [x, y] = place(entry);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
  const both = new Set(side.with.points.map(({ key }) => key));
  for (const name of ["without", "with"]) {
    for (const hit of side[name].points.toReversed()) {
      if (!hit.point) continue;
      const [x, y] = place(hit.point);
      const ring = name === "without" && both.has(hit.key);
      pen.beginPath();
      pen.arc(x, y, (ring ? 8.5 : 5.5) + (hit.key === near ? 4 : 0), 0, 7);
      pen.lineWidth = 2;
      pen.strokeStyle = ring ? colour("without") : colour("card");
      pen.fillStyle = colour(name);
      if (!ring) pen.fill();
      pen.stroke();
    }
  }
}

function showTip(event) {
  const tip = $("tip");
  tip.hidden = true;
  if (!map) return;
  const box = $("map").getBoundingClientRect();
  const inner = box.width - 2 * MARGIN;
  const [x, y] = [(event.clientX - box.left - MARGIN) / inner, 1 - (event.clientY - box.top - MARGIN) / inner];
  const reach = 9 / inner;
  let best;
  const look = (px, py, name, bonus) => {
    const distance = Math.hypot(px - x, py - y) - bonus;
    if (distance < reach && (best === undefined || distance < best.distance)) best = { distance, name, px, py };
  };
  for (const [px, py, name] of map.points) look(px, py, map.names[name], 0);
  for (const name of ["with", "without"]) {
    for (const hit of side[name].points) if (hit.point) look(...hit.point, `${hit.rank}. ${hit.name}`, 0.005);
  }
  if (!best) return;
  tip.hidden = false;
  tip.textContent = best.name.length > 140 ? `${best.name.slice(0, 140)}…` : best.name;
  const left = MARGIN + best.px * inner;
  tip.style.left = `${Math.min(Math.max(left, 90), box.width - 90)}px`;
  tip.style.top = `${MARGIN + (1 - best.py) * inner}px`;
}

async function loadMap() {
  try {
    map = await ask("/api/map");
    if (!map) {
      $("map-facts").textContent = "This index has no passages.";
      return;
    }
    const shown = map.points.length < map.passages ? `${number(map.points.length)} of ` : "";
    $("map-facts").textContent =
      `${shown}${plural(map.passages, "passage")} on their two main axes, which hold ${(100 * map.share).toFixed(0)} % of the variance`;
    drawMap();
  } catch (error) {
    $("map-facts").textContent = `The map could not be drawn: ${error.message}`;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
for (const id of ["mode", "k"]) $(id).addEventListener("change", search);
$("compare").addEventListener("change", () => {
  if (comparison) showComparison(comparison);
  if (comparison?.state === "ready") search();
});
$("comparison-start").addEventListener("click", async () => {
  try {
    showComparison(await ask("/api/compare", {}));
  } catch (error) {
    say(error.message, true);
  }
});
$("filter-toggle").addEventListener("click", () => {
  const box = $("filter-box");
  box.hidden = !box.hidden;
  $("filter-toggle").setAttribute("aria-expanded", String(!box.hidden));
  if (!box.hidden) $("filter").focus();
});
$("map").addEventListener("mousemove", showTip);
$("map").addEventListener("mouseleave", () => {
  $("tip").hidden = true;
});
addEventListener("resize", drawMap);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);

try {
  showIndex(await ask("/api/index"));
  await loadMap();
  $("query").focus();
} catch (error) {
  say(error.message, true);
}
