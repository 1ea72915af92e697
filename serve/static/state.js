// What is asked for, as plain data, and its form in the URL's hash, so that it can be shared, bookmarked and walked back through.

export const MODES = ["hybrid", "dense", "sparse"];
export const PAGE = 12;

export const EMPTY = Object.freeze({
  catalogue: null,
  text: "",
  likes: [],
  dislikes: [],
  similar: null,
  mode: "hybrid",
  diversity: 0,
  genres: [],
  language: [],
  kind: [],
  from: null,
  to: null,
  values: {},
  limits: {},
  sort: null,
  k: PAGE,
});

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export const isId = (example) => UUID.test(example);

export function read(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  const all = (name) => [...new Set(params.getAll(name).filter(Boolean))].slice(0, 50);
  const likes = all("like");
  return {
    catalogue: /^[a-z][a-z0-9_-]{0,62}$/.test(params.get("catalogue") ?? "") ? params.get("catalogue") : null,
    text: (params.get("q") ?? "").slice(0, 1000),
    likes,
    dislikes: all("dislike").filter((example) => !likes.includes(example)),
    similar: params.get("similar") || null,
    mode: MODES.includes(params.get("mode")) ? params.get("mode") : EMPTY.mode,
    diversity: clamp(number(params.get("diversity")) ?? 0, 0, 1),
    genres: all("genre"),
    language: all("language"),
    kind: all("kind"),
    from: year(params.get("from")),
    to: year(params.get("to")),
    values: named(params, "is.", (name) => all(`is.${name}`)),
    limits: named(params, "in.", (name) => limitsOf(params.get(`in.${name}`))),
    sort: /^[a-z][a-z0-9_]{0,39}\.(asc|desc)$/.test(params.get("sort") ?? "") ? params.get("sort") : null,
    k: clamp(Math.round(number(params.get("k")) ?? PAGE), 1, 1000),
  };
}

export function write(state) {
  const params = new URLSearchParams();
  if (state.catalogue) params.set("catalogue", state.catalogue);
  if (state.text) params.set("q", state.text);
  for (const id of state.likes) params.append("like", id);
  for (const id of state.dislikes) params.append("dislike", id);
  if (state.similar) params.set("similar", state.similar);
  if (state.mode !== EMPTY.mode) params.set("mode", state.mode);
  if (state.diversity) params.set("diversity", String(state.diversity));
  for (const genre of state.genres) params.append("genre", genre);
  for (const language of state.language) params.append("language", language);
  for (const kind of state.kind) params.append("kind", kind);
  if (state.from !== null) params.set("from", String(state.from));
  if (state.to !== null) params.set("to", String(state.to));
  for (const [name, values] of Object.entries(state.values)) for (const value of values) params.append(`is.${name}`, value);
  for (const [name, [low, high]] of Object.entries(state.limits)) params.set(`in.${name}`, `${low ?? ""}..${high ?? ""}`);
  if (state.sort) params.set("sort", state.sort);
  if (state.k !== PAGE) params.set("k", String(state.k));
  return params.toString();
}

/** Nothing is asked for: the first page of a catalogue. */
export const isBlank = (state) => write({ ...state, catalogue: null }) === "";

/** "search" for a text alone, "similar" for one item, "recommend" for examples, "popular" for nothing. */
export function view(state) {
  if (state.likes.length || state.dislikes.length) return "recommend";
  if (state.text) return "search";
  return state.similar ? "similar" : "popular";
}

/** `attributes` are the declared ones, by name: what a value is, the URL does not say. */
export function filterOf(state, attributes = {}) {
  const filter = {};
  for (const [name, values] of Object.entries(state.values)) filter[name] = values.map((value) => typed(value, attributes[name]?.type));
  for (const [name, [low, high]] of Object.entries(state.limits)) {
    filter[name] = { ...(low !== null && { gte: limit(low) }), ...(high !== null && { lte: limit(lastMoment(high)) }) };
  }
  for (const name of ["genres", "language", "kind"]) if (state[name].length) filter[name] = state[name];
  const { from, to } = state;
  if (from !== null || to !== null) filter.year = { ...(from !== null && { gte: from }), ...(to !== null && { lte: to }) };
  return filter;
}

/** The years contradict each other: no request can be made of this. */
export const yearsCross = (state) => state.from !== null && state.to !== null && state.from > state.to;

/** Each filter that is set: its name, its values, and the change that would remove it. */
export function filters(state) {
  const set = [];
  if (state.kind.length) set.push(["kind", state.kind, { kind: [] }]);
  if (state.genres.length) set.push(["genres", state.genres, { genres: [] }]);
  if (state.language.length) set.push(["language", state.language, { language: [] }]);
  if (state.from !== null || state.to !== null) set.push(["years", [years(state)], { from: null, to: null }]);
  for (const [name, values] of Object.entries(state.values)) set.push([name, values, { values: without(state.values, name) }]);
  for (const [name, [low, high]] of Object.entries(state.limits)) {
    set.push([name, [`${low ?? ""} \u2013 ${high ?? ""}`.trim()], { limits: without(state.limits, name) }]);
  }
  return set;
}

/** What removes all of them at once. */
export const noFilters = () => ({ kind: [], genres: [], language: [], from: null, to: null, values: {}, limits: {} });

/** An object with `name` set to `value`, or without it where that is empty. */
export function withEntry(object, name, value) {
  return value === null || value.length === 0 ? without(object, name) : { ...object, [name]: value };
}

const without = (object, name) => Object.fromEntries(Object.entries(object).filter(([other]) => other !== name));

const typed = (value, type) => (type === "integer" ? Number(value) : type === "boolean" ? value === "true" : value);

/** The end of a day, because people mean the whole of it. */
const lastMoment = (text) => (/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T23:59:59.999999Z` : text);

/** A number as one, a date as it is. */
const limit = (text) => number(text) ?? text;

function named(params, prefix, read) {
  const names = [...new Set([...params.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)))];
  const entries = names.filter((name) => /^[a-z][a-z0-9_]{0,39}$/.test(name)).map((name) => [name, read(name)]);
  return Object.fromEntries(entries.filter(([, value]) => value !== null && value.length > 0).slice(0, 50));
}

function limitsOf(text) {
  const ends = (text ?? "").split("..").map((end) => end.trim().slice(0, 40) || null);
  return ends.length === 2 && ends.some((end) => end !== null) ? ends : null;
}

function years({ from, to }) {
  if (from === null) return `until ${to}`;
  return to === null ? `from ${from}` : `${from} to ${to}`;
}

function number(text) {
  const value = text === null || text.trim() === "" ? NaN : Number(text);
  return Number.isFinite(value) ? value : null;
}

export function year(text) {
  const value = number(text);
  return value === null ? null : clamp(Math.round(value), -5000, 3000);
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
