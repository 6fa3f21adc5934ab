// Numbers and times as people read them. What is shown short is exact in the title of its element.

const SI = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const SECONDS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
const BYTES = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
const IN_SECONDS = { s: 1, ms: 1e-3, us: 1e-6 };

function short(value, digits = 4, most = 1e15) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= most * 0.99995)) return Number(value.toPrecision(digits)).toExponential().replace("+", "");
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits, useGrouping: false });
}

function scaled(value, scale, digits = 4) {
  const size = Math.abs(value);
  const [factor, name] = scale.find(([from]) => size >= from * 0.99995) ?? scale.at(-1);
  return `${short(value / factor, digits, 1e5)} ${name}`; // beyond the largest unit
}

/** A value of the series, in its unit ("", s, ms, us, B). */
export function value(number, unit = "", digits = 4) {
  if (number === null || number === undefined) return "–";
  if (number === 0) return unit in IN_SECONDS ? "0 s" : unit === "B" ? "0 B" : "0";
  if (unit in IN_SECONDS) return scaled(number * IN_SECONDS[unit], SECONDS, digits);
  if (unit === "B") return Math.abs(number) < 1024 ? `${short(number, digits)} B` : scaled(number, BYTES, digits);
  return count(number, digits);
}

/** A number without a unit: 1.2 M. */
export function count(number, digits = 4) {
  if (number === null || number === undefined) return "–";
  const size = Math.abs(number);
  return size >= 9999.5 && size < 1e15 ? scaled(number, SI, digits) : short(number, digits);
}

/** How many: all digits below a million, in groups of three. */
export function whole(number) {
  return number !== null && number !== undefined && Math.abs(number) < 1e6 ? number.toLocaleString("en").replaceAll(",", "\u202f") : count(number);
}

/** All digits, for a title. */
export function exact(number) {
  return number === null || number === undefined ? "none" : String(number);
}

/** How much more, relative: +12 %. */
export function change(ratio) {
  if (ratio === null || ratio === undefined) return "";
  const percent = ratio * 100;
  const shown = Math.abs(percent) >= 1000 ? count(percent) : Math.abs(percent) < 10 ? percent.toFixed(1) : percent.toFixed(0);
  return `${percent > 0 ? "+" : percent < 0 ? "−" : "±"}${shown.replace("-", "")} %`;
}

const pad = (number, digits = 2) => String(number).padStart(digits, "0");

/** How far local time is ahead of UTC at that moment, in ms; 0 for UTC. */
export function offsetMs(ms, utc) {
  return utc ? 0 : -new Date(ms).getTimezoneOffset() * 60000;
}

function parts(ms, utc) {
  const at = new Date(ms + offsetMs(ms, utc));
  return {
    date: `${at.getUTCFullYear()}-${pad(at.getUTCMonth() + 1)}-${pad(at.getUTCDate())}`,
    minute: `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}`,
    second: `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}:${pad(at.getUTCSeconds())}`,
    midnight: at.getUTCHours() + at.getUTCMinutes() + at.getUTCSeconds() === 0,
  };
}

/** +02:00, or UTC. */
export function zone(ms, utc) {
  const minutes = offsetMs(ms, utc) / 60000;
  if (utc || minutes === 0) return "UTC";
  return `${minutes < 0 ? "−" : "+"}${pad(Math.floor(Math.abs(minutes) / 60))}:${pad(Math.abs(minutes) % 60)}`;
}

/** The whole moment, with its offset. */
export function moment(ms, utc) {
  const { date, second } = parts(ms, utc);
  return `${date} ${second} ${zone(ms, utc)}`;
}

/** A moment on an axis, as short as the step between two allows. */
export function tick(ms, stepMs, utc) {
  const { date, minute, second, midnight } = parts(ms, utc);
  if (stepMs >= 86400000 || midnight) return date.slice(5);
  return stepMs >= 60000 ? minute : second;
}

/** 3 s, 1 min 38 s, 2 h 5 min: how long ago, in the largest unit and the next, rounded down. */
export function ago(ms) {
  const seconds = Math.floor(Math.max(0, ms / 1000));
  if (seconds < 1) return "less than a second";
  const at = SECONDS.findIndex(([length]) => length <= seconds);
  const [length, name] = SECONDS[at];
  const most = `${Math.floor(seconds / length)} ${name}`;
  const [next, nextName] = SECONDS[at + 1];
  const rest = next >= 1 ? Math.floor((seconds % length) / next) : 0;
  return rest ? `${most} ${rest} ${nextName}` : most;
}

/** How exact percentiles are, as an answer says beside them: null where they are exact. */
export function bound(answer) {
  if (!answer?.method) return null;
  const error = answer.relative_error;
  return error === null || error === undefined ? "approximate, from roll-ups" : `approximate to ±${short(error * 100, 2)} %, from roll-ups`;
}
