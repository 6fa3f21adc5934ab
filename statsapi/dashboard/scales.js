// Scales of a chart: numbers in, numbers out. Nothing here knows the page.

/** A function that maps [from0, from1] to [to0, to1]. A span without length maps to the middle. */
export function linear(from0, from1, to0, to1) {
  const length = from1 - from0;
  if (!(Math.abs(length) > 0)) return () => (to0 + to1) / 2;
  return (value) => to0 + ((value - from0) / length) * (to1 - to0);
}

/** The smallest and largest finite number; null without any. */
export function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** About `count` round numbers that cover [low, high]: steps of 1, 2 or 5 times a power of ten, of at least `least`. */
export function ticks(low, high, count, least = 0) {
  if (!(high > low)) {
    const around = Math.abs(low) || 1;
    low -= around / 2;
    high += around / 2;
  }
  const raw = Math.max((high - low) / Math.max(1, count), least);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= raw * 0.999999);
  if (!(step > 0) || !Number.isFinite(step)) return [low, high];
  const found = [];
  // By whole multiples: adding a step up would collect errors, and 0 would not be 0.
  for (let n = Math.floor(low / step + 1e-9); found.length < 50; n += 1) {
    found.push(step >= 1 ? n * step : Number((n * step).toPrecision(15)));
    if (n * step >= high - step * 1e-9) break;
  }
  return found;
}

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const STEPS = [
  SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND,
  MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY,
];

/** At most `count` round moments in [from, to] (ms since 1970), round by a clock that is `offset` ms ahead of UTC. */
export function timeTicks(from, to, count, offset) {
  const step = STEPS.find((size) => (to - from) / size <= count) ?? STEPS.at(-1);
  const found = [];
  for (let at = Math.ceil((from + offset) / step) * step - offset; at <= to && found.length < 100; at += step) found.push(at);
  return found;
}

/** How long a step of a chart is, in seconds: of about `count` in a span of this many ms, a length that clocks show. */
export function stepSeconds(spanMs, count) {
  const step = STEPS.find((size) => spanMs / size <= count) ?? Math.ceil(spanMs / count / DAY) * DAY;
  return Math.max(1, step / 1000);
}
