// The page: asks what the address says, shows it, and keeps it fresh while somebody looks.

import { Away, Refused, address, age, ask, download, hasKey, serverNow, useKey } from "./api.js";
import { Course, Histogram } from "./chart.js";
import * as format from "./format.js";
import { stepSeconds } from "./scales.js";
import * as states from "./state.js";
import { fill } from "./table.js";

const STEPS = 120, BINS = 30, GROUPS = 100, NEWEST = 20;
const NAME_MAX = 200; // characters of a name, and of a pattern
const NAMES_MAX = 50; // names in one address
// Of the rounds, one every two seconds: how many to one look at the last steps of the course (about one for each step),
// at groups, distribution and events, and at the span before. A round is one question with percentiles, 1.9 times a plain
// GET /statistics with a million events while events come in; with the others' share 2.2 times (5, 15 and 30: 2.6).
const ROUND_MS = 2000, COURSE_EVERY = { least: 5, most: 15 }, DEAR_EVERY = 30, COMPARE_EVERY = 30;
const PERCENTILES = ["50", "95", "99"];
const TILES = [
  ["count", "events"], ["rate", "events a second"], ["mean", "mean"], ["min", "min"], ["max", "max"],
  ["50", "p50"], ["95", "p95"], ["99", "p99"],
];

const $ = (id) => document.getElementById(id);
const figures = $("figures"), statusLine = $("status");

const windows = [...$("window").options].filter((option) => option.value !== "range");

let state = states.read(location.search);
// What is shown: the answer's span (in ms; end null while it goes on), its steps, and which question it answers.
let spanned = null, steps = [], stepMs = 1000, seen = "", shownFor = null, shownEmpty = false, before = null;
let freshAt = null, staleMs = 0, waiting = null, rounds = 0, failing = null, notBefore = 0, stale = false;
// loading: the number of the newest load. busy: that of the load or round under way, of which there is one at a time.
let loading = 0, busy = 0;
// Since when the question under way has been; one that takes longer than LATE_MS is told of.
let askedAt = null;
const LATE_MS = 5000;
const lateMs = () => (askedAt !== null && Date.now() - askedAt > LATE_MS ? Date.now() - askedAt : 0);
// Whether the service refuses to show single events: it is asked again at the next load only.
let eventsRefused = false;
// What is kept, in ms: null while unknown. Longer windows are not offered.
let keptMs = null, offered = false;

const course = new Course($("chart"), {
  height: 260,
  label: "Mean, band and number of events over time. Arrow keys read each step, Enter zooms in.",
  read: (text) => { $("reading").textContent = text ?? ""; },
  pick: (from, to) => go({ start: new Date(steps[from].from).toISOString(), end: new Date(steps[to].to).toISOString() }),
});
const histogram = new Histogram($("histogram"), {
  height: 250,
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
  const isRange = states.ranged(state);
  $("window").querySelector("[value=range]").hidden = !isRange;
  if (!isRange && ![...$("window").options].some((option) => option.value === state.window)) $("window").add(new Option(state.window, state.window));
  $("window").value = isRange ? "range" : state.window;
  $("unit").value = state.unit;
  $("utc").checked = state.utc;
  $("whole").hidden = !isRange;
  document.querySelector(`[name=band][value=${state.band === "range" ? "range" : "percentiles"}]`).checked = true;
  const chosen = [...state.series, ...state.match, ...state.where].join(" ") || "default";
  document.title = `${chosen} · statsapi`;
  $("csv").href = address("statistics/timeline", courseAsked()).href;
}

const asked = () => [...states.selection(state), ...states.span(state)];
const courseAsked = () => [...asked(), ["step", `${stepSeconds(spanned ? spanMs() : 36e5, STEPS)}s`], ["align", "true"], ...wanted("count,mean,min,max"), ["format", "csv"]];
const wanted = (stats) => [["stats", stats], ["percentiles", PERCENTILES.join(",")]];

$("question").addEventListener("submit", (event) => event.preventDefault());
$("where").addEventListener("change", () => { if ($("where").value !== state.where.join(" ")) go({ where: states.conditions($("where").value) }); });
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
  event.preventDefault(); // a link cannot carry the key, and would save a refusal as the file
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await download("statistics/timeline", courseAsked()));
    link.download = "statistics.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) failed(error);
    else if (error.name !== "AbortError") say(`No CSV: ${error.message}`);
  }
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
  offered = false;
  load();
});

// -- the search box

// options: {name, count, from}: a pick takes the place of the box's text from there on.
let options = [], active = -1, searching = 0;

/** What a text may be a part of, as parameters of the list of series; null where no name is that long. */
function fitting(text) {
  if (/[*?]/.test(text)) return [["match", text]];
  const length = [...text].length;
  return length > NAME_MAX ? null : length > NAME_MAX - 2 ? [["prefix", text]] : [["match", `*${text}*`]];
}

async function search() {
  const text = $("series").value;
  const number = ++searching;
  // The whole, as a name may hold what stands between items; and the last of them.
  const starts = [...new Set([0, text.lastIndexOf(" + ") < 0 ? 0 : text.lastIndexOf(" + ") + 3])];
  let found = [];
  try {
    for (const from of starts) {
      const parameters = fitting(text.slice(from).trim());
      if (!parameters) continue;
      const page = await ask("search", "series", [...parameters, ["limit", "50"]]);
      if (number !== searching) return;
      const known = new Set(found.map((one) => one.name));
      found.push(...page.series.filter((one) => !known.has(one.name)).map(({ name, count }) => ({ name, count, from })));
    }
  } catch {
    found = [];
  }
  if (number !== searching || document.activeElement !== $("series")) return;
  options = found;
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

/** What is picked is a name, never a pattern, whatever it holds. */
function take(at) {
  const { name, from } = options[at];
  $("series").value = $("series").value.slice(0, from) + name;
  submitSeries([name]);
}

function submitSeries(picked = []) {
  openFound(false);
  searching += 1; // an answer that is still under way must not open it again
  const chosen = states.choose($("series").value, [...picked, ...state.series], state.match);
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
  } else if (event.key === "Escape" || event.key === "Tab") openFound(false); // Tab: a list that scrolls would take the focus, and hide
});

// -- asking

/** Whether one series is chosen by its name, or by saying nothing. */
const isOne = () => !state.match.length && !state.where.length && state.series.length < 2;
const figuresAsked = () => [...asked(), ...wanted("count,mean,min,max,rate")];

class Superseded extends Error {}

/** One question of the load or round `number`. A newer load ends it. */
async function question(number, path, parameters) {
  if (number !== loading) throw new Superseded();
  askedAt = Date.now();
  try {
    const answer = await ask("refresh", path, parameters);
    if (number !== loading) throw new Superseded();
    return answer;
  } finally {
    if (number === loading) askedAt = null;
  }
}

/** One question after the other: the figures and their course first, which is what people look at first. */
async function load() {
  const number = busy = ++loading;
  clearTimeout(waiting);
  before = null;
  eventsRefused = false;
  figures.setAttribute("aria-busy", "true");
  if (freshAt === null) say("Asking …");
  try {
    const answer = await question(number, "statistics", [...figuresAsked(), ["compare", "previous"]]);
    took(answer);
    shownEmpty = !answer.count;
    if (shownEmpty) {
      steps = [];
      await explainEmpty(number);
    } else {
      notice(null);
      fresh();
      await loadCourse(number);
      await loadSpread(number);
    }
    fresh();
    await loadGroups(number);
    await offerWindows(number).catch(onlyHere);
    await loadNewest(number);
    await loadTags(number);
  } catch (error) {
    if (number === loading) failed(error);
  } finally {
    ended(number, true);
  }
}

function ended(number, loaded) {
  if (number !== loading) return;
  busy = 0;
  if (loaded) figures.removeAttribute("aria-busy");
  schedule();
}

/** The figures of one answer; whether they changed since the last. */
function took(answer) {
  freshAt = Date.now() - age();
  staleMs = age();
  spanned = { start: answer.from, end: answer.to, from: Date.parse(answer.from), to: answer.to === null ? null : Date.parse(answer.to) };
  shownFor = JSON.stringify(asked());
  const { from, to, previous, change, reasons, ...told } = answer;
  if (previous !== undefined) before = previous;
  const now = JSON.stringify(told);
  const changed = now !== seen;
  seen = now;
  showTiles(answer);
  $("csv").href = address("statistics/timeline", courseAsked()).href;
  return changed;
}

/** How long the span is that is shown. */
const spanMs = () => Math.max(1, (spanned.to ?? serverNow()) - spanned.from);

/** A part beside the figures: what the service refuses of it alone is told in its place and hides nothing else. */
function onlyHere(error) {
  if (!(error instanceof Refused) || error.status === 401) throw error;
  return error.message;
}

const courseOf = (number, start, end) => question(number, "statistics/timeline", [
  ...states.selection(state), ["start", start], ...(end === null ? [] : [["end", end]]), ["step", `${stepMs / 1000}s`], ["align", "true"], ...wanted("count,mean,min,max"),
]);

async function loadCourse(number) {
  stepMs = stepSeconds(spanMs(), STEPS) * 1000;
  // A window's steps lie between round moments; so the first begins before it, which may be before all that is kept.
  // As far back as the span before, which was answered, it is not.
  const round = Math.floor(spanned.from / stepMs) * stepMs;
  const start = states.ranged(state) || !(Date.parse(before?.from) <= round) ? spanned.start : new Date(round).toISOString();
  try {
    const answer = await courseOf(number, start, spanned.end);
    steps = answer.steps.map(stepOf);
    $("course-note").textContent = "";
  } catch (error) {
    steps = [];
    $("course-note").textContent = onlyHere(error);
  }
  showCourse();
}

function stepOf(step) {
  const from = Date.parse(step.from);
  return {
    from, to: step.to === null ? from + stepMs : Math.max(Date.parse(step.to), from + 1), count: step.count, mean: step.mean,
    min: step.min, max: step.max, p50: step.percentiles["50"], p99: step.percentiles["99"], bound: format.bound(step),
  };
}

/** The steps since the last whole one, in the place of those held. */
async function loadTail(number) {
  const from = steps.at(-1)?.from;
  if (states.ranged(state) || from === undefined || serverNow() - from > 20 * stepMs) return loadCourse(number);
  try {
    const answer = await courseOf(number, new Date(from).toISOString(), null);
    const earliest = spanned.from - stepMs;
    steps = [...steps.slice(0, -1), ...answer.steps.map(stepOf)].filter((step) => step.from > earliest);
  } catch (error) {
    $("course-note").textContent = onlyHere(error);
  }
  showCourse();
}

async function loadSpread(number) {
  $("spread").hidden = false;
  try {
    showSpread(await question(number, "statistics/histogram", [...asked(), ["bins", String(BINS)]]));
  } catch (error) {
    showSpread({ counts: [], edges: [] }, onlyHere(error));
  }
}

async function loadGroups(number) {
  $("groups").hidden = !state.by;
  if (!state.by) return;
  const order = state.order || "-count";
  try {
    showGroups(await question(number, "statistics", [...figuresAsked(), ["by", state.by], ["order", order], ["limit", String(GROUPS)]]), order);
  } catch (error) {
    fill($("group-rows"), "", [], []);
    $("groups-note").textContent = onlyHere(error);
  }
}

async function loadTags(number) {
  try {
    const { tags } = await question(number, "tags", states.selection(state).filter(([name]) => name !== "series"));
    const known = new Set([...$("by").options].map((option) => option.value));
    for (const tag of tags) if (!known.has(tag.key)) $("by").add(new Option(`by ${tag.key}`, tag.key));
    $("by").value = state.by;
  } catch (error) {
    onlyHere(error);
  }
}

/** Which windows the service can answer: it says in an answer why it cannot compare with that long ago, where a plain
 *  question would be refused. Once, as only its settings change it. */
async function offerWindows(number) {
  if (offered) return;
  let why = "";
  keptMs = null;
  for (const option of windows.toReversed()) {
    option.dataset.name ??= option.textContent;
    let refused = "";
    if (!offered) {
      const answer = await question(number, "statistics", [["window", "1s"], ["stats", "count"], ["compare", option.value]]);
      refused = answer.previous ? "" : answer.reasons?.previous ?? "";
      why ||= refused;
      offered = !refused;
    }
    option.disabled = Boolean(refused);
    option.textContent = refused ? `${option.dataset.name} (not kept)` : option.dataset.name;
    option.title = refused;
  }
  offered = true;
  const since = Date.parse(/now since (\S+)/.exec(why)?.[1]);
  if (Number.isFinite(since)) keptMs = serverNow() - since;
}

async function loadNewest(number) {
  if (eventsRefused) return;
  if (!isOne()) {
    fill($("events"), "", [], []);
    fill($("late"), "", [], []);
    $("newest-note").textContent = "Choose one series to see its newest events.";
    $("late-note").textContent = "Late arrivals are told for one series.";
    return;
  }
  const series = state.series.map((name) => ["series", name]);
  try {
    const held = await question(number, "debug/events", [...series, ["limit", String(NEWEST)]]);
    const late = await question(number, "debug/events", [...series, ["late", "true"], ["limit", String(NEWEST)]]);
    showEvents(held, late);
  } catch (error) {
    const message = onlyHere(error);
    eventsRefused = true;
    fill($("events"), "", [], []);
    fill($("late"), "", [], []);
    $("newest-note").textContent = error.status === 403 ? "This needs a key with the scope admin." : error.status === 404 ? "Single events are not shown here (STATSAPI_DEBUG_ENDPOINT is off)." : message;
    $("late-note").textContent = "";
  }
}

// -- keeping fresh

/** Whether what is shown can still change: a range that has passed cannot, unless its edges move with the clock. */
function moves() {
  return !states.ranged(state) || !spanned || spanned.to === null || spanned.to > serverNow() || /now/i.test(state.start + state.end);
}

function schedule() {
  clearTimeout(waiting);
  if (!$("live").checked || document.hidden || !(failing || moves())) return;
  // What was refused will be again, unless somebody mends the service or its keys.
  const paceMs = failing ? (failing instanceof Away ? failing.retryMs : 60000) : !spanned || spanMs() <= 6.1 * 36e5 ? ROUND_MS : 5 * ROUND_MS;
  waiting = setTimeout(tick, Math.max(paceMs, notBefore - Date.now()));
}

const courseEvery = () => Math.min(Math.max(Math.round(stepMs / ROUND_MS), COURSE_EVERY.least), COURSE_EVERY.most);

/** One small question; the rest only where the figures changed, and the dear parts only now and then. */
async function tick() {
  clearTimeout(waiting);
  if (document.hidden || busy === loading) return;
  if (Date.now() < notBefore) return schedule();
  if (failing) return load();
  const number = busy = loading;
  try {
    rounds += 1;
    const comparing = rounds % COMPARE_EVERY === 0 ? [["compare", "previous"]] : [];
    const answer = await question(number, "statistics", [...figuresAsked(), ...comparing]);
    if (took(answer)) stale = true;
    if (shownEmpty !== !answer.count) return void load();
    fresh();
    if (shownEmpty) return rounds % DEAR_EVERY ? undefined : void load();
    if (stale && (rounds % courseEvery() === 0 || steps.length < 2)) await loadTail(number);
    if (stale && rounds % DEAR_EVERY === 0) {
      await loadSpread(number);
      await loadGroups(number);
      await loadNewest(number);
      stale = false;
    }
  } catch (error) {
    if (number === loading) failed(error);
  } finally {
    ended(number, false);
  }
}

function fresh() {
  failing = null;
  notBefore = 0;
  figures.classList.remove("old");
  statusLine.classList.remove("bad");
  say("");
}

function failed(error) {
  if (error.name === "AbortError" || error instanceof Superseded) return;
  failing = error;
  if (error instanceof Away) {
    notBefore = Date.now() + error.retryMs;
    offered = false; // it may come back with other settings
    // Figures of another question would be taken for those of this one.
    if (shownFor !== JSON.stringify(asked())) notice("away", error.message);
    else figures.classList.add("old");
  } else if (error instanceof Refused) notice(error.status === 401 || error.status === 403 ? "locked" : "refused", error.message);
  else {
    notice("broken", error.message);
    console.error(error);
  }
  say("");
}

function say(text) {
  if (!text && failing instanceof Away) {
    const old = freshAt === null || shownFor !== JSON.stringify(asked()) ? "" : ` What is shown is ${format.ago(Date.now() - freshAt)} old.`;
    const wait = notBefore - Date.now();
    text = `${failing.message}${old} Trying again${wait > 5000 ? ` in ${format.ago(wait)}` : ""}.`;
    statusLine.classList.add("bad");
  } else if (!text && failing) text = "";
  else if (!text && lateMs()) {
    const old = freshAt === null ? "" : ` What is shown is ${format.ago(Date.now() - freshAt)} old.`;
    text = `No answer for ${format.ago(lateMs())}.${old}`;
  }
  else if (!text && freshAt !== null) {
    const at = format.moment(freshAt + serverNow() - Date.now(), state.utc);
    text = `As of ${at}${staleMs ? ": the service cannot reach its journal" : ""}${$("live").checked ? "" : ", not live"}`;
  }
  statusLine.classList.toggle("late", Boolean(lateMs()));
  if (statusLine.textContent !== text) statusLine.textContent = text;
}
setInterval(() => { if (failing instanceof Away || lateMs() || statusLine.classList.contains("late")) say(""); }, 1000);

/** What stands instead of figures, or above them where there are none of events. A refused question shows nothing else. */
function notice(kind, text = "", hints = []) {
  const box = $("notice");
  box.hidden = kind === null;
  const shown = kind === null || kind === "empty" || kind === "unknown";
  box.classList.toggle("bad", !shown && kind !== "locked");
  $("unlock").hidden = kind !== "locked";
  if (!shown) for (const id of ["tiles", "course", "spread", "groups", "newest"]) $(id).hidden = true;
  if (!shown) shownFor = null;
  if (shown) for (const id of ["tiles", "course", "newest"]) $(id).hidden = false;
  if (shown && kind) for (const id of ["course", "spread"]) $(id).hidden = true;
  $("hints").replaceChildren(...hints.map(({ name, chosen }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => go(chosen));
    return button;
  }));
  if (kind === null) return;
  const name = chosenName();
  const one = isOne();
  const [heading, body] = {
    empty: ["No events in this window", text],
    unknown: [!one ? "No such series" : state.series.length ? `No such series: ${name}` : "No events yet", text],
    away: ["The service is away", text],
    locked: [hasKey() ? "Another key is needed" : "A key is needed", text],
    refused: ["The service refused this question", text],
    broken: ["This page has a fault", `Reload it, and report it if that does not help: ${text}`],
  }[kind];
  box.querySelector("h2").textContent = heading;
  box.querySelector("p").textContent = body;
  // Nobody can record into a pattern.
  box.querySelector("pre").hidden = !(shown && one);
  if (shown && one) box.querySelector("pre").textContent = recording();
}

const chosenName = () => [...state.series, ...state.match, ...state.where].join(", ") || "default";

/** Nothing in the window, or no such series at all, and then which ones may be meant. */
async function explainEmpty(number) {
  const series = (parameters) => question(number, "series", [...parameters, ["limit", "5"]]).then((page) => page.series);
  const chosen = states.selection(state);
  const one = isOne();
  try {
    const held = await series(chosen.length ? chosen : [["series", "default"]]);
    if (held.length) {
      const newest = Math.max(...held.map((row) => Date.parse(row.last)));
      const at = held.length < 5 && Number.isFinite(newest) ? ` Its newest event is of ${format.moment(newest, state.utc)}.` : "";
      return notice("empty", `Nothing of ${chosenName()} lies in it.${at} A longer window may show some.${one ? " To record one:" : ""}`);
    }
    const none = `No series that is kept ${one ? "has this name" : "fits"}.`;
    const name = state.series[0];
    if (!one || !name) return notice("unknown", one ? "Nothing is kept in the series default. To record an event:" : none);
    const tagged = name.includes(";") ? [] : await series([["prefix", `${name};`]]);
    const near = tagged.length ? tagged : await series([["prefix", name]]);
    const hints = near.map((row) => ({ name: row.name, chosen: { series: [row.name], match: [] } }));
    if (tagged.length > 1 && !/[*?]/.test(name)) hints.unshift({ name: `${name};*`, chosen: { series: [], match: [`${name};*`] } });
    notice("unknown", `${none} ${tagged.length ? "These have it with tags:" : hints.length ? "These begin like it:" : "To record its first event:"}`, hints);
    $("notice").querySelector("pre").hidden = hints.length > 0;
  } catch (error) {
    notice("empty", `Nothing of ${chosenName()} lies in it. ${onlyHere(error)}`);
  }
}

/** A line for a shell that records one event of what is shown. */
function recording() {
  const event = { timestamp: `${new Date(serverNow()).toISOString().slice(0, 19)}Z`, value: 1 };
  if (state.series.length) event.series = state.series[0];
  const key = hasKey() ? "-H \"Authorization: Bearer $STATSAPI_API_KEY\" " : "";
  return `curl ${key}-H 'Content-Type: application/json' -d '${JSON.stringify(event).replaceAll("'", "\\u0027")}' '${address("event", []).href}'`;
}

// -- showing

/** How much more than in the span before, relative; null where that has no meaning. */
function changeOf(now, then) {
  return Number.isFinite(now) && Number.isFinite(then) && then !== 0 ? (now - then) / Math.abs(then) : null;
}

function numberOf(answer, key) {
  return PERCENTILES.includes(key) ? answer?.percentiles?.[key] : answer?.[key];
}

/** Text for screen readers, of what a title tells those who point. */
function told(text) {
  const made = document.createElement("span");
  made.className = "told";
  made.textContent = text;
  return made;
}

const cellOf = (number, bound = null) => ({
  text: (bound && number !== null ? "≈ " : "") + format.value(number, state.unit), title: format.exact(number) + (bound && number !== null ? `, ${bound}` : ""),
});

function showTiles(answer) {
  $("tiles").replaceChildren(...TILES.map(([key, name]) => {
    const tile = document.createElement("div");
    tile.className = "tile";
    const list = document.createElement("dl"), term = document.createElement("dt"), figure = document.createElement("dd"), change = document.createElement("dd");
    term.textContent = name;
    const number = numberOf(answer, key);
    figure.className = "figure";
    figure.id = `tile-${key}`;
    const bound = PERCENTILES.includes(key) && number !== null ? format.bound(answer) : null;
    figure.textContent = (bound ? "≈ " : "") + (key === "count" ? format.whole(number) : key === "rate" ? format.count(number) : format.value(number, state.unit));
    figure.title = format.exact(number) + (bound ? `, ${bound}` : "");
    const length = figure.textContent.length;
    if (length > 8) figure.classList.add(length > 10 ? "longer" : "long");
    if (bound) term.append(told(`, ${bound}`));
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
  const bound = steps.find((step) => step.bound)?.bound;
  $("course-bound").textContent = bound ? `Percentiles marked ≈ are ${bound}.` : "";
  if (!document.querySelector("#course details").open) return;
  showStepTable();
}

function showStepTable() {
  fill($("steps"), `Steps of ${format.ago(stepMs)}`, [
    { name: "from", key: "from" }, { name: "events", key: "count", numeric: true }, { name: "mean", key: "mean", numeric: true },
    { name: "min", key: "min", numeric: true }, { name: "max", key: "max", numeric: true }, { name: "p50", key: "p50", numeric: true }, { name: "p99", key: "p99", numeric: true },
  ], steps.filter((step) => step.count).map((step) => ({
    from: format.moment(step.from, state.utc), count: { text: String(step.count) }, mean: cellOf(step.mean), min: cellOf(step.min), max: cellOf(step.max),
    p50: cellOf(step.p50, step.bound), p99: cellOf(step.p99, step.bound),
  })));
}
document.querySelector("#course details").addEventListener("toggle", showStepTable);

let bins = [];

function showSpread(answer, refused = "") {
  bins = answer.counts.map((count, at) => ({ low: answer.edges[at], high: answer.edges[at + 1], count }));
  spreadNote = refused ? refused : answer.method ? "Some of these events have been rolled up: the edges are those of the roll-ups' buckets." : "";
  $("histogram-note").textContent = spreadNote;
  histogram.show({ bins, unit: state.unit });
  showBinTable();
}

function showBinTable() {
  if (!document.querySelector("#spread details").open) return;
  fill($("bins"), "Bins", [{ name: "from", key: "from", numeric: true }, { name: "to", key: "to", numeric: true }, { name: "events", key: "count", numeric: true }],
    bins.map((bin) => ({ from: cellOf(bin.low), to: cellOf(bin.high), count: String(bin.count) })));
}
document.querySelector("#spread details").addEventListener("toggle", showBinTable);

function showGroups(answer, order) {
  const name = (group) => state.by === "series" ? group.series : group.tag?.[state.by];
  const rows = answer.groups.map((group) => ({
    name: name(group) ?? "(without)", key: name(group), plain: typeof name(group) !== "string", count: { text: format.whole(group.count), title: format.exact(group.count) }, rate: { text: format.count(group.rate), title: format.exact(group.rate) },
    mean: cellOf(group.mean), min: cellOf(group.min), max: cellOf(group.max), ...Object.fromEntries(PERCENTILES.map((p) => [`p${p}`, cellOf(group.percentiles[p], format.bound(group))])),
  }));
  const bound = answer.groups.map(format.bound).find(Boolean);
  const notes = [answer.groups_total > rows.length && `${rows.length} of ${answer.groups_total} groups, by ${order.replace(/^-/, "")}.`, bound && `Percentiles marked ≈ are ${bound}.`];
  $("groups-note").textContent = notes.filter(Boolean).join(" ");
  const columns = [["count", "events"], ["rate", "a second"], ["mean", "mean"], ["min", "min"], ["max", "max"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"]];
  fill($("group-rows"), `${answer.groups_total} groups of ${answer.matched} series`, [
    { name: state.by, key: "name", sort: state.by === "series" ? "series" : undefined }, ...columns.map(([key, title]) => ({ name: title, key, numeric: true, sort: key })),
  ], rows, {
    sorted: { key: order.replace(/^-/, ""), descending: order.startsWith("-") },
    // By the order that is asked for, not by the one that is shown: an answer may still be under way.
    onSort: (key) => go({ order: (state.order || "-count") === `-${key}` ? key : `-${key}` }, { replace: true }),
    onRow: ({ key }) => pickGroup(key),
  });
}

/** One group alone. The value of a tag that looks like a pattern chooses its series by name, where they fit. */
async function pickGroup(key) {
  if (state.by === "series") return go({ series: [key], match: [], where: [], by: "" });
  if (!/[*?]/.test(key)) return go({ where: [...state.where, `${state.by}=${key}`], by: "" });
  const { by } = state;
  try {
    const where = [["where", `${by}=${key}`], ["limit", "10000"]];
    const page = await ask("search", "series", [...states.selection(state), ...where]);
    const series = page.series.filter((row) => row.tags[by] === key).map((row) => row.name);
    if (page.next === null && series.length <= NAMES_MAX) return go({ series, match: [], where: [], by: "" });
    $("groups-note").textContent = `${by}=${key} is of ${series.length} series, too many to be named in an address, and its value cannot be told from a pattern.`;
  } catch (error) {
    if (error.name !== "AbortError") $("groups-note").textContent = error.message;
  }
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
  fill($("events"), newest.length ? `${newest.length} of ${held.total_events} held` : "", newest.length ? columns : [], newest);
  $("newest-note").textContent = newest.length ? "" : "No raw events of this series are held.";
  // Late is what came after its time as a raw event: it counts in roll-ups, where these reach back to it.
  const arrived = late.events.map((event, at) => {
    const ageMs = now - Date.parse(event.timestamp);
    return { ...rows(late)[at], counts: keptMs === null ? "" : ageMs <= keptMs ? "in longer windows" : "nowhere: nothing is kept of then" };
  });
  const lateColumns = [...columns.slice(0, 3), ...(keptMs === null ? [] : [{ name: "counts", key: "counts" }])];
  fill($("late"), arrived.length ? `${arrived.length} of ${late.total_events} remembered` : "", arrived.length ? lateColumns : [], arrived);
  $("late-note").textContent = arrived.length
    ? "These came late, when raw events of their time were no longer kept. Each counts in windows that reach back to it, while roll-ups of its time are kept."
    : "No late event of this series is remembered. An event that does not show lies outside the window, or in another series.";
}

reflect();
load();
