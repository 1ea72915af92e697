// Talks to the API: one function a route, errors as `ApiError`, the time of each stage beside every answer.
// The API key lives in this tab's session storage and goes nowhere but into the Authorization header.

const KEY = "matinee.key";
const PATIENCE_MS = 30_000;

export class ApiError extends Error {
  constructor({ status = 0, code, message, request_id: requestId = null, candidates = null }) {
    super(message);
    Object.assign(this, { name: "ApiError", status, code, requestId, candidates });
  }
}

export const key = {
  present: () => Boolean(sessionStorage.getItem(KEY)),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export const isAbort = (error) => error?.name === "AbortError";

// The routes of one catalogue: those of the server's default one, or those below a name.
let routes = "v1";

export function useCatalogue(name) {
  routes = name ? `v1/catalogues/${encodeURIComponent(name)}` : "v1";
}

export const catalogues = (signal) => send("GET", "v1/catalogues", { signal });
export const info = (signal) => send("GET", `${routes}/info`, { signal });
export const facets = (signal) => send("GET", `${routes}/facets?limit=60`, { signal });
export const item = (id, signal) => send("GET", `${routes}/items/${encodeURIComponent(id)}`, { signal });
export const describe = (id, signal) => send("POST", `${routes}/describe`, { body: { id }, signal });
export const recommend = (body, signal) => send("POST", `${routes}/recommend`, { body, signal });
export const search = (body, signal) => send("POST", `${routes}/search`, { body, signal });
export const suggest = (q, signal) => send("GET", `${routes}/items?${new URLSearchParams({ q, limit: 8 })}`, { signal });
export const similar = (id, { k, diversity }, signal) =>
  send("GET", `${routes}/items/${encodeURIComponent(id)}/similar?${new URLSearchParams({ k, diversity })}`, { signal });

/** Tell what the user did with an item of an answer, by the answer's token. What can't be told is lost: no page waits for it. */
export const feedback = (token, act, id) => send("POST", `${routes}/feedback`, { body: { token, [act]: [id] } }).catch(() => {});

async function send(method, path, { body, signal } = {}) {
  const started = performance.now();
  const headers = { Accept: "application/json" };
  const saved = sessionStorage.getItem(KEY);
  if (saved) headers.Authorization = `Bearer ${saved}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
      credentials: "omit",
      cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(
      error.name === "TimeoutError"
        ? { code: "timeout", message: `There was no answer within ${PATIENCE_MS / 1000} seconds.` }
        : { code: "network", message: "The server can't be reached. It may be stopped or restarting, or the connection may be down." },
    );
  }
  const data = parsed(text);
  if (!response.ok) throw failure(response, data);
  if (data === null) throw new ApiError({ status: response.status, code: "not_json", message: "The answer is not JSON: is something else in between?" });
  return { data, timing: timing(response.headers.get("Server-Timing"), performance.now() - started) };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function failure(response, data) {
  const requestId = response.headers.get("X-Request-Id");
  if (data && typeof data.code === "string" && typeof data.message === "string") {
    return new ApiError({ request_id: requestId, ...data, status: response.status });
  }
  const message = `Something in front of the API answered ${response.status} ${response.statusText}.`.replace(" .", ".");
  return new ApiError({ status: response.status, code: `http_${response.status}`, message, request_id: requestId });
}

/** "embed;dur=3.1, total;dur=9" -> {stages: [["embed", 3.1]], total: 9, browser} */
export function timing(header, browser) {
  const entries = (header ?? "")
    .split(",")
    .map((entry) => /^\s*([\w-]+).*?;\s*dur=([\d.]+)/.exec(entry))
    .filter(Boolean)
    .map(([, name, ms]) => [name, Number(ms)]);
  return {
    stages: entries.filter(([name]) => name !== "total"),
    total: entries.find(([name]) => name === "total")?.[1] ?? null,
    browser,
  };
}
