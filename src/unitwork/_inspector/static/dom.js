// Elements, lists that keep their elements, and how times are written.

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "text") node.textContent = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Make the children of `parent` those of `items`. An element is made once for each key,
// and again only if its item has changed, so that focus and selection stay.
export function sync(parent, items, keyOf, make) {
  const known = parent.known ?? new Map();
  const next = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const text = JSON.stringify(item);
    let entry = known.get(key);
    if (entry === undefined) entry = { text, node: make(item) };
    else if (entry.text !== text) {
      const focused = entry.node.contains(document.activeElement) ? document.activeElement.id : "";
      const node = make(item);
      if (place === entry.node) place = node;
      entry.node.replaceWith(node);
      if (focused) document.getElementById(focused)?.focus();
      entry = { text, node };
    }
    next.set(key, entry);
    if (place === entry.node) place = place.nextElementSibling;
    else parent.insertBefore(entry.node, place);
  }
  for (const [key, entry] of known) if (!next.has(key)) entry.node.remove();
  parent.known = next;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.00995) return `${(value * 1000).toFixed(2)} ms`;
  if (value < 0.0995) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// A route may be broken into lines where a part of it begins.
export function breakable(text) {
  return text.split(/(?=\/)/).flatMap((part, place) => (place ? [document.createElement("wbr"), part] : [part]));
}

export function clock(unix) {
  const time = new Date(unix * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

const ICONS = {
  "committed": "M2 8.5 6 12.5 14 3.5",
  "rolled back": "M6 2.5 2.5 6 6 9.5M3 6h6.5a4 4 0 0 1 0 8H7",
  "unknown": "M5 5.5a3 3 0 1 1 4.6 2.5C8.500 8.700 8 9.200 8 10.200M8 13.600v.1",
  "partial": "M8 2v12M2.500 8h5.500M11 5l3.500 6M14.500 5 11 11",
  "empty": "M4 8h8",
  "open": "M8 4.500v4l2.500 2M8 1.500a6.500 6.500 0 1 0 .01 0",
  "retried": "M13.500 4v3.500H10M13 7.500A5.500 5.500 0 1 0 13.500 9.500",
};

export function tag(kind, text = kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[kind] ?? ICONS.empty);
  svg.append(path);
  return h("span", { class: `tag is-${kind.replace(" ", "-")}` }, svg, text);
}

export function outcomeOf(unit) {
  return unit.outcome ?? (unit.is_open ? "open" : "empty");
}
