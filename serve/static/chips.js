// Likes and dislikes as chips, and the titles that belong to ids: learned from answers, asked for where a link brought only the id.

import * as api from "./api.js";
import { $, button, el, named } from "./dom.js";
import { isId } from "./state.js";

const known = new Map();
const asked = new Set();

export function learn(example, { title, year }) {
  if (example && title) known.set(example, { title, year: year ?? null });
}

export function nameOf(example) {
  if (known.has(example)) return named(known.get(example));
  return isId(example) ? null : example;
}

/** Asks for the titles of ids that are not known yet, then calls `then` once; failures leave the id shortened. */
export async function lookUp(examples, then) {
  const missing = examples.filter((example) => isId(example) && !known.has(example) && !asked.has(example));
  if (!missing.length) return;
  missing.forEach((example) => asked.add(example));
  const found = await Promise.allSettled(missing.map((example) => api.item(example)));
  found.forEach((result, i) => {
    if (result.status === "fulfilled") learn(missing[i], result.value.data.item);
    else asked.delete(missing[i]);
  });
  if (found.some(({ status }) => status === "fulfilled")) then();
}

export function renderChips({ likes, dislikes }, remove) {
  const list = $("chips");
  const held = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  const chip = (side, word) => (example) => {
    const name = nameOf(example) ?? `${example.slice(0, 8)}\u2026`;
    const label = `Remove ${word.toLowerCase()}: ${name}`;
    return el(
      "li",
      { class: `chip ${side}` },
      el("span", { class: "chip-side" }, word),
      el("span", { class: "chip-name" }, name),
      button("\u00d7", () => remove(side, example), {
        "aria-label": label,
        title: label,
        onkeydown: (event) => {
          if (event.key !== "Delete" && event.key !== "Backspace") return;
          event.preventDefault();
          remove(side, example);
        },
      }),
    );
  };
  list.replaceChildren(...likes.map(chip("likes", "Like")), ...dislikes.map(chip("dislikes", "Dislike")));
  if (held < 0) return;
  // The chip that had the focus is gone: its neighbour gets it, or the box where the next one comes from.
  const left = list.querySelectorAll("button");
  (left[Math.min(held, left.length - 1)] ?? $("query")).focus();
}
