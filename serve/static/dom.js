// Builds elements. Data enters the page as text nodes and attributes only, never as markup.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const $ = (id) => document.getElementById(id);

export function button(label, onclick, props = {}) {
  return el("button", { type: "button", onclick, ...props }, label);
}

/** A message of the API: what stands in backticks is shown as code. */
export function prose(text) {
  return text.split(/`([^`]+)`/).map((part, i) => (i % 2 ? el("code", {}, part) : part));
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

export function named({ title, year }) {
  return year === undefined || year === null ? title : `${title} (${year})`;
}

/** "co_director" -> "Co director" */
export function words(key) {
  const spaced = key.replaceAll("_", " ");
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

let languages;
try {
  languages = new Intl.DisplayNames(["en"], { type: "language" });
} catch {
  languages = null;
}

export function languageName(code) {
  try {
    return /^[a-z]{2,3}(-[A-Za-z0-9]+)*$/.test(code) ? (languages?.of(code) ?? code) : code;
  } catch {
    return code;
  }
}
