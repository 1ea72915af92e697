// One result as a card: facts, why it is here, how it scored, and what can be done with it. Shows whatever roles the item has.

import { isAbort } from "./api.js";
import { button, el, languageName, named, plural, words } from "./dom.js";

const NAMES_SHOWN = 4;
const SCORES = {
  cosine: "cosine similarity to what was asked, 1 is the same",
  bm25: "BM25: how well the words match, without an upper bound",
  linear: "nearness of meaning, and a small part of the score of the words",
  rrf: "reciprocal rank fusion of meaning and words: good for the order of this list only",
  dbsf: "distribution-based fusion of meaning and words: good for the order of this list only",
  best_score: "similarity to the nearest example",
  popularity: "popularity in the catalogue",
};

/** `context`: {scoreType, showKind, canDescribe, likes, dislikes}; `actions`: {like, dislike, similar, describe}, each given the result. */
export function card(result, rank, context, actions) {
  const { item } = result;
  const heading = `title-${rank}`;
  return el(
    "li",
    {},
    el(
      "article",
      { class: "card", "aria-labelledby": heading, "data-id": result.id },
      el("header", { class: "card-head" }, el("h2", { id: heading, tabindex: "-1" }, item.title, item.year !== undefined && el("span", { class: "year" }, ` ${item.year}`)), score(result, context)),
      facts(item, context.showKind),
      result.reason && el("p", { class: "reason" }, result.reason),
      item.overview && overview(item.overview, rank),
      people(item.people ?? {}),
      details(item, context.attributes),
      buttons(result, context, actions),
    ),
  );
}

function score({ score: value }, { scoreType }) {
  if (scoreType === "popularity" && !value) return null;
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  return el(
    "p",
    { class: "score", title: SCORES[scoreType] ?? scoreType },
    el("span", { class: "score-value" }, value.toFixed(digits)),
    " ",
    el("span", { class: "score-type" }, scoreType.replaceAll("_", " ")),
  );
}

function facts(item, showKind) {
  const parts = [showKind && item.kind && words(item.kind), ...(item.genres ?? []), item.language && languageName(item.language)].filter(Boolean);
  return parts.length > 0 && el("p", { class: "facts" }, parts.join(" \u00b7 "));
}

function people(roles) {
  const rows = Object.entries(roles).filter(([, names]) => names.length);
  if (!rows.length) return null;
  return el(
    "dl",
    { class: "people" },
    rows.map(([role, names]) => {
      const rest = names.length - NAMES_SHOWN;
      const shown = names.slice(0, NAMES_SHOWN).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
      return el("div", {}, el("dt", {}, words(role)), el("dd", { title: rest > 0 ? names.join(", ") : null }, shown));
    }),
  );
}

/** The other declared attributes that the item has. */
function details(item, attributes) {
  const rows = Object.entries(attributes ?? {}).flatMap(([name, { type, source }]) => {
    const [group, key] = typeof source === "string" ? source.split(".") : [];
    const fact = ["numbers", "extra"].includes(group) && type !== "text" ? item[group]?.[key] : undefined;
    return fact === undefined ? [] : [[name, Array.isArray(fact) ? fact.join(", ") : typeof fact === "number" ? fact.toLocaleString("en") : fact]];
  });
  return rows.length > 0 && el("dl", { class: "details" }, rows.map(([name, fact]) => el("div", {}, el("dt", {}, words(name)), el("dd", {}, fact))));
}

function overview(text, rank) {
  const id = `overview-${rank}`;
  const paragraph = el("p", { class: "overview clamped", id }, text);
  const more = button(
    "Read on",
    () => {
      const clamped = paragraph.classList.toggle("clamped");
      more.textContent = clamped ? "Read on" : "Read less";
      more.setAttribute("aria-expanded", String(!clamped));
    },
    { class: "link read-on", "aria-expanded": "false", "aria-controls": id, hidden: true },
  );
  return [paragraph, more];
}

/** Offer "Read on" only where text is really cut off. */
export function measure(list) {
  for (const paragraph of list.querySelectorAll(".overview.clamped")) {
    paragraph.nextElementSibling.hidden = paragraph.scrollHeight <= paragraph.clientHeight + 1;
  }
}

function buttons(result, context, actions) {
  const title = named(result.item);
  const liked = context.likes.includes(result.id);
  const disliked = context.dislikes.includes(result.id);
  const described = el("div", { class: "described", "aria-live": "polite" });
  return [
    el(
      "div",
      { class: "actions" },
      button("More like this", () => actions.like(result), { "aria-label": `More like this: ${title}`, disabled: liked }),
      button("Not for me", () => actions.dislike(result), { "aria-label": `Not for me: ${title}`, disabled: disliked }),
      button("Similar", () => actions.similar(result), { "aria-label": `Similar to ${title}` }),
      context.canDescribe && button("Describe", (event) => describe(() => actions.describe(result), event.currentTarget, described), { "aria-label": `Describe ${title}` }),
    ),
    described,
  ];
}

async function describe(ask, trigger, place) {
  if (trigger.getAttribute("aria-busy") === "true") return;
  trigger.setAttribute("aria-busy", "true");
  place.replaceChildren(el("p", { class: "waiting" }, el("span", { class: "spinner", "aria-hidden": "true" }), "Writing a description \u2026"));
  try {
    const { data, timing } = await ask();
    place.replaceChildren(description(data, timing));
  } catch (error) {
    if (isAbort(error)) return;
    place.replaceChildren(el("p", { class: "problem" }, error.message, error.requestId && el("small", { class: "request-id" }, ` request ${error.requestId}`)));
  } finally {
    trigger.removeAttribute("aria-busy");
  }
}

function description({ description: text, source, marked, violations, attempts }, timing) {
  const by = source === "model" ? "Written by the enhancer" : "Made from the facts alone";
  const took = timing.browser >= 1000 ? `${(timing.browser / 1000).toFixed(1)} s` : `${Math.round(timing.browser)} ms`;
  return el(
    "figure",
    { class: "description" },
    el("blockquote", {}, text),
    el("figcaption", {}, `${by} in ${took}, ${plural(attempts, "attempt")}.`),
    marked && el("p", { class: "marked" }, el("strong", {}, "Checked and corrected: "), "the text did not agree with the facts, and was cut or replaced."),
    violations.length > 0 && el("ul", { class: "violations", "aria-label": "What the checks found" }, violations.map((violation) => el("li", {}, violation))),
  );
}
