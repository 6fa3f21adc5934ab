// Questions to the service: the key of this tab, one question of a lane at a time, refusals in its own words.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The service answered ${status}.`);
    this.status = status;
  }
}

/** The service cannot answer now. The same question may be asked again after `retryMs`. */
export class Away extends Error {
  constructor(message, retryMs = 3000) {
    super(message);
    this.retryMs = retryMs;
  }
}

// Relative to the page's own address, so that it works under any prefix.
const BASE = new URL("./", location.href);
const KEY = "statsapi-key";
const TIMEOUT_MS = 30000;
// A service that asks for a longer pause is asked again after this long all the same: somebody is looking.
const RETRY_MAX_MS = 300000;

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export function address(path, parameters) {
  const url = new URL(path, BASE);
  for (const [name, value] of parameters) url.searchParams.append(name, value);
  return url;
}

let skewMs = 0, ageMs = 0;

/** The time by the service's clock: this machine's, put right by what its answers are dated. */
export function serverNow() {
  return Date.now() + skewMs;
}

/** How old what the last answer tells is: more than 0 where the service cannot reach its journal and says so. */
export function age() {
  return ageMs;
}

/** A date has whole seconds, and the answer was made between two moments of this machine: only a difference that
 *  these do not explain is one of the clocks. */
function compareClocks(date, sentMs, receivedMs) {
  const toldMs = Date.parse(date);
  if (Number.isFinite(toldMs)) skewMs = Math.min(Math.max(skewMs, toldMs - receivedMs), toldMs + 1000 - sentMs);
}

const asked = new Map();

/** The answer's JSON. A newer question of the same lane ends the older one. Raises Refused, Away, or an AbortError. */
export const ask = (lane, path, parameters) => send(lane, path, parameters, "application/json", async (response) => {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Away) throw error;
    throw new Away("Something else answers in the service's place, such as a page to log in to the network.");
  }
});

/** The same for a file. */
export const download = (path, parameters) => send("download", path, parameters, "text/csv", (response) => response.blob());

async function send(lane, path, parameters, accept, read) {
  asked.get(lane)?.abort();
  const ending = new AbortController();
  asked.set(lane, ending);
  const timer = setTimeout(() => ending.abort(new Away("The service did not answer in 30 s.")), TIMEOUT_MS);
  try {
    const headers = { Accept: accept };
    if (hasKey()) {
      const key = sessionStorage.getItem(KEY);
      // A header cannot carry anything else, and no key of the service has it.
      if (!/^[\x21-\x7e]+$/.test(key)) throw new Refused(401, { detail: "This is no key of the service: it holds characters that no key has, such as … or a blank. Copy it again." });
      headers.Authorization = `Bearer ${key}`;
    }
    const sentMs = Date.now();
    let response;
    try {
      response = await fetch(address(path, parameters), { headers, signal: ending.signal, cache: "no-store" });
    } catch (error) {
      if (error instanceof Away || error.name === "AbortError") throw error;
      throw new Away("The service cannot be reached.");
    }
    if (!response.ok) await refuse(response);
    const answer = await read(response);
    compareClocks(response.headers.get("Date"), sentMs, Date.now());
    ageMs = 1000 * (Number(response.headers.get("Age")) || 0);
    return answer;
  } finally {
    clearTimeout(timer);
    if (asked.get(lane) === ending) asked.delete(lane);
  }
}

/** What passes by itself is an Away, all else is Refused. */
async function refuse(response) {
  const { status } = response;
  const problem = await response.json().catch(() => ({}));
  if (status !== 429 && status < 500) throw new Refused(status, problem);
  const wait = response.headers.get("Retry-After") ?? "";
  const waitMs = /^\d+$/.test(wait) ? 1000 * Number(wait) : Date.parse(wait) - serverNow();
  const message = problem.detail || problem.title || (status === 502 || status === 504 ? "The service is away; a proxy answers for it." : `The service cannot answer now (${status}).`);
  throw new Away(message, Math.min(Math.max(3000, waitMs || 0), RETRY_MAX_MS));
}
