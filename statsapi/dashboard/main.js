// The page: asks what the address says, shows it, and keeps it fresh while somebody looks.

import { Away, Refused, address, ask, hasKey, useKey } from "./api.js";
import { Course, Histogram } from "./chart.js";
import * as format from "./format.js";
import { stepSeconds } from "./scales.js";
import * as states from "./state.js";
import { fill } from "./table.js";

const STEPS = 120, BINS = 30, GROUPS = 100, NEWEST = 20;
// Of the rounds, one every two seconds: how many to one look at the last steps of the course, at groups, distribution
// and events, and at the span before. A round is one question with percentiles, 1.3 times a plain GET /statistics with
// a million events; with the others' share 1.8 times while events come in.
const COURSE_EVERY = 5, DEAR_EVERY = 15, COMPARE_EVERY = 30;
const PERCENTILES = ["50", "95", "99"];
const TILES = [
  ["count", "events"], ["rate", "events a second"], ["mean", "mean"], ["min", "min"], ["max", "max"],
  ["50", "p50"], ["95", "p95"], ["99", "p99"],
];

const $ = (id) => document.getElementById(id);
const figures = $("figures"), statusLine = $("status");

let state = states.read(location.search);
let steps = [], stepMs = 1000, seen = "", skewMs = 0;
let freshAt = null, waiting = null, rounds = 0, failing = null, loading = 0, stale = false, before = null;

const course = new Course($("chart"), {
  height: 260,
  label: "Mean, band and number of events over time. Arrow keys read each step, Enter zooms in.",
  read: (text) => { $("reading").textContent = text ?? ""; },
  pick: (from, to) => go({ start: new Date(steps[from].from).toISOString(), end: new Date(steps[to].to).toISOString() }),
});
const histogram = new Histogram($("histogram"), {
  height: 220,
  label: "How the values are spread. Arrow keys read each bin.",
  read: (text) => { $("histogram-note").textContent = text ?? spreadNote; },
});
let spreadNote = "";

// -- the address and the controls

function go(change, { replace = false } = {}) {
  state = { ...state, ...change };
  history[replace ? "replaceState" : "pushState"](null, "", states.write(state));
  reflect();
  load();
}

function reflect() {
  $("series").value = [...state.series, ...state.match].join(" + ");
  $("where").value = state.where.join(" ");
  if (state.by && ![...$("by").options].some((option) => option.value === state.by)) $("by").add(new Option(`by ${state.by}`, state.by));
  $("by").value = state.by;
  $("window").querySelector("[value=range]").hidden = !state.start;
  if (!state.start && ![...$("window").options].some((option) => option.value === state.window)) $("window").add(new Option(state.window, state.window));
  $("window").value = state.start ? "range" : state.window;
  $("unit").value = state.unit;
  $("utc").checked = state.utc;
  $("whole").hidden = !state.start;
  document.querySelector(`[name=band][value=${state.band === "range" ? "range" : "percentiles"}]`).checked = true;
  const chosen = [...state.series, ...state.match, ...state.where].join(" ") || "default";
  document.title = `${chosen} · statsapi`;
  $("csv").href = address("statistics/timeline", [...asked(), ["step", `${stepSeconds(states.windowMs(state), STEPS)}s`], ...wanted("count,mean,min,max"), ["format", "csv"]]).href;
}

const asked = () => [...states.selection(state), ...states.span(state)];
const wanted = (stats) => [["stats", stats], ["percentiles", PERCENTILES.join(",")]];

$("question").addEventListener("submit", (event) => event.preventDefault());
$("where").addEventListener("change", () => go({ where: $("where").value.split(/\s+/).filter(Boolean) }));
$("by").addEventListener("change", () => go({ by: $("by").value, order: "" }));
$("window").addEventListener("change", () => go({ window: $("window").value, start: "", end: "" }));
$("unit").addEventListener("change", () => { go({ unit: $("unit").value }, { replace: true }); });
$("utc").addEventListener("change", () => go({ utc: $("utc").checked }, { replace: true }));
for (const radio of document.getElementsByName("band")) radio.addEventListener("change", () => go({ band: radio.value }, { replace: true }));
$("whole").addEventListener("click", () => go({ start: "", end: "" }));
$("live").addEventListener("change", schedule);
addEventListener("popstate", () => { state = states.read(location.search); reflect(); load(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });

$("csv").addEventListener("click", async (event) => {
  if (!hasKey()) return;
  event.preventDefault(); // a link cannot carry the key
  const response = await fetch($("csv").href, { headers: { Authorization: `Bearer ${sessionStorage.getItem("statsapi-key")}` } });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = "statistics.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});

$("curl").addEventListener("click", async () => {
  const url = address("statistics", [...asked(), ...wanted("count,mean,min,max,rate")]).href;
  const key = hasKey() ? "-H \"Authorization: Bearer $STATSAPI_API_KEY\" " : "";
  const line = `curl ${key}'${url.replaceAll("'", "%27")}'`;
  try {
    await navigator.clipboard.writeText(line);
    $("curl").textContent = "Copied";
  } catch {
    prompt("Copy this line:", line);
  }
  setTimeout(() => { $("curl").textContent = "Copy as curl"; }, 2000);
});

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  $("key").value = "";
  load();
});

// -- the search box

let options = [], active = -1, searching = 0;

async function search() {
  const text = $("series").value.split(" + ").at(-1).trim();
  const number = ++searching;
  const pattern = /[*?]/.test(text) ? text : `*${text}*`;
  try {
    const page = await ask("search", "series", [["match", pattern], ["limit", "50"]]);
    if (number !== searching || document.activeElement !== $("series")) return;
    options = page.series;
  } catch {
    options = [];
  }
  active = -1;
  $("found").replaceChildren(...options.map((one, at) => {
    const line = document.createElement("li");
    line.id = `found-${at}`;
    line.role = "option";
    line.setAttribute("aria-selected", "false");
    const count = document.createElement("span");
    count.textContent = format.count(one.count);
    line.append(one.name, count);
    line.addEventListener("pointerdown", (event) => { event.preventDefault(); take(at); });
    return line;
  }));
  openFound(options.length > 0);
}

function openFound(open) {
  $("found").hidden = !open;
  $("series").setAttribute("aria-expanded", String(open));
  if (!open) $("series").removeAttribute("aria-activedescendant");
}

function take(at) {
  const before = $("series").value.split(" + ").slice(0, -1);
  $("series").value = [...before, options[at].name].join(" + ");
  submitSeries();
}

function submitSeries() {
  openFound(false);
  const chosen = states.choose($("series").value);
  if (JSON.stringify(chosen) !== JSON.stringify({ series: state.series, match: state.match })) go(chosen);
}

$("series").addEventListener("input", search);
$("series").addEventListener("focus", () => { $("series").select(); search(); });
$("series").addEventListener("blur", () => { openFound(false); submitSeries(); });
$("series").addEventListener("keydown", (event) => {
  const lines = [...$("found").children];
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && lines.length) {
    event.preventDefault();
    active = (active + (event.key === "ArrowDown" ? 1 : -1) + lines.length) % lines.length;
    lines.forEach((line, at) => line.setAttribute("aria-selected", String(at === active)));
    lines[active].scrollIntoView({ block: "nearest" });
    openFound(true);
    $("series").setAttribute("aria-activedescendant", lines[active].id);
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (active >= 0 && !$("found").hidden) take(active);
    else submitSeries();
  } else if (event.key === "Escape") openFound(false);
});

// -- asking

const figuresAsked = () => [...asked(), ...wanted("count,mean,min,max,rate")];

function serverNow() {
  return Date.now() + skewMs;
}

async function load() {
  const number = ++loading;
  clearTimeout(waiting);
  before = null;
  figures.setAttribute("aria-busy", "true");
  if (freshAt === null) say("Asking …");
  try {
    const supposedMs = skewMs;
    const figuresTold = ask("figures", "statistics", [...figuresAsked(), ["compare", "previous"]]).then((answer) => {
      if (number === loading) took(answer);
      return answer;
    });
    const [answer] = await Promise.all([figuresTold, loadCourse(), loadSpread(), loadGroups(), loadNewest(), loadTags()]);
    if (number !== loading) return;
    // The course was asked for by this machine's clock: once more where the server's is another.
    if (Math.abs(skewMs - supposedMs) > Math.max(stepMs, 2000)) await loadCourse();
    notice(answer.count ? null : "empty");
    fresh();
  } catch (error) {
    if (number === loading) failed(error);
  } finally {
    if (number === loading) {
      figures.removeAttribute("aria-busy");
      schedule();
    }
  }
}

/** The figures of one answer; whether they changed since the last. */
function took(answer) {
  if (!state.start) skewMs = Date.parse(answer.from) + states.windowMs(state) - Date.now();
  const { from, to, previous, change, ...told } = answer;
  if (previous !== undefined) before = previous;
  const now = JSON.stringify(told);
  const changed = now !== seen;
  seen = now;
  showTiles(answer);
  return changed;
}

async function loadCourse() {
  const spanMs = states.windowMs(state);
  stepMs = stepSeconds(spanMs, STEPS) * 1000;
  const from = state.start ? Date.parse(state.start) : Math.floor((serverNow() - spanMs) / stepMs) * stepMs;
  const end = state.start ? [["end", state.end]] : [];
  const answer = await ask("course", "statistics/timeline", [...states.selection(state), ["start", new Date(from).toISOString()], ...end, ["step", `${stepMs / 1000}s`], ...wanted("count,mean,min,max")]);
  steps = answer.steps.map(stepOf);
  showCourse();
}

function stepOf(step) {
  const from = Date.parse(step.from);
  return {
    from, to: step.to === null ? from + stepMs : Math.max(Date.parse(step.to), from + 1), count: step.count, mean: step.mean,
    min: step.min, max: step.max, p50: step.percentiles["50"], p99: step.percentiles["99"],
  };
}

/** The steps since the last whole one, in the place of those held. */
async function loadTail() {
  if (!steps.length) return loadCourse();
  const from = steps.at(-1).from;
  if (serverNow() - from > 20 * stepMs) return loadCourse();
  const answer = await ask("course", "statistics/timeline", [...states.selection(state), ["start", new Date(from).toISOString()], ["step", `${stepMs / 1000}s`], ...wanted("count,mean,min,max")]);
  const tail = answer.steps.map(stepOf);
  const earliest = serverNow() - states.windowMs(state) - stepMs;
  steps = [...steps.slice(0, -1), ...tail].filter((step) => step.from >= earliest);
  showCourse();
}

async function loadSpread() {
  let answer;
  try {
    answer = await ask("spread", "statistics/histogram", [...asked(), ["bins", String(BINS)]]);
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    $("spread").hidden = true;
    return;
  }
  $("spread").hidden = false;
  showSpread(answer);
}

async function loadGroups() {
  $("groups").hidden = !state.by;
  if (!state.by) return;
  const order = state.order || "-count";
  const answer = await ask("groups", "statistics", [...asked(), ...wanted("count,mean,min,max,rate"), ["by", state.by], ["order", order], ["limit", String(GROUPS)]]);
  showGroups(answer, order);
}

async function loadTags() {
  try {
    const { tags } = await ask("tags", "tags", states.selection(state).filter(([name]) => name !== "series"));
    const known = new Set([...$("by").options].map((option) => option.value));
    for (const tag of tags) if (!known.has(tag.key)) $("by").add(new Option(`by ${tag.key}`, tag.key));
    $("by").value = state.by;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
}

async function loadNewest() {
  const one = !state.match.length && !state.where.length && state.series.length <= 1;
  if (!one) {
    fill($("events"), "", [], []);
    fill($("late"), "", [], []);
    $("newest-note").textContent = "Choose one series to see its newest events.";
    $("late-note").textContent = "Late arrivals are told for one series.";
    return;
  }
  const series = state.series.map((name) => ["series", name]);
  try {
    const [held, late] = await Promise.all([
      ask("newest", "debug/events", [...series, ["limit", String(NEWEST)]]),
      ask("late", "debug/events", [...series, ["late", "true"], ["limit", String(NEWEST)]]),
    ]);
    showEvents(held, late);
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    fill($("events"), "", [], []);
    fill($("late"), "", [], []);
    $("newest-note").textContent = error.status === 403 ? "This needs a key with the scope admin." : error.status === 404 ? "Single events are not shown here (STATSAPI_DEBUG_ENDPOINT is off)." : error.message;
    $("late-note").textContent = "";
  }
}

// -- keeping fresh

function schedule() {
  clearTimeout(waiting);
  const passed = state.start && Date.parse(state.end) < serverNow() && !failing;
  if (!$("live").checked || document.hidden || passed) return;
  const spanMs = states.windowMs(state);
  waiting = setTimeout(tick, failing ? 3000 : spanMs <= 6 * 36e5 ? 2000 : 10000);
}

/** One small question; the rest only where the figures changed, and the dear parts only now and then. */
async function tick() {
  clearTimeout(waiting);
  if (document.hidden || figures.getAttribute("aria-busy")) return;
  if (failing) return load();
  const number = loading;
  try {
    rounds += 1;
    const comparing = rounds % COMPARE_EVERY === 0 ? [["compare", "previous"]] : [];
    const answer = await ask("figures", "statistics", [...figuresAsked(), ...comparing]);
    if (number !== loading) return;
    if (took(answer)) stale = true;
    if (stale && (rounds % COURSE_EVERY === 0 || steps.length < 2)) await (state.start ? loadCourse() : loadTail());
    if (stale && rounds % DEAR_EVERY === 0) {
      await Promise.all([loadSpread(), loadGroups(), loadNewest()]);
      stale = false;
    }
    notice(answer.count ? null : "empty");
    fresh();
  } catch (error) {
    if (number === loading) failed(error);
  }
  if (number === loading) schedule();
}

function fresh() {
  failing = null;
  freshAt = Date.now();
  figures.classList.remove("old");
  statusLine.classList.remove("bad");
  say("");
}

function failed(error) {
  if (error.name === "AbortError") return;
  failing = error;
  if (error instanceof Away) {
    if (freshAt === null) notice("away", error.message);
    figures.classList.add("old");
  } else if (error instanceof Refused) notice(error.status === 401 ? "locked" : "refused", error.message);
  else {
    notice("broken", error.message);
    console.error(error);
  }
  say("");
}

function say(text) {
  if (!text && failing instanceof Away) {
    const old = freshAt === null ? "" : ` What is shown is ${format.ago(Date.now() - freshAt)} old.`;
    text = `${failing.message}${old} Trying again.`;
    statusLine.classList.add("bad");
  } else if (!text && freshAt !== null) {
    const at = format.moment(freshAt + skewMs, state.utc);
    text = $("live").checked ? `As of ${at}` : `As of ${at}, not live`;
  }
  if (statusLine.textContent !== text) statusLine.textContent = text;
}
setInterval(() => { if (failing instanceof Away) say(""); }, 1000);

function notice(kind, text = "") {
  const box = $("notice");
  box.hidden = kind === null;
  const shown = kind === null || kind === "empty";
  box.classList.toggle("bad", !shown && kind !== "locked");
  $("unlock").hidden = kind !== "locked";
  if (!shown) for (const id of ["tiles", "course", "spread", "groups", "newest"]) $(id).hidden = true;
  if (shown) for (const id of ["tiles", "course", "newest"]) $(id).hidden = false;
  if (kind === "empty") for (const id of ["course", "spread"]) $(id).hidden = true;
  if (kind === null) return;
  const name = [...state.series, ...state.match].join(", ") || "default";
  const [heading, body] = {
    empty: ["No events in this window", `Nothing of ${name} lies in it. A longer window may show some. To record one:`],
    away: ["The service is away", text],
    locked: ["A key is needed", text],
    refused: ["The service refused this question", text],
    broken: ["This page has a fault", `Reload it, and report it if that does not help: ${text}`],
  }[kind];
  box.querySelector("h2").textContent = heading;
  box.querySelector("p").textContent = body;
  box.querySelector("pre").hidden = kind !== "empty";
  if (kind === "empty") box.querySelector("pre").textContent = recording();
}

/** A line for a shell that records one event of what is shown. */
function recording() {
  const event = { timestamp: `${new Date(serverNow()).toISOString().slice(0, 19)}Z`, value: 1 };
  if (state.series.length) event.series = state.series[0];
  return `curl -H 'Content-Type: application/json' -d '${JSON.stringify(event).replaceAll("'", "\\u0027")}' '${address("event", []).href}'`;
}

// -- showing

/** How much more than in the span before, relative; null where that has no meaning. */
function changeOf(now, then) {
  return Number.isFinite(now) && Number.isFinite(then) && then !== 0 ? (now - then) / Math.abs(then) : null;
}

function numberOf(answer, key) {
  return PERCENTILES.includes(key) ? answer?.percentiles?.[key] : answer?.[key];
}

function showTiles(answer) {
  $("tiles").replaceChildren(...TILES.map(([key, name]) => {
    const tile = document.createElement("div");
    tile.className = "tile";
    const list = document.createElement("dl"), term = document.createElement("dt"), figure = document.createElement("dd"), change = document.createElement("dd");
    term.textContent = name;
    const number = numberOf(answer, key);
    figure.className = "figure";
    figure.id = `tile-${key}`;
    figure.textContent = key === "count" ? format.whole(number) : key === "rate" ? format.count(number) : format.value(number, state.unit);
    figure.title = format.exact(number);
    const then = numberOf(before, key);
    change.className = "before";
    change.textContent = format.change(changeOf(number, then));
    if (change.textContent) change.title = `before: ${format.exact(then)}`;
    list.append(term, figure, change);
    tile.append(list);
    return tile;
  }));
}

function showCourse() {
  const [low, high, bandName] = state.band === "range" ? ["min", "max", "min to max:"] : ["p50", "p99", "p50 to p99:"];
  course.show({ steps: steps.map((step) => ({ ...step, low: step[low], high: step[high] })), unit: state.unit, utc: state.utc, bandName });
  if (!document.querySelector("#course details").open) return;
  showStepTable();
}

function showStepTable() {
  const cell = (number) => ({ text: format.value(number, state.unit), title: format.exact(number) });
  fill($("steps"), `Steps of ${format.ago(stepMs)}`, [
    { name: "from", key: "from" }, { name: "events", key: "count", numeric: true }, { name: "mean", key: "mean", numeric: true },
    { name: "min", key: "min", numeric: true }, { name: "max", key: "max", numeric: true }, { name: "p50", key: "p50", numeric: true }, { name: "p99", key: "p99", numeric: true },
  ], steps.filter((step) => step.count).map((step) => ({
    from: format.moment(step.from, state.utc), count: { text: String(step.count) }, mean: cell(step.mean), min: cell(step.min), max: cell(step.max), p50: cell(step.p50), p99: cell(step.p99),
  })));
}
document.querySelector("#course details").addEventListener("toggle", showStepTable);

let bins = [];

function showSpread(answer) {
  bins = answer.counts.map((count, at) => ({ low: answer.edges[at], high: answer.edges[at + 1], count }));
  spreadNote = answer.method ? "Some of these events have been rolled up: the edges are those of the roll-ups' buckets." : "";
  $("histogram-note").textContent = spreadNote;
  histogram.show({ bins, unit: state.unit });
  showBinTable();
}

function showBinTable() {
  if (!document.querySelector("#spread details").open) return;
  const cell = (number) => ({ text: format.value(number, state.unit), title: format.exact(number) });
  fill($("bins"), "Bins", [{ name: "from", key: "from", numeric: true }, { name: "to", key: "to", numeric: true }, { name: "events", key: "count", numeric: true }],
    bins.map((bin) => ({ from: cell(bin.low), to: cell(bin.high), count: String(bin.count) })));
}
document.querySelector("#spread details").addEventListener("toggle", showBinTable);

function showGroups(answer, order) {
  const name = (group) => (state.by === "series" ? group.series : group.tag?.[state.by]) ?? "(without)";
  const cell = (number) => ({ text: format.value(number, state.unit), title: format.exact(number) });
  const rows = answer.groups.map((group) => ({
    name: name(group), count: { text: format.whole(group.count), title: format.exact(group.count) }, rate: { text: format.count(group.rate), title: format.exact(group.rate) },
    mean: cell(group.mean), min: cell(group.min), max: cell(group.max), p50: cell(group.percentiles["50"]), p95: cell(group.percentiles["95"]), p99: cell(group.percentiles["99"]), group,
  }));
  $("groups-note").textContent = answer.groups_total > rows.length ? `${rows.length} of ${answer.groups_total} groups, by ${order.replace(/^-/, "")}` : "";
  const columns = [["count", "events"], ["rate", "a second"], ["mean", "mean"], ["min", "min"], ["max", "max"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"]];
  fill($("group-rows"), `${answer.groups_total} groups of ${answer.matched} series`, [
    { name: state.by, key: "name", sort: state.by === "series" ? "series" : undefined }, ...columns.map(([key, title]) => ({ name: title, key, numeric: true, sort: key })),
  ], rows, {
    sorted: { key: order.replace(/^-/, ""), descending: order.startsWith("-") },
    // By the order that is asked for, not by the one that is shown: an answer may still be under way.
    onSort: (key) => go({ order: (state.order || "-count") === `-${key}` ? key : `-${key}` }, { replace: true }),
    onRow: ({ group }) => (state.by === "series" ? go({ series: [group.series], match: [], where: [], by: "" }) : group.tag?.[state.by] && go({ where: [...state.where, `${state.by}=${group.tag[state.by]}`], by: "" })),
  });
}

function showEvents(held, late) {
  const now = Date.parse(held.current_time);
  const rows = (found) => found.events.map((event) => ({
    at: { text: format.moment(Date.parse(event.timestamp), state.utc), title: event.timestamp },
    age: format.ago(Math.abs(now - Date.parse(event.timestamp))) + (Date.parse(event.timestamp) > now ? " ahead" : " ago"),
    value: { text: format.value(event.value, state.unit), title: format.exact(event.value) },
    shows: event.is_recent ? "yes" : "no, it is older",
  }));
  const columns = [{ name: "time", key: "at" }, { name: "age", key: "age" }, { name: "value", key: "value", numeric: true }, { name: "in the default window", key: "shows" }];
  const newest = rows(held);
  fill($("events"), `${newest.length} of ${held.total_events} held`, columns, newest);
  $("newest-note").textContent = newest.length ? "" : "None are held.";
  const arrived = rows(late);
  fill($("late"), arrived.length ? `${arrived.length} of ${late.total_events} remembered` : "", arrived.length ? columns.slice(0, 3) : [], arrived);
  $("late-note").textContent = arrived.length ? "These were older than everything kept when they came, and count nowhere." : "No event of this series came too late. An event that does not show lies outside the window, or in another series.";
}

reflect();
load();
