// The page: keeps the state in the URL, asks the API for what it says, and hands answers to the view. A newer request ends an older one.

import * as api from "./api.js";
import { learn, lookUp, nameOf, renderChips } from "./chips.js";
import { $, el, plural } from "./dom.js";
import { declared, kinds, renderFilters, setAttributes, setFacets } from "./filters.js";
import { EMPTY, filterOf, filters, isBlank, isId, PAGE, read, view, write, yearsCross } from "./state.js";
import { combobox } from "./suggest.js";
import * as page from "./view.js";

let state = read(location.hash);
let request = null;
let server = { maxK: 100, canDescribe: true };
let shown = null;

// from the state to the page

function change(patch, { focus = null, replace = false } = {}) {
  const next = { ...state, k: PAGE, ...patch };
  const hash = write(next);
  if (hash !== write(state)) {
    const url = hash ? `#${hash}` : location.pathname + location.search;
    history[replace ? "replaceState" : "pushState"](null, "", url);
  }
  enter(next, focus);
}

function enter(next, focus = null) {
  const moved = next.catalogue !== state.catalogue;
  state = next;
  $("query").value = state.text;
  if (moved) enterCatalogue();
  else run(focus);
}

/** What was known of the catalogue before says nothing of this one. */
function enterCatalogue() {
  api.useCatalogue(state.catalogue);
  setFacets({ kind: [], genres: [], language: [] });
  setAttributes({});
  start();
}

function drawNames() {
  renderChips(state, remove);
  page.heading(title());
}

function title() {
  switch (view(state)) {
    case "recommend":
      return "Recommended for you";
    case "search":
      return `Results for \u201c${state.text}\u201d`;
    case "similar":
      return `Similar to ${nameOf(state.similar) ?? "this"}`;
    default:
      return isBlank(state) ? "Find your next favourite" : "From the catalogue";
  }
}

async function run(focus = null) {
  request?.abort();
  const mine = (request = new AbortController());
  drawNames();
  renderFilters(state, change);
  lookUp([...state.likes, ...state.dislikes, ...(state.similar ? [state.similar] : [])], drawNames);
  shown = null;
  if (yearsCross(state)) return page.invalid("The first year is after the last one: change one of them.");
  page.loading();
  try {
    const { data, timing } = await ask(state, mine.signal);
    if (mine === request) show(data, timing, focus);
  } catch (error) {
    if (mine !== request || api.isAbort(error)) return;
    if (!(error instanceof api.ApiError)) throw error;
    page.intro(false);
    page.failed(error, { retry: start, choose, useKey });
    if (error.code === "unauthorized") $("api-key").focus();
    else if (focus) $("results-heading").focus();
  }
}

function ask(state, signal) {
  const order = state.sort ? { sort: [Object.fromEntries([state.sort.split(".")])] } : { diversity: state.diversity };
  const common = { k: Math.min(state.k, server.maxK), filter: filterOf(state, declared()), ...order };
  switch (view(state)) {
    case "search":
      return api.search({ text: state.text, mode: state.mode, ...common }, signal);
    case "similar":
      // The route of one item takes neither filter nor order; liking just this one means the same.
      if (filters(state).length || state.sort) return api.recommend({ likes: [state.similar], ...common }, signal);
      return api.similar(state.similar, common, signal);
    default:
      return api.recommend({ likes: state.likes, dislikes: state.dislikes, ...(state.text && { text: state.text }), ...common }, signal);
  }
}

function show(data, timing, focus = null) {
  shown = { data, timing, context: JSON.stringify(context()) };
  data.items.forEach(({ id, item }) => learn(id, item));
  data.likes.forEach((liked, i) => learn(state.likes[i], liked));
  drawNames();
  const first = isBlank(state);
  // Without votes in the catalogue nothing is popular: the order of these items means nothing then, and nothing else is claimed.
  page.intro(first, data.items, change, data.items.some(({ score }) => score > 0) ? "Popular in the catalogue" : "From the catalogue");
  if (data.items.length) page.results(data, timing, context(), actions);
  else page.empty(state, data, timing, change);
  if (focus === "heading") $("results-heading").focus();
  else if (focus !== null) document.querySelectorAll(".card h2")[focus]?.focus();
}

function context() {
  const { likes, dislikes } = state;
  const k = Math.min(state.k, server.maxK);
  return { likes, dislikes, k, attributes: declared(), canShowMore: k < server.maxK, canDescribe: server.canDescribe, showKind: kinds().length > 1 };
}

// what was clicked

const actions = {
  like: (result) => {
    report("liked", result.id);
    add("likes", result.id, result.item);
  },
  dislike: (result) => {
    report("disliked", result.id);
    add("dislikes", result.id, result.item);
  },
  describe: (result) => {
    report("clicked", result.id);
    return api.describe(result.id, request.signal);
  },
  similar: (result) => {
    report("clicked", result.id);
    change({ text: "", likes: [], dislikes: [], similar: result.id }, { focus: "heading" });
  },
  more: () => change({ k: state.k + PAGE }, { focus: document.querySelectorAll(".card").length, replace: true }),
};

/** Only a server that keeps events gives a token. */
function report(act, id) {
  const token = shown?.data.feedback_token;
  if (token) api.feedback(token, act, id);
}

function add(side, id, item) {
  learn(id, item);
  const other = side === "likes" ? "dislikes" : "likes";
  // Who looks at what is similar to one item likes that one: a further like or dislike refines it.
  const likes = state.similar ? [state.similar] : state.likes;
  const sides = { likes, dislikes: state.dislikes };
  change(
    { similar: null, [side]: [...new Set([...sides[side], id])], [other]: sides[other].filter((example) => example !== id) },
    { focus: "heading" },
  );
}

function remove(side, example) {
  change({ [side]: state[side].filter((other) => other !== example) });
}

function choose({ id, title: name, year }, message) {
  learn(id, { title: name, year });
  // The answer does not say which of several titles was ambiguous, but its message begins with it, in quotes.
  const unclear = [...state.likes, ...state.dislikes].filter((example) => !isId(example));
  const meant = unclear.find((example) => message.slice(1).startsWith(example)) ?? unclear[0];
  const swap = (list) => [...new Set(list.map((example) => (example === meant ? id : example)))];
  change({ likes: swap(state.likes), dislikes: swap(state.dislikes) }, { focus: "heading" });
}

function useKey(secret) {
  api.key.set(secret);
  start();
}

// start

async function start() {
  $("forget-key").hidden = !api.key.present();
  run();
  const mine = state.catalogue;
  const [facets, info, all] = await Promise.allSettled([api.facets(), api.info(), api.catalogues()]);
  // Another catalogue was chosen meanwhile.
  if (mine !== state.catalogue) return;
  if (facets.status === "fulfilled") {
    setFacets(facets.value.data);
    renderFilters(state, change);
  }
  if (info.status === "fulfilled") {
    const { catalogue, index, limits, enhancer, degraded } = info.value.data;
    server = { maxK: limits.k, canDescribe: enhancer !== null };
    setAttributes(index?.attributes ?? {});
    renderFilters(state, change);
    // What a value of the URL is, a number or a text, is known only now.
    if (Object.keys(state.values).some((name) => ["integer", "boolean"].includes(declared()[name]?.type))) run();
    const listed = all.status === "fulfilled" ? all.value.data.catalogues : [];
    offer(listed, catalogue);
    const title = listed.find(({ name }) => name === catalogue)?.title ?? catalogue;
    $("catalogue").textContent = index ? `${title} \u00b7 ${plural(index.items, "item")}` : title;
    page.notice(degraded);
  }
  // What came first was shown as a server with everything would have it.
  if (shown && shown.context !== JSON.stringify(context())) show(shown.data, shown.timing);
}

/** A choice of catalogue, where there are several. */
function offer(catalogues, current) {
  const choice = $("catalogues");
  choice.hidden = catalogues.length < 2;
  choice.replaceChildren(...catalogues.map(({ name, title }) => el("option", { value: name, selected: name === current }, title ?? name)));
}

$("catalogues").addEventListener("change", (event) => change({ ...EMPTY, catalogue: event.target.value }));

const box = combobox($("query"), $("suggestions"), {
  onPick: ({ id, item }) => {
    learn(id, item);
    change({ text: "", similar: null, likes: [...new Set([...state.likes, id])], dislikes: state.dislikes.filter((other) => other !== id) });
  },
  onTitle: (typed) => change({ text: "", similar: null, likes: [...new Set([...state.likes, typed])] }),
  onError: () => {},
});

$("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  box.close();
  change({ text: $("query").value.trim(), similar: null });
});

$("home").addEventListener("click", (event) => {
  event.preventDefault();
  change({ ...EMPTY, catalogue: state.catalogue });
});

$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("results-heading").focus();
});

$("forget-key").addEventListener("click", () => {
  api.key.forget();
  start();
});

addEventListener("keydown", (event) => {
  const typing = event.target instanceof Element && event.target.closest("input, select, textarea");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  $("query").focus();
});

for (const moved of ["popstate", "hashchange"]) {
  addEventListener(moved, () => {
    const next = read(location.hash);
    if (write(next) !== write(state)) enter(next);
  });
}

let resized = 0;
addEventListener("resize", () => {
  cancelAnimationFrame(resized);
  resized = requestAnimationFrame(page.remeasure);
});

api.useCatalogue(state.catalogue);
$("query").value = state.text;
const narrow = matchMedia("(max-width: 60rem)");
const fold = () => ($("filters-box").open = !narrow.matches);
narrow.addEventListener("change", fold);
fold();
start();
