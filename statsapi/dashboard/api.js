// Questions to the service: the key of this tab, one question of a kind at a time, refusals in its own words.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The service answered ${status}.`);
    this.status = status;
    this.type = String(problem.type ?? "").split(":").at(-1);
  }
}

/** The service could not be reached at all. */
export class Away extends Error {}

// Relative to the page's own address, so that it works under any prefix.
const BASE = new URL("./", location.href);
const KEY = "statsapi-key";
const TIMEOUT_MS = 30000;

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

const asked = new Map();

/** The answer's JSON. A newer question of the same kind ends the older one. Raises Refused, Away, or an AbortError. */
export async function ask(kind, path, parameters) {
  asked.get(kind)?.abort();
  const ending = new AbortController();
  asked.set(kind, ending);
  const timer = setTimeout(() => ending.abort(new Away("The service did not answer in 30 s.")), TIMEOUT_MS);
  try {
    const headers = { Accept: "application/json" };
    if (hasKey()) headers.Authorization = `Bearer ${sessionStorage.getItem(KEY)}`;
    let response;
    try {
      response = await fetch(address(path, parameters), { headers, signal: ending.signal, cache: "no-store" });
    } catch (error) {
      if (error instanceof Away || error.name === "AbortError") throw error;
      throw new Away("The service cannot be reached.");
    }
    const body = await response.json().catch(() => ({}));
    if (!response.ok) {
      if (response.status === 502 || response.status === 504) throw new Away("The service is away; a proxy answers for it.");
      throw new Refused(response.status, body);
    }
    return body;
  } finally {
    clearTimeout(timer);
    if (asked.get(kind) === ending) asked.delete(kind);
  }
}
