// The search box's type-ahead: an ARIA combobox with a list of titles. Arrows move, Enter picks, Escape closes; without a choice,
// Enter is left to the form. What a pick means is the caller's business.

import * as api from "./api.js";
import { el } from "./dom.js";

const WAIT_MS = 140;

export function combobox(input, list, { onPick, onTitle, onError }) {
  let options = [];
  let active = -1;
  let timer = 0;
  let request = null;

  function close() {
    clearTimeout(timer);
    request?.abort();
    request = null;
    show([]);
  }

  function show(next) {
    options = next;
    active = -1;
    list.replaceChildren(...options.map((option, i) => row(option, i)));
    list.hidden = options.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.removeAttribute("aria-activedescendant");
  }

  function row({ item, typed }, i) {
    const label = item
      ? [el("span", { class: "option-title" }, item.title), el("span", { class: "option-facts" }, facts(item))]
      : [el("span", { class: "option-title" }, "I like \u201c", el("b", {}, typed), "\u201d"), el("span", { class: "option-facts" }, "find this title")];
    return el(
      "li",
      {
        id: `suggestion-${i}`,
        role: "option",
        "aria-selected": "false",
        // The focus stays in the box: a click is a pick, not a walk away.
        onpointerdown: (event) => event.preventDefault(),
        onclick: () => pick(i),
      },
      ...label,
    );
  }

  function move(step) {
    if (!options.length) return;
    list.children[active]?.setAttribute("aria-selected", "false");
    // One place between the last and the first is the box itself, with what was typed.
    active = ((active + 1 + step + options.length + 1) % (options.length + 1)) - 1;
    const row = list.children[active];
    if (row) {
      row.setAttribute("aria-selected", "true");
      row.scrollIntoView({ block: "nearest" });
      input.setAttribute("aria-activedescendant", row.id);
    } else {
      input.removeAttribute("aria-activedescendant");
    }
  }

  function pick(i) {
    const option = options[i];
    close();
    if (option.item) onPick(option);
    else onTitle(option.typed);
  }

  async function ask(typed) {
    request?.abort();
    const mine = (request = new AbortController());
    try {
      const { data } = await api.suggest(typed, mine.signal);
      if (mine !== request) return;
      show([...data.items.map(({ id, item }) => ({ id, item })), { typed }]);
    } catch (error) {
      if (mine !== request || api.isAbort(error)) return;
      show([]);
      onError(error);
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    const typed = input.value.trim();
    if (typed.length < 2) close();
    else timer = setTimeout(ask, WAIT_MS, typed.slice(0, 200));
  });

  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden && input.value.trim()) ask(input.value.trim().slice(0, 200));
      else move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      pick(active);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    }
  });

  input.addEventListener("blur", close);
  return { close };
}

function facts(item) {
  const makers = Object.values(item.people ?? {})[0] ?? [];
  return [item.year, makers.slice(0, 2).join(", ")].filter(Boolean).join(" \u00b7 ");
}
