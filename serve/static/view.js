// The column of results in each of its states: loading, answered, empty, failed, first visit. Asks nothing; says what was clicked.

import { $, button, el, languageName, named, plural, prose } from "./dom.js";
import { card, measure } from "./cards.js";
import { EMPTY, filters, noFilters, view } from "./state.js";

const TEXTS = ["an unlikely friendship", "alone at sea", "a heist that goes wrong", "growing up in a small town"];
const TITLES = {
  network: "No connection",
  timeout: "No answer in time",
  unauthorized: "An API key is needed",
  forbidden: "This key is not enough",
  index_absent: "There is no index yet",
  ambiguous_title: "Which one do you mean?",
  not_found: "Not in the catalogue",
  overloaded: "Busy right now",
  deadline: "No answer in time",
  invalid: "The server did not understand this",
};

/** What asking once more would not change. */
const LASTING = ["unauthorized", "forbidden", "ambiguous_title", "not_found", "invalid", "too_large"];

export function heading(text) {
  $("results-heading").textContent = text;
  document.title = text === "Matinee" ? text : `${text} \u00b7 Matinee`;
}

export function loading() {
  const outcome = $("outcome");
  outcome.setAttribute("aria-busy", "true");
  if (outcome.querySelector(".card")) return;
  $("summary").replaceChildren();
  const line = (width) => el("span", { class: `bone ${width}` });
  const ghost = () => el("li", {}, el("div", { class: "card ghost" }, line("w60"), line("w40"), line("w100"), line("w100"), line("w80")));
  outcome.replaceChildren(el("ol", { class: "cards", "aria-hidden": "true" }, Array.from({ length: 6 }, ghost)));
}

export function results(data, timing, context, actions) {
  const { items } = data;
  $("announce").textContent = items.length ? `${plural(items.length, "item")} found` : "Nothing found";
  $("summary").replaceChildren(...summary(data, timing));
  const list = el("ol", { class: "cards" }, items.map((result, i) => card(result, i + 1, { ...context, scoreType: data.score_type }, actions)));
  const more = context.canShowMore && items.length >= context.k && button("Show more", actions.more, { class: "secondary", id: "show-more" });
  settle(list, more && el("p", { class: "more" }, more));
  measure(list);
}

export const remeasure = () => measure($("outcome"));

function settle(...children) {
  const outcome = $("outcome");
  outcome.removeAttribute("aria-busy");
  outcome.replaceChildren(...children.filter(Boolean));
}

function summary({ items, degraded }, { stages, total, browser }) {
  const ms = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));
  const parts = stages.map(([name, value]) => `${name} ${ms(value)}`);
  return [
    el("span", { class: "count-line" }, plural(items.length, "item")),
    el("span", { class: "timing", title: "as seen by this browser" }, `${ms(browser)} ms`),
    total !== null && el("span", { class: "stages", title: "on the server, in milliseconds" }, `server ${ms(total)} ms${parts.length ? ` (${parts.join(", ")})` : ""}`),
    ...degraded.map((part) => el("span", { class: "badge", title: `The ${part} was late, full or not there: this answer was made without it` }, `without ${part}`)),
  ].filter(Boolean);
}

export function empty(state, data, timing, change) {
  $("announce").textContent = "Nothing found";
  $("summary").replaceChildren(...summary(data, timing));
  const said = (name, values) => (name === "language" ? values.map(languageName) : values).join(", ");
  const relax = filters(state).map(([name, values, without]) => [`Clear ${name}: ${said(name, values)}`, without]);
  if (view(state) === "search" && state.mode === "sparse") relax.push(["Search by meaning, too", { mode: "hybrid" }]);
  if (relax.length > 1) relax.push(["Clear all filters", noFilters()]);
  const advice = relax.length ? "Nothing in the catalogue passes all of this. Let go of something:" : "Try other words, or a title that you like.";
  settle(
    el(
      "div",
      { class: "message empty" },
      el("h2", {}, "Nothing matches"),
      el("p", {}, advice),
      el("p", { class: "choices" }, relax.map(([label, without]) => button(label, () => change(without), { class: "secondary" }))),
    ),
  );
}

export function invalid(text) {
  $("summary").replaceChildren();
  settle(el("div", { class: "message" }, el("h2", {}, "Nothing to search"), el("p", {}, text)));
}

/** `actions`: {retry, choose(candidate, message), useKey(key)} */
export function failed(error, actions) {
  const title = TITLES[error.code] ?? "This did not work";
  $("announce").textContent = `${title}. ${error.message}`;
  $("summary").replaceChildren();
  const commands = error.code === "index_absent" ? [...error.message.matchAll(/`([^`]+)`/g)].map(([, command]) => command) : [];
  settle(
    el(
      "div",
      { class: "message error", "data-code": error.code },
      el("h2", {}, title),
      el("p", {}, prose(error.message)),
      commands.map((command) => el("pre", { tabindex: "0", "aria-label": "The command to run" }, el("code", {}, command))),
      error.candidates?.length && candidates(error.candidates, (candidate) => actions.choose(candidate, error.message)),
      ["unauthorized", "forbidden"].includes(error.code) && keyForm(actions.useKey),
      !LASTING.includes(error.code) && el("p", { class: "choices" }, button("Try again", actions.retry, { class: "secondary" })),
      error.requestId && el("p", { class: "request-id" }, "Request ", el("code", {}, error.requestId)),
    ),
  );
}

function candidates(found, choose) {
  const facts = ({ year, kind }) => [year, kind].filter(Boolean).join(" \u00b7 ");
  const row = (candidate) =>
    el(
      "li",
      {},
      el("button", { type: "button", class: "candidate", onclick: () => choose(candidate) }, el("span", {}, candidate.title), el("span", { class: "option-facts" }, facts(candidate))),
    );
  return el("ul", { class: "candidates", "aria-label": "Candidates" }, found.map(row));
}

function keyForm(useKey) {
  const input = el("input", { id: "api-key", type: "password", autocomplete: "off", required: true, maxlength: "500", pattern: "\\s*[!-~]+\\s*" });
  const submit = (event) => {
    event.preventDefault();
    if (input.value.trim()) useKey(input.value.trim());
  };
  return el(
    "form",
    { class: "key-form", onsubmit: submit },
    el("label", { for: "api-key" }, "API key"),
    el("div", { class: "key-row" }, input, el("button", { type: "submit", class: "primary" }, "Use this key")),
    el("p", { class: "help" }, "Kept until this tab is closed, and sent to this server only."),
  );
}

/** Below the heading of a first visit: something to click. */
export function intro(show, items, change, section) {
  const place = $("intro");
  place.hidden = !show;
  if (!show) return;
  const example = (label, patch) => button(label, () => change({ ...EMPTY, ...patch }), { class: "example" });
  const likes = items.slice(0, 2).map(({ id, item }) => example(`More like ${named(item)}`, { likes: [id] }));
  place.replaceChildren(
    el("p", { class: "lede" }, "Say what you like, what you don\u2019t, and what you are in the mood for. Every answer says why it is there."),
    el("p", { class: "examples" }, el("span", { class: "examples-label" }, "Try"), TEXTS.map((text) => example(text, { text })), likes),
    el("p", { class: "section" }, section),
  );
}

export function notice(degraded) {
  $("notice").replaceChildren(...degraded.map((text) => el("p", { class: "notice" }, el("strong", {}, "Degraded: "), prose(text))));
}
