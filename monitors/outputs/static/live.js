// The live page: receives the monitor's events and shows its beds, traces and alarms.
// Text from outside is always set as text, never as markup.

import { Alarms, KINDS, REFERENCES, current, measuredRate, seconds, send } from "./live_alarms.js";
import { onScheme } from "./live_beats.js";
import { Clock, Trace, display, merged } from "./live_traces.js";

const STALE = 10; // seconds without data of a bed, or from the monitor, after which it is shown as old
const find = (id) => document.getElementById(id);
const copy = (id) => find(id).content.firstElementChild.cloneNode(true);
const now = () => performance.now() / 1000;
const still = matchMedia("(prefers-reduced-motion: reduce)");

const beds = new Map(); // stream: {bed, arrived, tile, card}
const alarms = new Alarms(since, present, visit, ask);
let shown = [];
let most = 12;
let chosen = (new URLSearchParams(location.search).get("streams") ?? "").split(",").filter(Boolean);
// Traces outside of the window are not drawn.
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const card = beds.get(target.stream)?.card;
    if (card) Object.assign(card, { visible: isIntersecting, changed: true });
  }
}, { rootMargin: "100px" });
let source = null;
let choosing = null;
let heard = now();
let trouble = null;
const dirty = new Set(); // streams whose numbers changed

// Seconds since the onset of an alarm, by the clock of the samples, so that replayed recordings are right too. Without
// a bed that clock is unknown: then by the wall clock; null where that gives more than a day.
function since(alarm) {
  const entry = beds.get(alarm.stream);
  if (entry) return entry.bed.time + now() - entry.arrived - alarm.onset;
  const age = Date.now() / 1000 - alarm.onset;
  return age < 86400 ? age : null;
}

function present(alarm) {
  const entry = beds.get(alarm.stream);
  return current(alarm, entry?.bed, entry ? now() - entry.arrived : 0);
}

function connect() {
  const query = chosen.length ? `?streams=${chosen.map(encodeURIComponent).join(",")}` : "";
  history.replaceState(null, "", query || location.pathname);
  const mine = new EventSource(`/events${query}`);
  const before = source;
  source = mine;
  mine.onmessage = ({ data }) => {
    // The old connection stays open until the new one delivers: else choosing beds would leave gaps in the traces.
    before?.close();
    heard = now();
    calm();
    const event = JSON.parse(data);
    EVENTS[event.type]?.(event);
  };
  mine.onerror = () => {
    if (mine !== source) return;
    before?.close();
    warn("Connection lost at");
    // A browser does not reconnect after a refusal, so the page does.
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => mine === source && connect(), 3000);
  };
}

function warn(what) {
  if (trouble) return;
  const at = new Date().toLocaleTimeString([], { hour12: false });
  trouble = `${what} ${at}. The data shown is out of date. Reconnecting…`;
  document.body.classList.add("lost");
  find("banner").textContent = trouble;
  find("banner").hidden = false;
}

function calm() {
  if (!trouble) return;
  trouble = null;
  document.body.classList.remove("lost");
  find("banner").hidden = true;
}

const EVENTS = {
  snapshot({ beds: all, alarms: open, note, shown: streams, traces }) {
    const streamsNow = new Set(all.map(({ stream }) => stream));
    for (const stream of [...beds.keys()]) if (!streamsNow.has(stream)) discharge(stream);
    if (traces) most = traces;
    for (const bed of all) update(bed);
    alarms.reset(open);
    find("note").textContent = note ?? "";
    if (streams) show(streams);
    beds.forEach((_, stream) => dirty.add(stream));
  },
  bed: update,
  shown: ({ streams }) => show(streams),
  trace({ stream, lead, start, rate, values }) {
    const card = beds.get(stream)?.card;
    if (!card || !(rate > 0) || !values.length) return;
    card.clock.arrived(start, start + values.length / rate, now());
    if (!card.traces.has(lead)) {
      const element = copy("lead");
      card.element.querySelector(".leads").append(element);
      card.traces.set(lead, new Trace(element, lead));
    }
    card.traces.get(lead).add(start, rate, values);
    card.changed = true;
  },
  beats({ stream, beats: more }) {
    const card = beds.get(stream)?.card;
    if (!card) return;
    card.beats = merged(card.beats, more);
    card.changed = true;
  },
  alarm(alarm) {
    alarms.take(alarm);
    dirty.add(alarm.stream);
  },
  discharge: ({ stream }) => discharge(stream),
  status({ sources = {}, behind = 0, streams, shards = [] }) {
    const items = Object.entries(sources).map(([name, up]) => [up ? "good" : "bad", `${name} ${up ? "connected" : "disconnected"}`]);
    items.push([behind > 2 ? "bad" : "good", behind > 2 ? `${behind.toFixed(1)} s behind` : "no delay"]);
    const down = shards.filter(({ ok }) => ok === false).length;
    if (shards.length) items.push([down ? "bad" : "good", `${shards.length - down} of ${shards.length} shards up`]);
    if (streams !== undefined) items.push(["", `${streams} ${streams === 1 ? "stream" : "streams"}`]);
    find("status").replaceChildren(...items.map(([state, text]) => {
      const item = document.createElement("li");
      item.className = state;
      item.textContent = text;
      return item;
    }));
  },
};

function update(bed) {
  let entry = beds.get(bed.stream);
  if (!entry) {
    entry = { bed, tile: copy("tile"), card: null };
    entry.tile.querySelector(".stream").textContent = bed.stream;
    entry.tile.onclick = () => choose(bed.stream, !shown.includes(bed.stream));
    entry.tile.hidden = !matches(bed.stream);
    beds.set(bed.stream, entry);
    // Sorted by name, so that a bed keeps its place.
    let after = null;
    for (const name of beds.keys()) if (name > bed.stream && (after === null || name < after)) after = name;
    find("tiles").insertBefore(entry.tile, beds.get(after)?.tile ?? null);
    if (shown.includes(bed.stream)) open(bed.stream);
  }
  // A repeated reading of the same time is not new data.
  if (entry.arrived === undefined || bed.time !== entry.bed.time) entry.arrived = now() - (bed.age ?? 0);
  entry.bed = bed;
  dirty.add(bed.stream);
}

function discharge(stream) {
  const entry = beds.get(stream);
  entry?.tile.remove();
  entry?.card?.element.remove();
  beds.delete(stream);
  shown = shown.filter((name) => name !== stream);
  alarms.discharge(stream);
}

function visit(stream) {
  choose(stream, true);
  beds.get(stream)?.card?.element.scrollIntoView({ block: "nearest" });
}

// Takes over the user's choice of beds: from now on the page requests these.
function choose(stream, wanted) {
  if (wanted === shown.includes(stream)) return;
  chosen = shown.filter((name) => name !== stream);
  if (wanted) chosen = [stream, ...chosen].slice(0, most);
  show(chosen);
  clearTimeout(choosing);
  choosing = setTimeout(connect, 300);
}

function show(streams) {
  shown = streams;
  for (const [stream, entry] of beds) {
    if (shown.includes(stream)) open(stream);
    else if (entry.card) {
      seen.unobserve(entry.card.element);
      entry.card.element.remove();
      entry.card = null;
    }
    dirty.add(stream);
  }
  const cards = shown.map((stream) => beds.get(stream)?.card?.element).filter(Boolean);
  cards.forEach((card, i) => {
    const there = find("cards").children[i];
    if (there !== card) find("cards").insertBefore(card, there ?? null);
  });
}

function open(stream) {
  const entry = beds.get(stream);
  if (entry.card) return;
  const element = copy("card");
  element.querySelector("h3").textContent = stream;
  element.setAttribute("aria-label", `Bed ${stream}`);
  element.querySelector(".hide").setAttribute("aria-label", `Hide the traces of ${stream}`);
  element.querySelector(".hide").onclick = () => choose(stream, false);
  element.querySelector(".discharge").setAttribute("aria-label", `Discharge ${stream}`);
  element.querySelector(".discharge").onclick = () => ask(stream);
  entry.card = { element, clock: new Clock(), traces: new Map(), beats: [], changed: false, visible: true };
  element.stream = stream;
  seen.observe(element);
  find("cards").append(element);
}

// Asks for confirmation before a discharge, as it ends alarms and deletes the patient's reference.
function ask(stream) {
  const dialog = find("discharge");
  const part = (name) => dialog.querySelector(name);
  const busy = (is) => { for (const button of dialog.querySelectorAll("button")) button.disabled = is; };
  part("h2 span").textContent = stream;
  part(".failed").textContent = "";
  const confirm = part(".confirm").onclick = async () => {
    busy(true);
    const reason = await send("/discharge", { stream });
    // Meanwhile the user may have closed the dialog with Escape and opened it for another bed.
    if (part(".confirm").onclick !== confirm) return;
    busy(false);
    if (reason) part(".failed").textContent = `Not discharged: ${reason}`;
    else dialog.close();
  };
  busy(false);
  dialog.showModal();
}

const whole = (value) => (typeof value === "number" ? String(Math.round(value)) : "–");
const share = (value) => (typeof value === "number" ? `${Math.round(value * 100)} %` : "–");

function signal(quality) {
  const states = Object.values(quality ?? {});
  return states.includes("off") ? "off" : states.includes("poor") ? "poor" : states.length ? "good" : "";
}

function refresh(stream) {
  const { bed, arrived, tile, card } = beds.get(stream);
  const worst = alarms.worst.get(stream);
  const word = worst ? `${KINDS[worst.kind] ?? worst.kind}${worst.state === "latched" ? " (over)" : ""}` : "";
  const age = now() - arrived;
  const old = age > STALE;
  const part = (element, name) => element.querySelector(`.${name}`);
  for (const element of [tile, card?.element]) {
    if (!element) continue;
    element.classList.toggle("stale", old);
    element.dataset.priority = worst?.priority ?? "";
    element.dataset.state = worst?.state ?? "";
    element.dataset.kind = worst?.kind ?? "";
    part(element, "alarm").textContent = word;
  }
  const quality = signal(bed.quality);
  part(tile, "rate").textContent = whole(bed.heart_rate);
  part(tile, "burden").textContent = typeof bed.burden === "number" ? `${share(bed.burden)} anomalous` : "";
  part(tile, "signal").textContent = old ? "no data" : quality && `signal ${quality}`;
  part(tile, "signal").dataset.quality = quality;
  tile.setAttribute("aria-pressed", shown.includes(stream));
  const spoken = [stream, `heart rate ${bed.heart_rate === null ? "not known" : `${whole(bed.heart_rate)} per minute`}`];
  spoken.push(part(tile, "signal").textContent, worst ? `${worst.priority} priority: ${word}` : "no alarm");
  tile.setAttribute("aria-label", `${spoken.filter(Boolean).join(", ")}. Show traces`);
  if (!card) return;
  part(card.element, "rate").firstElementChild.textContent = whole(bed.heart_rate);
  const onset = worst ? measuredRate(worst) : "";
  part(card.element, "onset").textContent = onset && `${onset} at the alarm`;
  part(card.element, "burden").textContent = `${share(bed.burden)} anomalous`;
  part(card.element, "learned").textContent = bed.learned < 1 ? `learning ${share(bed.learned)}` : REFERENCES[bed.reference] ?? "";
  part(card.element, "age").textContent = old ? `no data for ${seconds(age)}` : "";
  part(card.element, "quality").replaceChildren(...Object.entries(bed.quality ?? {}).map(([lead, state]) => {
    const item = document.createElement("li");
    item.dataset.quality = state;
    item.textContent = state === "good" ? lead : `${lead} ${state}`;
    return item;
  }));
}

const matches = (stream) => stream.toLowerCase().includes(find("find").value.trim().toLowerCase());
find("find").oninput = () => {
  for (const [stream, { tile }] of beds) tile.hidden = !matches(stream);
};

// Numbers are refreshed twice per second: a thousand beds send more often than anybody can read.
setInterval(() => {
  for (const stream of dirty) if (beds.has(stream)) refresh(stream);
  dirty.clear();
  const count = beds.size;
  find("bed-count").textContent = count ? `${count}, ${shown.length} with traces` : "";
  find("no-beds").hidden = count > 0;
  const missing = chosen.filter((stream) => !beds.has(stream));
  find("no-cards").hidden = !missing.length && (shown.length > 0 || !count);
  find("no-cards").textContent = missing.length
    ? `No bed ${missing.join(", ")}: discharged, or it has sent nothing yet.`
    : "No traces shown. Select a bed below.";
  find("cards").dataset.count = Math.min(shown.length, 5);
}, 500);

setInterval(() => {
  alarms.tick();
  for (const [stream, { arrived }] of beds) if (now() - arrived > STALE - 1) dirty.add(stream);
  if (now() - heard > STALE) warn("No data from the monitor, seen at");
}, 1000);

// Sets the gain of all leads; the browser remembers it where it may.
function setGain(gain) {
  display.gain = gain;
  try {
    localStorage.setItem("gain", gain);
  } catch {
    // No storage is allowed: the gain is that of the page until it is closed.
  }
  redraw();
}

function redraw() {
  for (const { card } of beds.values()) {
    if (!card) continue;
    card.changed = true;
    for (const trace of card.traces.values()) trace.centre();
  }
  alarms.redraw();
}

for (const choice of document.querySelectorAll("#gain input")) {
  choice.onchange = () => setGain(Number(choice.value));
  if (remembered() === choice.value) {
    choice.checked = true;
    setGain(Number(choice.value));
  }
}

function remembered() {
  try {
    return localStorage.getItem("gain");
  } catch {
    return null;
  }
}

onScheme(redraw);

let drawn = 0;
function animate(time) {
  requestAnimationFrame(animate);
  // 30 frames per second are smooth; with reduced motion there is one frame in two seconds.
  if (time - drawn < (still.matches ? 2000 : 30)) return;
  drawn = time;
  for (const { card } of beds.values()) {
    const head = card?.clock.at(now()) ?? null;
    if (head === null || !card.visible || (head === card.head && !card.changed)) continue;
    Object.assign(card, { head, changed: false });
    for (const trace of card.traces.values()) trace.draw(head, card.beats);
  }
}

requestAnimationFrame(animate);
connect();
