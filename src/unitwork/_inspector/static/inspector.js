// The views. Each shows the JSON at its own address, which is fetched once a second.

import { bar, describe, lanes, legend, lengthOf, proof } from "./charts.js";
import { breakable, clock, count, h, outcomeOf, seconds, sync, tag } from "./dom.js";

const { root, view } = document.body.dataset;
const main = document.getElementById("main");
const state = document.getElementById("state");
const pause = document.getElementById("pause");
const EVERY = 1000;
const PHASES = {
  "waiting for a connection": "wait", "BEGIN": "begin", "statement": "statement",
  "idle in transaction": "idle", "outside": "outside", "before COMMIT": "ending",
  "COMMIT": "commit", "ROLLBACK": "rollback", "after its end": "ending",
  "no connection": "ending", "closed": "ending",
};
const OUTCOMES = ["committed", "rolled back", "unknown", "partial", "empty"];

const say = (text) => { document.getElementById("said").textContent = text; };
const link = (unit, text) => h("a", { class: "name", href: `${root}unit/${unit.id}`, id: `to-${unit.id}` }, ...breakable(text));
const cell = (props, ...children) => h("td", { role: "cell", ...props }, ...children);

const field = (name, control) => h("div", { class: "field" }, h("label", { for: control.id, text: name }), control);

function table(kind, caption, names, { cards = true, groups = [] } = {}) {
  const body = h("tbody", { role: "rowgroup" });
  const heads = names.map((name) => h("th", { role: "columnheader", scope: "col", class: name.startsWith("#") ? "number" : null, text: name.replace("#", "") }));
  const title = h("caption", { text: caption });
  const node = h("table", { role: "table", class: `of-${kind}${cards ? " cards" : ""}` }, title,
    h("thead", { role: "rowgroup" }, groups.length ? h("tr", { role: "row" }, ...groups.map(([text, colspan]) => h("th", { role: "columnheader", scope: "colgroup", colspan, text }))) : null,
      h("tr", { role: "row" }, ...heads)), body);
  return { node, body, title };
}

function kindOf(unit) {
  const parts = [`unit ${unit.id ?? "?"}`];
  if (unit.parent) parts.push(`in ${unit.parent}`);
  return h("span", { class: "sub", text: parts.join(", ") });
}

/* Live */

const live = {
  address: "live.json",
  title: "Live",
  build() {
    this.lead = h("p", { class: "lead" });
    this.pools = h("div", { class: "pools" });
    this.units = table("open", "Open units", ["Unit", "Phase", "#Age", "#Held", "Connection taken at", "Blocked by"]);
    this.none = h("p", { class: "blank", text: "No unit is open. As soon as a request uses a session, it is here." });
    main.append(h("h1", { text: this.title }), this.lead, this.pools, h("section", {}, this.units.node, this.none));
  },
  show(data) {
    const { units, databases, now } = data;
    const waiting = databases.reduce((sum, each) => sum + (each.waiting ?? 0), 0);
    this.lead.textContent = [count(units.length, "unit") + " open", count(units.reduce((n, u) => n + u.connections.length, 0), "connection") + " held", waiting ? `${waiting} waiting` : null].filter(Boolean).join(" · ");
    sync(this.pools, databases.map((each) => ({ ...each, cells: cellsOf(each, units) })), (each) => each.name, pool);
    sync(this.units.body, units.map((unit, place) => ({ ...unit, key: unit.id ?? `earlier ${place}` })), (unit) => unit.key, liveRow);
    for (const node of this.units.body.querySelectorAll("[data-since]")) {
      node.textContent = seconds(Math.max(0, now - Number(node.dataset.since)));
    }
    this.none.hidden = units.length > 0;
    this.units.node.hidden = units.length === 0;
  },
};

const isBlocked = (unit) => unit.connections.some((each) => each.blocked_by.length > 0);

function cellsOf(database, units) {
  const mine = units.flatMap((unit) => unit.connections.filter((each) => each.pool === database.name).map((each) => ({
    kind: PHASES[unit.phase], blocked: each.blocked_by.length > 0, title: `unit ${unit.id ?? "?"}, ${unit.name}: ${unit.phase}` })));
  const others = Math.max(0, (database.in_use ?? 0) - mine.length);
  const cells = [...mine, ...Array(others).fill({ kind: "other", title: "used by something that is no unit" })];
  cells.push(...Array(database.idle ?? 0).fill({ kind: "free", title: "idle in the pool" }));
  const limit = database.limit ?? Math.max(database.size ?? 0, cells.length);
  while (cells.length < Math.min(limit, 400)) cells.push({ kind: "unopened", title: "not opened" });
  return cells;
}

function pool({ cells, ...database }) {
  const { name, dialect, driver, size, limit, overflow, waiting, kind } = database;
  const total = (wanted) => cells.filter((each) => wanted.includes(each.kind)).length;
  const busy = cells.length - total(["free", "unopened", "idle"]);
  const blocked = cells.filter((each) => each.blocked).length;
  const facts = [["statement", busy, "at work"], ["idle", total(["idle"]), "idle in a transaction"], ["free", total(["free"]), "free"], ["unopened", total(["unopened"]), "not opened"]];
  if (blocked) facts.push(["blocked-dot", blocked, "blocked by a lock"]);
  if (waiting) facts.push(["wait", waiting, "waiting for a connection"]);
  const picture = h("div", { class: `cells${cells.length > 40 ? " many" : ""}`, role: "img", "aria-label": facts.map(([, number, what]) => `${number} ${what}`).join(", ") });
  const extra = size === null ? cells.length : size;
  const queue = Array(Math.min(waiting ?? 0, 40)).fill({ kind: "wait", title: "waiting for a connection" });
  const group = (name, some, look = "") => (some.length ? h("span", {}, h("b", { text: name }), h("span", {}, ...some.map((each) => h("span", { class: `cell ${each.kind}${look}${each.blocked ? " blocked" : ""}`, title: each.title })))) : "");
  picture.append(group("pool", cells.slice(0, extra)), group("overflow", cells.slice(extra), " extra"), group("waiting", queue));
  let room = "no pool";
  if (limit !== null && size === null) room = count(limit, "connection");
  if (size !== null) room = overflow < 0 ? `${size} connections, overflow without limit` : `${size} connections${overflow ? ` + ${overflow} overflow` : ""}`;
  return h("figure", { class: "pool", "data-pool": name },
    h("h2", { text: name }, h("small", { text: dialect ? `${dialect} · ${driver} · ${room}` : "not connected yet" })),
    picture,
    h("ul", { class: "tally" }, ...facts.map(([look, number, what]) => h("li", {}, h("span", { class: `dot ${look}` }), h("b", { text: number }), ` ${what}`))),
    database.lock_query ? h("p", { class: "why", text: `Lock waits can't be queried: ${database.lock_query}` }) : null);
}

function liveRow(unit) {
  const [connection] = unit.connections;
  const phase = unit.phase === "outside" ? `outside(${unit.about})` : unit.phase;
  const look = isBlocked(unit) ? "blocked-dot" : PHASES[unit.phase];
  const since = (value, label) => cell({ class: "number", "data-label": label }, value === undefined ? "" : h("span", { "data-since": value }));
  const sql = connection?.sql;
  return h("tr", { role: "row", id: `unit-${unit.id}` },
    cell({}, unit.id === null ? unit.name : link(unit, unit.name), kindOf(unit), unit.attempt > 1 ? tag("retried", `attempt ${unit.attempt}`) : null),
    cell({}, h("span", { class: `dot ${look}` }), phase, isBlocked(unit) ? h("span", { class: "sub", text: "blocked by a lock" }) : null),
    since(unit.began, "age"),
    since(connection?.taken, "held"),
    cell({ class: "full", "data-label": connection ? "at" : null }, ...unit.connections.flatMap(({ at, database }) => site(at, unit.connections.length > 1 ? database : "")), sql ? h("code", { class: "sub", text: sql }) : null),
    cell({ class: "full", "data-label": isBlocked(unit) ? "blocked by" : null }, ...unit.connections.flatMap((each) => each.blocked_by.map(blocker))));
}

function site(at, database) {
  const [line, inside] = (at || "a line that is not known").split(" in ");
  return [h("code", {}, ...breakable(line)), h("span", { class: "sub", text: [inside && `in ${inside}`, database].filter(Boolean).join(", ") })];
}

function blocker(each) {
  const age = each.seconds === null ? "" : `, for ${seconds(each.seconds)}`;
  if (each.unit) return h("span", {}, h("a", { href: `#unit-${each.unit}`, text: `unit ${each.unit}` }), h("span", { class: "sub", text: `${each.state}${age}` }));
  const who = each.pid === 0 ? "a prepared transaction" : `connection ${each.pid}${each.client ? ` of ${each.client}` : ""}`;
  return h("span", {}, who, h("span", { class: "sub", text: `${each.state}${age}` }));
}

/* Timeline */

const timeline = {
  title: "Timeline",
  units: new Map(),
  version: 0,
  get filters() { return new URLSearchParams(location.search); },
  get address() {
    const wanted = new URLSearchParams(this.filters);
    wanted.delete("scale");
    if (this.version) wanted.set("since", this.version);
    return `timeline.json?${wanted}`;
  },
  build() {
    this.lead = h("p", { class: "lead", text: "The last units, newest first. Green is COMMIT; the line with the flag is the start of the response." });
    this.route = h("select", { id: "route", name: "route" });
    this.outcome = h("select", { id: "outcome", name: "outcome" });
    this.scale = h("input", { type: "checkbox", id: "scale", name: "scale", value: "same" });
    this.form = h("form", { role: "search", "aria-label": "Filter" },
      field("Route", this.route), field("Outcome", this.outcome),
      h("label", { class: "check" }, this.scale, "Same scale for all"));
    this.list = table("units", "Units", ["Began", "Unit", "Outcome", "What happened", "#Time"]);
    this.none = h("p", { class: "blank" });
    const names = [["", "All outcomes"], ...OUTCOMES.map((each) => [each, each]), ["retried", "retried"], ["open", "still open"]];
    sync(this.outcome, names, ([value]) => value, ([value, text]) => h("option", { value, text }));
    this.outcome.value = this.filters.get("outcome") ?? "";
    this.scale.checked = this.filters.get("scale") === "same";
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", () => this.filter());
    main.append(h("h1", { text: this.title }), this.lead, this.form,
      legend(["wait", "begin", "statement", "idle", "outside", "commit", "rollback", "failed", "unknown", "start", "body", "background"]),
      h("section", {}, this.list.node, this.none));
  },
  filter() {
    const wanted = new URLSearchParams();
    for (const [name, value] of new FormData(this.form)) if (value) wanted.set(name, value);
    history.replaceState(null, "", wanted.size ? `?${wanted}` : location.pathname);
    this.version = 0;
    this.announce = true;
    refresh();
  },
  show(data) {
    const kept = new Set(data.kept);
    if (!this.version) this.units.clear();
    for (const unit of data.units) {
      const before = this.units.get(unit.id);
      if (before && before.outcome !== "unknown" && unit.outcome === "unknown") say(`Unknown outcome: ${unit.name}, unit ${unit.id}`);
      this.units.set(unit.id, unit);
    }
    for (const id of this.units.keys()) if (!kept.has(id)) this.units.delete(id);
    this.version = data.version;
    const chosen = this.filters.get("route") ?? "";
    const routes = [...new Set([...data.routes, chosen])].filter(Boolean).sort();
    sync(this.route, [["", "All routes"], ...routes.map((each) => [each, each])], ([value]) => value, ([value, text]) => h("option", { value, text }));
    this.route.value = chosen;
    const units = [...this.units.values()].sort((one, other) => other.id - one.id);
    const children = new Map();
    for (const unit of units) if (unit.parent) children.set(unit.parent, [...(children.get(unit.parent) ?? []), unit]);
    const inside = (unit) => children.get(unit.id) ?? [];
    const longest = Math.max(...units.map((unit) => lengthOf(unit, inside(unit))), 1e-6);
    const same = this.scale.checked;
    sync(this.list.body, units.map((unit) => ({ unit, children: inside(unit), length: same ? longest : lengthOf(unit, inside(unit)) })), (each) => each.unit.id, unitRow);
    this.list.node.hidden = units.length === 0;
    this.none.hidden = units.length > 0;
    this.none.textContent = this.filters.size ? "No recorded unit matches the filter." : "No unit has ended yet.";
    this.list.title.replaceChildren("Units", h("small", { text: count(units.length, "unit") }));
    if (this.announce) say(`${count(units.length, "unit")} shown`);
    this.announce = false;
  },
};

function unitRow({ unit, children, length }) {
  const outcome = outcomeOf(unit);
  const tags = [tag(outcome)];
  if (unit.attempt > 1 || unit.retried) tags.push(" ", tag("retried", unit.retried ? "retried" : `attempt ${unit.attempt}`));
  const usual = /^status 2|^the block ended/.test(unit.reason);
  const why = unit.reason && !usual ? unit.reason + (unit.sqlstate ? ` (${unit.sqlstate})` : "") : "";
  return h("tr", { role: "row", class: `is-${outcome.replace(" ", "-")}` },
    cell({ class: "mono" }, clock(unit.began)),
    cell({ class: "full" }, link(unit, unit.name), kindOf(unit)),
    cell({}, ...tags, why ? h("span", { class: "sub", text: why }) : null),
    cell({ class: "full", title: describe(unit) }, bar(unit, children, length)),
    cell({ class: "number" }, seconds(unit.duration)));
}

/* One unit */

const unit = {
  title: "Unit",
  address: `unit/${location.pathname.split("/").pop()}.json`,
  build() {
    this.content = h("div");
    main.append(h("p", {}, h("a", { href: `${root}timeline`, text: "← Timeline" })), this.content);
  },
  missing() {
    this.content.replaceChildren(h("h1", { text: "This unit is not known" }), h("p", { class: "lead", text: "It has never been, or it is one of those before the last units, which are kept." }));
  },
  show(data) {
    const text = JSON.stringify(data.unit);
    if (text === this.text) return;
    this.text = text;
    const one = data.unit;
    document.title = `${one.name}, unit ${one.id} · unitwork`;
    const fact = (name, value, wide = false) => (value === null || value === "" ? null : h("div", { class: wide ? "wide" : null }, h("dt", { text: name }), h("dd", {}, value)));
    const other = (number) => h("a", { href: `${root}unit/${number}`, id: `to-${number}`, text: `unit ${number}` });
    const focused = this.content.contains(document.activeElement) ? document.activeElement.id : "";
    const said = proof(one);
    const events = table("events", "Events", ["#After", "Event", "#Took", "Details"], { cards: false });
    sync(events.body, one.events.map((each, place) => ({ ...each, place })), (each) => each.place, eventRow);
    const kinds = [...new Set([...one.segments.map(([kind]) => kind), ...(one.children.length ? ["background"] : [])])];
    this.content.replaceChildren(
      h("h1", {}, ...breakable(one.name)),
      h("p", { class: "lead" }, `Unit ${one.id} `, tag(outcomeOf(one)), ...(one.attempt > 1 || one.retried ? [" ", tag("retried", one.retried ? "retried" : `attempt ${one.attempt}`)] : [])),
      said ? h("p", { class: `proof ${said[0]}`, text: said[1] }) : "",
      lanes(one, one.children), legend(Object.keys(PHASE_ORDER).filter((kind) => kinds.includes(kind))),
      h("dl", { class: "facts" }, fact("Began", clock(one.began)), fact("Time", seconds(one.duration)), fact("Response", one.status), fact("Reason", one.reason + (one.sqlstate ? ` (${one.sqlstate.length === 5 ? "SQLSTATE" : "error"} ${one.sqlstate})` : ""), true),
        fact("Statements", one.statements), fact("Connection held", one.connections ? seconds(one.held) : null), fact("Of that, idle", one.connections ? seconds(one.idle) : null), fact("Attempt", one.attempt),
        fact("Inside", one.parent ? other(one.parent) : null), fact("Databases", one.databases.join(", ")), fact("Connections of", one.pools.join("; ") || null), fact("Path", one.path ? `${one.method} ${one.path}` : null, true)),
      one.children.length ? h("section", {}, h("h2", { text: "Units inside, and of background tasks" }), h("ul", {}, ...one.children.map((each) => h("li", {}, other(each.id), ` ${each.name} `, tag(outcomeOf(each)))))) : "",
      h("section", { class: "events scroll", id: "events", tabindex: "0", role: "region", "aria-label": "Events" }, events.node));
    if (focused) document.getElementById(focused)?.focus();
  },
};
const PHASE_ORDER = { wait: 1, begin: 1, statement: 1, idle: 1, outside: 1, commit: 1, rollback: 1, failed: 1, unknown: 1, verify: 1, start: 1, body: 1, background: 1 };

function eventRow(event) {
  return h("tr", { role: "row" },
    cell({ class: "number mono" }, seconds(event.at)),
    cell({}, event.what),
    cell({ class: "number mono" }, event.seconds ? seconds(event.seconds) : ""),
    cell({}, event.failed ? "failed: " : "", event.text ? h("code", { text: event.text }) : event.pool || event.database));
}

/* Outcomes */

const outcomes = {
  address: "outcomes.json",
  title: "Outcomes",
  build() {
    this.lead = h("p", { class: "lead" });
    this.routes = table("routes", "Routes", ["Route", "#Units", "#Last min.", "Outcomes", "#Retries", "#p50", "#p95", "#p99", "#p50", "#p95", "#max"], { groups: [["", 5], ["Time of COMMIT", 3], ["Connection held", 3]] });
    this.reasons = table("reasons", "Reasons", ["Route", "Outcome", "Reason", "#Units", "Last"]);
    this.none = h("p", { class: "blank", text: "No unit has ended yet." });
    const part = (name, made) => h("section", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, made.node);
    this.parts = [part("Routes", this.routes), part("Reasons", this.reasons)];
    main.append(h("h1", { text: this.title }), this.lead, ...this.parts, this.none);
  },
  show(data) {
    const total = data.routes.reduce((sum, each) => sum + each.units, 0);
    this.lead.textContent = `${count(total, "unit")} since ${clock(data.recording_since)}. Times are those of the last 500 of each route.`;
    sync(this.routes.body, data.routes, (each) => each.name, routeRow);
    sync(this.reasons.body, data.reasons, (each) => `${each.name}|${each.outcome}|${each.reason}`, reasonRow);
    for (const part of this.parts) part.hidden = total === 0;
    this.none.hidden = total > 0;
  },
};

function percent(share) {
  const value = 100 * share;
  return `${value < 0.1 ? "< 0.1" : value.toFixed(value < 10 ? 1 : 0)} %`;
}

function routeRow(route) {
  const told = OUTCOMES.filter((each) => route.outcomes[each]);
  const share = h("div", { class: "share", role: "img", "aria-label": told.map((each) => `${route.outcomes[each]} ${each}`).join(", ") });
  for (const each of told) {
    const part = h("i", { class: `is-${each.replace(" ", "-")}`, title: `${each}: ${route.outcomes[each]}` });
    part.style.flex = String(route.outcomes[each]);
    share.append(part);
  }
  const rates = told.filter((each) => each !== "committed").map((each) => `${percent(route.outcomes[each] / route.units)} ${each}`);
  const number = (label, value) => cell({ class: "number", "data-label": label }, value);
  const times = (label, kind, names) => names.map((name) => number(`${label} ${name}`, seconds(route[kind]?.[name])));
  const open = h("a", { class: "name", href: `${root}timeline?${new URLSearchParams({ route: route.name })}`, id: `of-${route.name}` }, ...breakable(route.name));
  return h("tr", { role: "row" }, cell({ class: "full" }, open), number("units", route.units), number("last minute", route.last_minute),
    cell({ class: "full" }, share, h("span", { class: "sub", text: rates.join(", ") })), number("retries", route.repeated_attempts),
    ...times("COMMIT", "commit", ["p50", "p95", "p99"]), ...times("held", "held", ["p50", "p95", "max"]));
}

function reasonRow(each) {
  return h("tr", { role: "row" }, cell({}, each.name), cell({}, tag(each.outcome)), cell({}, each.reason),
    cell({ class: "number", "data-label": "units" }, each.count), cell({ class: "mono", "data-label": "last" }, clock(each.last)));
}

/* The loop */

const shown = { live, timeline, unit, outcomes }[view];
let paused = false;
let timer = 0;
let running = null;
let process = 0;

async function refresh() {
  clearTimeout(timer);
  running?.abort();
  const mine = running = new AbortController();
  let wait = EVERY;
  try {
    const answer = await fetch(root + shown.address, { signal: mine.signal, headers: { accept: "application/json" } });
    if (answer.status === 404 && shown.missing) shown.missing();
    else if (!answer.ok) throw new Error(answer.status === 404 ? "No access any more" : `Status ${answer.status}`);
    else {
      const data = await answer.json();
      shown.show(data);
      const changed = process && process !== data.process;
      process = data.process;
      document.getElementById("process").textContent = `Process ${process}.${changed ? " Several processes answer, and each shows its own units." : ""}`;
    }
    state.className = paused ? "paused" : "";
    state.textContent = paused ? "Paused" : "Up to date";
  } catch (error) {
    if (mine.signal.aborted) return;
    wait = 3 * EVERY;
    state.className = "failed";
    const text = error instanceof TypeError ? "No answer; trying again" : error.message;
    if (state.textContent !== text) say(text);
    state.textContent = text;
  }
  document.documentElement.dataset.shown = String(Date.now());
  if (!paused && !document.hidden) timer = setTimeout(refresh, wait);
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Resume" : "Pause";
  if (paused) {
    clearTimeout(timer);
    state.className = "paused";
    state.textContent = "Paused";
  } else refresh();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) refresh();
});

document.title = `${shown.title} · unitwork`;
document.getElementById("twin").href = root + shown.address.split("?")[0];
document.querySelector(`nav a[data-of="${view === "unit" ? "timeline" : view}"]`)?.setAttribute("aria-current", view === "unit" ? "true" : "page");
shown.build();
refresh();
