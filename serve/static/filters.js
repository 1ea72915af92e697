// The column of filters: made from the catalogue's own facets, and kept in step with the state. Knows no field of any one kind of item.

import { $, button, el, languageName, words } from "./dom.js";
import { filters, MODES, noFilters, view, withEntry, year, yearsCross } from "./state.js";

const SHOWN = 10;
const MODE_NAMES = { hybrid: "Meaning and words", dense: "Meaning", sparse: "Words" };

let facets = { kind: [], genres: [], language: [] };
let attributes = {};
// They have controls of their own, whose places in the URL are older than attributes.
const OWN = ["kind", "genres", "language", "year"];
const RANGES = { integer: "number", float: "number", datetime: "date" };
const SORTABLE = ["integer", "float", "datetime"];
const expanded = new Set();

export function setFacets(found) {
  facets = found;
}

export function setAttributes(declared) {
  attributes = declared;
}

/** The declared attributes, by name. */
export const declared = () => attributes;

export const kinds = () => facets.kind.map(({ value }) => value);

export function renderFilters(state, change) {
  const form = $("filters");
  const focused = form.contains(document.activeElement) ? document.activeElement.id : null;
  const set = filters(state);
  form.replaceChildren(
    ...[
      facets.kind.length > 1 && checks("Kind", "kind", facets.kind, state, change, words),
      facets.genres.length > 0 && checks("Genres", "genres", facets.genres, state, change),
      facets.language.length > 1 && languages(state, change),
      (attributes.year?.type ?? "integer") === "integer" && years(state, change),
      ...Object.entries(attributes)
        .filter(([name, { type }]) => !OWN.includes(name) || (name === "year" && type !== "integer"))
        .map(([name, { type }]) => attribute(name, type, state, change)),
      order(state, change),
      diversity(state, change),
      modes(state, change),
      set.length > 0 && button("Clear filters", () => change(noFilters()), { class: "quiet", id: "clear-filters" }),
    ].filter(Boolean),
  );
  $("filter-count").textContent = set.length ? ` ${set.length}` : "";
  if (focused) ($(focused) ?? $("filters-box").querySelector("summary")).focus();
}

function group(legend, ...children) {
  return el("fieldset", {}, el("legend", {}, legend), ...children);
}

function checks(legend, name, values, state, change, label = (value) => value) {
  const chosen = state[name];
  const known = new Set(values.map(({ value }) => value));
  const all = [...values, ...chosen.filter((value) => !known.has(value)).map((value) => ({ value, count: 0 }))];
  const open = expanded.has(name);
  const shown = open ? all : all.filter(({ value }, i) => i < SHOWN || chosen.includes(value));
  const rows = shown.map(({ value, count }) => {
    const toggle = (event) => change({ [name]: event.target.checked ? [...chosen, value] : chosen.filter((other) => other !== value) });
    const box = el("input", { type: "checkbox", id: `${name}-${value}`, checked: chosen.includes(value), onchange: toggle });
    return el("label", { class: "check" }, box, el("span", { class: "check-name" }, label(value)), el("span", { class: "count" }, String(count)));
  });
  const more = () => {
    if (!expanded.delete(name)) expanded.add(name);
    renderFilters(state, change);
  };
  const toggle =
    all.length > SHOWN &&
    button(open ? "Show fewer" : `Show all ${all.length}`, more, { class: "link", id: `${name}-more`, "aria-expanded": String(open) });
  return group(legend, el("div", { class: "checks" }, rows), toggle);
}

/** One attribute, whatever it means: boxes for values that are counted, two ends for numbers and dates. */
function attribute(name, type, state, change) {
  const chosen = state.values[name] ?? [];
  const counted = (facets.facets?.[name] ?? []).map(({ value, count }) => ({ value: String(value), count }));
  if (counted.length > 1 || chosen.length) {
    const set = ({ [name]: values }) => change({ values: withEntry(state.values, name, values) });
    return checks(words(name), name, counted, { [name]: chosen }, set);
  }
  return type in RANGES ? range(name, RANGES[type], state, change) : null;
}

function range(name, type, state, change) {
  const ends = state.limits[name] ?? [null, null];
  const box = (i, label) => {
    const set = (event) => {
      const next = ends.map((end, j) => (j === i ? event.target.value || null : end));
      change({ limits: withEntry(state.limits, name, next.some((end) => end !== null) ? next : null) });
    };
    const input = el("input", { id: `${name}-${label}`, type, step: type === "number" ? "any" : null, placeholder: label, "aria-label": `${words(name)} ${label}`, onchange: set });
    input.value = ends[i] ?? "";
    return input;
  };
  return group(words(name), el("div", { class: "years" }, box(0, "from"), el("span", { "aria-hidden": "true" }, "\u2013"), box(1, "to")));
}

function order(state, change) {
  const sortable = Object.entries(attributes).filter(([, { type }]) => SORTABLE.includes(type));
  if (!sortable.length) return null;
  const orders = sortable.flatMap(([name]) => [
    [`${name}.desc`, `${words(name)}, highest first`],
    [`${name}.asc`, `${words(name)}, lowest first`],
  ]);
  const options = [["", "Best match"], ...orders].map(([value, label]) => el("option", { value, selected: value === (state.sort ?? "") }, label));
  const select = el("select", { id: "sort", onchange: (event) => change({ sort: event.target.value || null }) }, options);
  return el("div", { class: "field" }, el("label", { for: "sort" }, "Order"), select);
}

function languages(state, change) {
  const [chosen = ""] = state.language;
  const known = facets.language.some(({ value }) => value === chosen);
  const options = [
    el("option", { value: "" }, "Any language"),
    ...facets.language.map(({ value, count }) => el("option", { value, selected: value === chosen }, `${languageName(value)} (${count})`)),
    chosen && !known && el("option", { value: chosen, selected: true }, languageName(chosen)),
  ];
  const select = el("select", { id: "language", onchange: (event) => change({ language: event.target.value ? [event.target.value] : [] }) }, options);
  return el("div", { class: "field" }, el("label", { for: "language" }, "Language"), select);
}

function years(state, change) {
  const wrong = yearsCross(state);
  const box = (name, label) => {
    const input = el("input", {
      id: `year-${name}`,
      type: "number",
      inputmode: "numeric",
      min: "-5000",
      max: "3000",
      placeholder: label,
      "aria-label": `Year ${label}`,
      "aria-invalid": wrong ? "true" : null,
      "aria-describedby": wrong ? "years-problem" : null,
      onchange: (event) => change({ [name]: year(event.target.value) }),
    });
    input.value = state[name] ?? "";
    return input;
  };
  return group(
    "Years",
    el("div", { class: "years" }, box("from", "from"), el("span", { "aria-hidden": "true" }, "\u2013"), box("to", "to")),
    wrong && el("p", { class: "problem", id: "years-problem", role: "alert" }, "The first year is after the last one."),
  );
}

function diversity(state, change) {
  const describe = (value) => (value === 0 ? "nearest first" : value < 0.5 ? `${value} · some variety` : `${value} · much variety`);
  const shown = el("span", { class: "field-value", "aria-hidden": "true" }, describe(state.diversity));
  const slider = el("input", { id: "diversity", type: "range", min: "0", max: "1", step: "0.1", "aria-valuetext": describe(state.diversity) });
  slider.value = String(state.diversity);
  slider.addEventListener("input", () => {
    shown.textContent = describe(Number(slider.value));
    slider.setAttribute("aria-valuetext", shown.textContent);
  });
  slider.addEventListener("change", () => change({ diversity: Number(slider.value) }));
  return el("div", { class: "field" }, el("div", { class: "field-head" }, el("label", { for: "diversity" }, "Diversity"), shown), slider);
}

function modes(state, change) {
  const usable = view(state) === "search";
  const rows = MODES.map((mode) => {
    const radio = el("input", { type: "radio", name: "mode", id: `mode-${mode}`, value: mode, checked: state.mode === mode, onchange: () => change({ mode }) });
    return el("label", { class: "check" }, radio, el("span", { class: "check-name" }, MODE_NAMES[mode]), el("span", { class: "count" }, mode));
  });
  const set = group("Text search by", el("div", { class: "modes" }, rows));
  set.disabled = !usable;
  if (!usable) set.append(el("p", { class: "help" }, "For a text without likes or dislikes."));
  return set;
}
