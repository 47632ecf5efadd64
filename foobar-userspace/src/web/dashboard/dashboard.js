// Draws what /events tells each second; asks for nothing else and changes nothing.
"use strict";

const SECONDS = 300;
const $ = (id) => document.getElementById(id);
let frames = [];
let paused = false;
let heard = 0;

const UNITS = ["", "k", "M", "G", "T", "P"];
function short(number) {
  let unit = 0;
  let value = Math.abs(number) < 0.05 ? 0 : number;
  while (Math.abs(value) >= 999.5 && unit + 1 < UNITS.length) { value /= 1000; unit += 1; }
  const digits = value === 0 || value >= 99.95 || (unit === 0 && Number.isInteger(value)) ? 0 : 1;
  return value.toFixed(digits) + UNITS[unit];
}

// An element with a class, text and children; text is never read as HTML.
function make(tag, name, ...inside) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...inside.filter((one) => one !== null));
  return element;
}

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

// Lines over the last five minutes, the newest at the right edge; the first also as an area.
function draw(canvas, lines) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  canvas.width = width * ratio; canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const top = Math.max(1, ...lines.flatMap((line) => line.values)) * 1.12;
  const x = (index, count) => width - (count - 1 - index) * width / (SECONDS - 1);
  const y = (value) => height - 1 - value / top * (height - 12);
  pen.strokeStyle = color("--line"); pen.lineWidth = 1;
  pen.beginPath();
  for (const part of [0, .5, 1]) { const at = Math.round(y(top / 1.12 * part)) + .5; pen.moveTo(0, at); pen.lineTo(width, at); }
  pen.stroke();
  for (const line of lines) {
    const shade = color(line.color);
    pen.beginPath();
    line.values.forEach((value, index) => pen[index ? "lineTo" : "moveTo"](x(index, line.values.length), y(value)));
    pen.strokeStyle = shade; pen.lineWidth = 1.75; pen.lineJoin = "round"; pen.stroke();
    if (lines.length === 1 && line.values.length > 1) {
      pen.lineTo(width, height); pen.lineTo(x(0, line.values.length), height); pen.closePath();
      pen.globalAlpha = .14; pen.fillStyle = shade; pen.fill(); pen.globalAlpha = 1;
    }
  }
  pen.fillStyle = color("--dim"); pen.font = "11px ui-sans-serif, system-ui, sans-serif"; pen.textBaseline = "top";
  if (top > 1.2) pen.fillText(short(top / 1.12), 2, 1);
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const all = (frame) => (frame.sites || []).concat(frame.services);
const requests = (frame) => sum(all(frame).map((one) => one.qps));
const out = (frame) => sum(all(frame).map((one) => one["bytes-out"])) * 8;
const dropped = (frame) => sum(frame.drops.map(([, rate]) => rate));

function totals(frame) {
  for (const [name, of, shade] of [["qps", requests, "--c0"], ["out", out, "--c1"], ["drops", dropped, "--bad"]]) {
    $("total-" + name).textContent = short(of(frame));
    draw($("chart-" + name), [{ color: shade, values: frames.map(of) }]);
  }
}

// A panel for each entry, made once and filled each second, so that a reader's place and focus stay.
function panels(parent, entries, key, build, fill) {
  const known = new Map([...parent.children].map((panel) => [panel.dataset.key, panel]));
  for (const entry of entries) {
    const name = key(entry);
    let panel = known.get(name);
    if (!panel) { panel = build(entry); panel.dataset.key = name; parent.append(panel); }
    known.delete(name);
    fill(panel, entry);
  }
  for (const gone of known.values()) gone.remove();
}

function balanced(kind) {
  return {
    build(service) {
      const canvas = make("canvas");
      canvas.setAttribute("role", "img");
      const body = make("tbody");
      const head = make("thead", "", make("tr", "", ...["backend", "state", "weight", kind === "sites" ? "p99" : "out/s", "qps"].map((one) => make("th", "", one))));
      return make("article", "", make("header", "", make("h3", "", service.name), make("span", "where"), make("span", "big")), canvas, make("table", "", head, body));
    },
    fill(panel, service) {
      panel.querySelector(".where").textContent = (service.vips || []).join("  ");
      const errors = service["error-rate"] ? `5xx ${(service["error-rate"] * 100).toFixed(1)} %  ` : "";
      const extra = errors + (service.p99 ? `p50 ${Math.round(service.p50 * 1000)} ms  p99 ${Math.round(service.p99 * 1000)} ms  ` : "");
      panel.querySelector(".big").replaceChildren(make("small", "", extra), short(service.qps), make("small", "", " qps"));
      const past = (name) => frames.map((frame) => {
        const then = (frame[kind] || []).find((one) => one.name === service.name);
        const backend = then && then.backends.find((one) => one.name === name);
        return backend ? backend.qps : 0;
      });
      const canvas = panel.querySelector("canvas");
      canvas.setAttribute("aria-label", `Queries per second of each backend of ${service.name}`);
      draw(canvas, service.backends.map((backend, index) => ({ color: "--c" + index % 8, values: past(backend.name) })));
      panel.querySelector("tbody").replaceChildren(...service.backends.map((backend, index) => make("tr", "",
        make("td", "", make("span", "swatch s" + index % 8), backend.name),
        make("td", backend.state || "none", backend.state || "by role"),
        make("td", "", backend.weight === null || backend.weight === undefined ? "-" : String(backend.weight)),
        make("td", "", kind !== "sites" ? short(backend["bytes-out"] * 8) + "b" : backend.p99 ? `${Math.round(backend.p99 * 1000)} ms` : "-"),
        make("td", "", short(backend.qps)))));
    },
  };
}

// Why a member is not what one would like; that a replica takes no writes is as it should be.
function reason(member) {
  const usual = member.role === "replica" && member.reads === "yes";
  return [usual ? "" : member.reason, member.detail, member.errant ? `errant: ${member.errant}` : ""].filter(Boolean).join("; ");
}

// The one that takes the writes first, its replicas behind it.
function clusters(frame) {
  const build = () => make("article", "", make("header", "", make("h3"), make("span", "where"), make("span", "big")), make("div", "members"), make("p", "none"));
  panels($("clusters"), frame.clusters || [], (one) => one.name, build, (panel, cluster) => {
    panel.querySelector("h3").textContent = cluster.name;
    const automatic = cluster.mode === "promote" ? (cluster.armed ? "promote, armed" : "promote, not armed") : cluster.mode;
    panel.querySelector(".where").textContent = `write ${cluster.write.join(" ")}  read ${cluster.read.join(" ")}  ${automatic}`;
    panel.querySelector(".big").replaceChildren(...(cluster.writer ? [cluster.writer, make("small", "", " takes writes")] : ["no writer"]));
    panel.querySelector(".big").classList.toggle("down", !cluster.writer);
    panel.querySelector("p").textContent = [cluster.operation, cluster.paused, ...cluster.alarms].filter(Boolean).join("; ");
    const first = (member) => member.host === cluster.writer ? 0 : member.role === "primary" ? 1 : 2;
    const furthest = Math.max(1, ...cluster.members.map((member) => member["lag-seconds"] || 0));
    panel.querySelector(".members").replaceChildren(...[...cluster.members].sort((a, b) => first(a) - first(b)).map((member) => {
      const lag = member["lag-seconds"];
      const kind = member.state === "gone" ? "lost" : member.state !== "up" || member.errant ? "doubtful" : member.role === "primary" ? "primary" : "";
      const facts = [lag === null || lag === undefined ? "" : `lag ${lag.toFixed(1)} s`, member.qps ? short(member.qps) + " qps" : "", member.reads === "no" ? "no reads" : ""].filter(Boolean).join(" · ");
      const behind = member.source ? `from ${member.source}` : "";
      const bar = make("progress"); bar.max = furthest; bar.value = lag || 0;
      bar.setAttribute("aria-label", `Lag of ${member.host}`);
      bar.hidden = member.role !== "replica";
      return make("div", "member " + kind,
        make("div", "", make("b", "", `${member.host}:${member.port}`), make("span", "role", member.role)),
        make("div", "", [facts, behind].filter(Boolean).join(" · ")), bar,
        make("small", "", reason(member)));
    }));
  });
}

function bars(list, entries, none) {
  const busy = entries.filter(([, value]) => value >= .05);
  const most = Math.max(1, ...busy.map(([, value]) => value));
  if (!busy.length) { list.replaceChildren(make("li", "none", none)); return; }
  list.replaceChildren(...busy.map(([name, value]) => {
    const bar = make("progress"); bar.max = most; bar.value = value; bar.setAttribute("aria-hidden", "true");
    return make("li", "", make("span", "", name), make("b", "", short(value) + "/s"), bar);
  }));
}

function firewall(frame) {
  bars($("drops"), frame.drops.slice(0, 8), "nothing is dropped");
  bars($("rules"), frame.rules.map((rule) => [`${rule.policy}/${rule.rule}`, rule.packets]), "no rule decides anything");
  const modes = new Map((frame.controller ? frame.controller.interfaces : []).map((one) => [one.name, one.xdp]));
  $("interfaces").tBodies[0].replaceChildren(...frame.interfaces.map((one) => {
    const mode = modes.get(one.name) || "-";
    return make("tr", "", make("td", "", one.name), make("td", "", one.device), make("td", mode === "native" ? "up" : "drain", mode), make("td", "", short(one.passed)), make("td", "", short(one.dropped)));
  }));
}

function alerts(frame) {
  const firing = frame.alerts.filter((alert) => alert.state === "firing");
  const banners = firing.map((alert) => {
    const since = alert.since ? "since " + new Date(alert.since * 1000).toLocaleTimeString() : "";
    return make("p", alert.severity, make("b", "", alert.name), `${alert.metric}${alert.of ? " of " + alert.of : ""} is ${alert.said || "?"}, fires ${alert.threshold}`, make("span", "", since));
  });
  // Announced when they change, not each second.
  const now = firing.map((alert) => alert.name + alert.said).join();
  if ($("alerts").dataset.now !== now) { $("alerts").dataset.now = now; $("alerts").replaceChildren(...banners); }
  const dots = { calm: "good", pending: "doubt", firing: "bad" };
  $("alert-list").replaceChildren(...(frame.alerts.length ? frame.alerts.map((alert) => make("li", "",
    make("span", "dot " + dots[alert.state]), `${alert.name} `,
    make("small", "", `${alert.said === null || alert.said === undefined ? "no value" : alert.said}, fires ${alert.threshold}`))) : [make("li", "none", "none defined")]));
  return firing.length;
}

function state(frame, firing) {
  const down = all(frame).flatMap((service) => service.backends).filter((backend) => backend.state === "down").length;
  const failed = frame.controller && frame.controller["reload-failed"];
  const headless = (frame.clusters || []).filter((cluster) => !cluster.writer).map((cluster) => cluster.name);
  const alarms = sum((frame.clusters || []).map((cluster) => cluster.alarms.length));
  const worst = firing || failed || headless.length ? "bad" : down || alarms ? "doubt" : "good";
  const words = [firing && `${firing} alert${firing > 1 ? "s" : ""} firing`, down && `${down} backend${down > 1 ? "s" : ""} down`, headless.length && `no writer in ${headless.join(", ")}`, !headless.length && alarms && `${alarms} database alarm${alarms > 1 ? "s" : ""}`, failed && "last reload failed"].filter(Boolean);
  $("state").className = worst;
  $("state-text").textContent = words.join(", ") || "all well";
  document.title = `${words.length ? "! " : ""}${frame.node} · ${short(requests(frame))} qps`;
  const facts = [];
  if (frame.controller) {
    const hours = (frame.controller.at - frame.controller["started-at"]) / 3600;
    facts.push("foobar " + frame.controller.version, hours >= 48 ? `up ${Math.floor(hours / 24)} days` : hours >= 1 ? `up ${Math.floor(hours)} h` : `up ${Math.max(1, Math.round(hours * 60))} min`, "generation " + frame.controller.generation);
  }
  for (const line of frame.exports) facts.push(line.exporter + " " + line.signal + (line.trouble ? ": " + line.trouble : " ok"));
  $("facts").textContent = facts.join("  ·  ");
  $("node").textContent = frame.node;
}

const SERVICE = balanced("services"), SITE = balanced("sites");
function show() {
  const frame = frames[frames.length - 1];
  if (!frame || paused) return;
  totals(frame);
  panels($("sites"), frame.sites || [], (one) => one.name, SITE.build, SITE.fill);
  panels($("services"), frame.services, (one) => one.name, SERVICE.build, SERVICE.fill);
  clusters(frame);
  firewall(frame);
  state(frame, alerts(frame));
  document.body.dataset.drawn = String(frames.length);
}

function take(frame) { frames.push(frame); if (frames.length > SECONDS) frames.shift(); heard = Date.now(); document.body.classList.remove("stale"); }

const events = new EventSource("events");
events.addEventListener("history", (event) => { frames = []; JSON.parse(event.data).forEach(take); show(); });
events.addEventListener("frame", (event) => { take(JSON.parse(event.data)); show(); });
setInterval(() => {
  if (Date.now() - heard < 5000) return;
  document.body.classList.add("stale");
  $("state").className = "bad";
  $("state-text").textContent = "no news from the node";
}, 1000);
addEventListener("resize", show);

function pause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "paused" : "pause";
  show();
}
function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : !matchMedia("(prefers-color-scheme: light)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a private window keeps nothing */ }
  show();
}
function help() {
  $("keys").hidden = !$("keys").hidden;
  $("help").setAttribute("aria-expanded", String(!$("keys").hidden));
}
function walk(step) {
  const all = [...document.querySelectorAll("main > section")].filter((section) => section.offsetHeight);
  const next = all[Math.min(all.length - 1, Math.max(0, all.indexOf(document.activeElement) + step))];
  if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
}
const KEYS = { p: pause, t: theme, "?": help, j: () => walk(1), k: () => walk(-1) };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const act = KEYS[event.key];
  if (act) { event.preventDefault(); act(); }
});
$("pause").addEventListener("click", pause);
$("theme").addEventListener("click", theme);
$("help").addEventListener("click", help);
try { const kept = localStorage.getItem("theme"); if (kept) document.documentElement.dataset.theme = kept; } catch { /* as above */ }
