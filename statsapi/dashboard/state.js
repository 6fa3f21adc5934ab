// What the page shows, as the address says it: every link can be sent, and back and forward work.

const DEFAULTS = { series: [], match: [], where: [], by: "", window: "1h", start: "", end: "", unit: "", band: "percentiles", order: "", utc: false };

export function read(search) {
  const given = new URLSearchParams(search);
  const state = { ...DEFAULTS };
  for (const name of ["series", "match", "where"]) state[name] = given.getAll(name).filter(Boolean);
  for (const name of ["by", "window", "start", "end", "unit", "band", "order"]) state[name] = given.get(name) ?? DEFAULTS[name];
  state.utc = given.get("utc") === "1";
  return state;
}

export function write(state) {
  const told = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const held = state[name];
    if (Array.isArray(held)) held.forEach((item) => told.append(name, item));
    else if (held === true) told.set(name, "1");
    else if (held !== usual && held !== "" && held !== false && !(name === "window" && ranged(state))) told.set(name, held);
  }
  const text = told.toString();
  return text ? `?${text}` : location.pathname;
}

/** What chooses the series: the parameters that every question takes. */
export function selection(state) {
  const chosen = [];
  for (const name of ["series", "match", "where"]) for (const item of state[name]) chosen.push([name, item]);
  // Tags alone choose among all series.
  if (state.where.length && !state.series.length && !state.match.length) chosen.unshift(["match", "*"]);
  return chosen;
}

/** Whether it is a range, whatever of it is given: the service says what it makes of that. */
export function ranged(state) {
  return state.start !== "" || state.end !== "";
}

/** The span: a window that ends now, or a range. */
export function span(state) {
  if (!ranged(state)) return [["window", state.window]];
  return ["start", "end"].filter((name) => state[name] !== "").map((name) => [name, state[name]]);
}

/** The text of the search box as series and patterns. Names may hold commas, so only a line's items are apart: a blank
 *  on both sides of a plus. `names` and `patterns` are what was chosen before: they stay that, whatever they hold. */
export function choose(text, names, patterns) {
  const known = [...names, ...patterns].toSorted((a, b) => b.length - a.length);
  const series = [], match = [];
  for (let rest = text.trim(); rest;) {
    const name = known.find((one) => rest === one || rest.startsWith(`${one} + `));
    const end = name === undefined ? rest.indexOf(" + ") : name.length;
    const item = (end < 0 ? rest : rest.slice(0, end)).trim();
    rest = end < 0 ? "" : rest.slice(end + 3).trim();
    if (names.includes(item) || !/[*?]/.test(item)) {
      if (item) series.push(item);
    } else match.push(item);
  }
  return { series: [...new Set(series)], match: [...new Set(match)] };
}

/** The text of the box of tags as its conditions: a value may hold blanks, so one ends where another key= begins. */
export function conditions(text) {
  return text.trim().split(/\s+(?=[^\s=]+=)/).filter(Boolean);
}
