// What the page shows, as the address says it: every link can be sent, and back and forward work.

const DEFAULTS = { series: [], match: [], where: [], by: "", window: "1h", start: "", end: "", unit: "", band: "percentiles", order: "", utc: false };

export function read(search) {
  const given = new URLSearchParams(search);
  const state = { ...DEFAULTS };
  for (const name of ["series", "match", "where"]) state[name] = given.getAll(name).filter(Boolean);
  for (const name of ["by", "window", "start", "end", "unit", "band", "order"]) state[name] = given.get(name) ?? DEFAULTS[name];
  state.utc = given.get("utc") === "1";
  if (state.start === "") state.end = "";
  return state;
}

export function write(state) {
  const told = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const held = state[name];
    if (Array.isArray(held)) held.forEach((item) => told.append(name, item));
    else if (held === true) told.set(name, "1");
    else if (held !== usual && held !== "" && held !== false && !(name === "window" && state.start)) told.set(name, held);
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

/** The span: a window that ends now, or a range. */
export function span(state) {
  return state.start ? [["start", state.start], ["end", state.end]] : [["window", state.window]];
}

/** The text of the search box as series and patterns. Names may hold commas, so only a line's items are apart: a blank
 *  on both sides of a plus. */
export function choose(text) {
  const items = text.split(" + ").map((item) => item.trim()).filter(Boolean);
  return { series: items.filter((item) => !/[*?]/.test(item)), match: items.filter((item) => /[*?]/.test(item)) };
}

const UNITS = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 };

export function windowMs(state) {
  if (state.start) return Date.parse(state.end) - Date.parse(state.start);
  const match = /^(\d+)([smhdw])$/.exec(state.window);
  return match ? Number(match[1]) * UNITS[match[2]] : 36e5;
}
