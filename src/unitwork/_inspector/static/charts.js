// A unit as a bar of segments: above what the database does, below the response.

import { h, seconds } from "./dom.js";

export const KINDS = {
  wait: "waits for a connection",
  begin: "BEGIN",
  statement: "statements",
  idle: "connection held, idle",
  outside: "outside()",
  commit: "COMMIT",
  rollback: "ROLLBACK",
  failed: "COMMIT that failed",
  unknown: "COMMIT without an answer",
  verify: "verification",
  start: "response starts",
  body: "response body",
  background: "background task",
};

const LANES = [
  ["Connection", ["wait", "idle", "outside"]],
  ["Transaction", ["begin", "statement", "commit", "rollback", "failed", "unknown", "verify"]],
  ["Response", ["body", "background"]],
];

function piece([kind, start, end, label], length) {
  const name = KINDS[kind] ?? kind;
  const lasted = end > start ? `, ${seconds(end - start)}` : "";
  const node = h("i", { class: kind, title: `${name}${label ? ` (${label})` : ""}: at ${seconds(start)}${lasted}` });
  const share = (value) => `${Math.min(100, (100 * value) / length)}%`;
  if (start >= length && end <= start) node.style.right = "0";
  else node.style.left = share(start);
  node.style.width = kind === "start" ? "2px" : share(end - start);
  return node;
}

// Units inside are thin; those that begin after the response are background tasks.
function inner(unit, children) {
  const done = unit.segments.find(([kind]) => kind === "body")?.[2] ?? Infinity;
  return children.map((child) => {
    const start = child.began - unit.began;
    const kind = start >= done ? "background" : "inner";
    return [kind, start, start + child.duration, `unit ${child.id}`];
  });
}

export function bar(unit, children, length) {
  const segments = [...unit.segments, ...inner(unit, children)];
  const node = h("div", { class: "bar", role: "img", "aria-label": describe(unit) });
  node.append(...segments.map((segment) => piece(segment, length)));
  return node;
}

export function lengthOf(unit, children = []) {
  const ends = children.map((child) => child.began - unit.began + child.duration);
  return Math.max(unit.duration, ...ends, 1e-6);
}

export function lanes(unit, children) {
  const length = lengthOf(unit, children) * 1.01;
  const segments = [...unit.segments, ...inner(unit, children)];
  const start = segments.find(([kind]) => kind === "start");
  const node = h("div", { class: "lanes", role: "img", "aria-label": describe(unit) });
  for (const [name, kinds] of LANES) {
    const lane = h("div", { class: "lane" });
    lane.append(...segments.filter(([kind]) => kinds.includes(kind)).map((each) => piece(each, length)));
    if (start) lane.append(piece(start, length));
    node.append(h("span", { text: name }), lane);
  }
  const axis = h("div", { class: "axis" });
  for (let step = 0; step <= 4; step += 1) {
    const mark = h("span", { text: step === 0 ? "0" : seconds((length * step) / 4) });
    mark.style.left = `${step * 25}%`;
    axis.append(mark);
  }
  node.append(h("span"), axis);
  return node;
}

// The same in words: what a picture shows to those who see it.
export function describe(unit) {
  const parts = [];
  const total = (kind) => unit.segments.filter((each) => each[0] === kind).reduce((sum, each) => sum + each[2] - each[1], 0);
  if (total("wait")) parts.push(`waited ${seconds(total("wait"))} for a connection`);
  if (unit.statements) parts.push(`${unit.statements} statements, ${seconds(total("statement"))}`);
  if (total("outside")) parts.push(`${seconds(total("outside"))} outside`);
  for (const [kind, from, to] of unit.segments) {
    if (["commit", "failed", "unknown"].includes(kind)) parts.push(`${KINDS[kind]} at ${seconds(from)}, ${seconds(to - from)}`);
    if (kind === "rollback") parts.push(`ROLLBACK at ${seconds(from)}`);
    if (kind === "start") parts.push(`response ${unit.status ?? ""} starts at ${seconds(from)}`);
  }
  return parts.join("; ") || "no transaction";
}

export function legend(kinds) {
  return h("ul", { class: "legend", "aria-label": "Legend" }, ...kinds.map((kind) =>
    h("li", {}, h("span", { class: `dot ${kind}` }), KINDS[kind])));
}

// What the order of COMMIT and response means for the client.
export function proof(unit) {
  const start = unit.segments.find(([kind]) => kind === "start");
  const commits = unit.segments.filter(([kind, , end]) => kind === "commit" && (!start || end <= start[1]));
  const unclear = unit.segments.some(([kind]) => kind === "unknown");
  if (unclear || unit.outcome === "unknown") {
    return ["bad", "The connection was lost during COMMIT. Nothing confirms that the change is stored, and nothing that it is not."];
  }
  if (unit.outcome === "partial") return ["bad", "One database has committed, and another one has not, or may not have."];
  if (unit.outcome === "rolled back") return ["lost", "Nothing of this unit is stored."];
  const later = unit.segments.some(([kind, , end]) => kind === "commit" && start && end > start[1]);
  if (later && commits.length === 0) return ["", "The transaction was kept for the body of the response, and ended before its last part."];
  if (!start || commits.length === 0) return null;
  const gap = start[1] - commits[commits.length - 1][2];
  return ["", `COMMIT was confirmed ${seconds(gap)} before the response started.`];
}
