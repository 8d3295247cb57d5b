// List of alarms by priority, each with its reason, pictures of its beats, and its buttons.

import { colourOf, drawBeat } from "./live_beats.js";
import { Strip } from "./live_strips.js";

const PRIORITIES = ["high", "medium", "low"];
const MOST = 100; // entries on the page
export const KINDS = {
  asystole: "Asystole",
  "ventricular-fibrillation": "Ventricular fibrillation",
  "ventricular-tachycardia": "Ventricular tachycardia",
  bradycardia: "Bradycardia",
  tachycardia: "Tachycardia",
  "ventricular-run": "Ventricular run",
  couplet: "Couplet",
  bigeminy: "Bigeminy",
  "atrial-fibrillation": "Atrial fibrillation",
  anomaly: "Anomalous beats",
  "lead-off": "Lead off",
  "poor-signal": "Poor signal",
  unjudged: "Rhythm not judged",
  gap: "Samples missing",
  "stream-lost": "No data",
  behind: "Monitor behind",
};
const STATES = {
  active: "",
  suppressed: "suppressed",
  acknowledged: "acknowledged",
  latched: "condition over, not acknowledged",
};

const isNumber = (value) => typeof value === "number";
const round = (value, digits = 0) => value.toFixed(digits);
const percent = (share) => `${Math.round(share * 100)} %`;
const clock = (time) => new Date(time * 1000).toLocaleTimeString([], { hour12: false });
const find = (id) => document.getElementById(id);
const copy = (id) => find(id).content.firstElementChild.cloneNode(true);

export function seconds(count) {
  const whole = Math.max(0, Math.floor(count));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

// Sends a command; resolves to the reason why it was not carried out, empty if it was.
export async function send(path, asked) {
  const said = { method: "POST", headers: { "Content-Type": "application/json" } };
  try {
    const answer = await fetch(path, { ...said, body: JSON.stringify(asked) });
    if (answer.ok) return "";
    const text = await answer.text();
    try {
      return JSON.parse(text).reason ?? text;
    } catch {
      return text || `the monitor refused it (${answer.status})`;
    }
  } catch {
    return "the monitor does not answer";
  }
}

// What the pulse wave beside the ECG showed at the same time.
function pulseSentence({ measured: { pulse, contradicted } = {} }) {
  if (!pulse || !isNumber(pulse.rate)) return "";
  const against = Array.isArray(contradicted) && contradicted.length ? `, against ${contradicted.join(", ")} in the ECG` : "";
  return ` ${pulse.lead} shows ${pulse.steady ? "a steady" : "an unsteady"} pulse of ${round(pulse.rate)}/min${against}.`;
}

// Reason of an alarm: the measured value and the limit of its priority, and the pulse, in sentences.
export function sentence(alarm) {
  const text = measuredSentence(alarm);
  return text && text + pulseSentence(alarm.why);
}

// What the model of normal beats says of a patient's reference.
export const REFERENCES = {
  rare: "Most of this patient's beats are abnormal: the reference is one of the rarer ones.",
  abnormal: "The reference of this patient, the most frequent beat, is abnormal itself.",
};

function measuredSentence({ kind, priority, why }) {
  const { measured = {}, limits = {} } = why;
  const to = (limit, unit = "") => (isNumber(limit) ? `; the limit is ${limit}${unit}.` : ".");
  const names = (list) => (Array.isArray(list) && list.length ? list.join(", ") : "All leads");
  const { silence, heart_rate: rate, burden, missing, unjudged, lost, behind } = measured;
  if (kind === "asystole" && isNumber(silence)) return `No QRS complex for ${round(silence, 1)} s${to(limits.silence, " s")}`;
  if ((kind === "bradycardia" || kind === "tachycardia") && isNumber(rate))
    return `Heart rate ${round(rate)}/min${to(limits[priority] ?? limits.medium, "/min")}`;
  const probability = { "ventricular-fibrillation": measured.fibrillation, "ventricular-tachycardia": measured.tachycardia }[kind];
  if (isNumber(probability))
    return `${KINDS[kind]}: probability ${percent(probability)}${
      isNumber(limits.begin) ? to(Math.round(limits.begin * 100), " %") : "."}`;
  if (kind === "couplet") return "Two ventricular beats in a row.";
  if (kind === "bigeminy") return "Every other beat is ventricular.";
  if (kind === "ventricular-run" && isNumber(measured.run)) return `${measured.run} ventricular beats in a row${to(limits.beats)}`;
  if (kind === "atrial-fibrillation" && isNumber(measured.variation))
    return `RR intervals without order, as in atrial fibrillation: variation ${round(measured.variation, 2)}${to(limits.variation)}`;
  if (kind === "anomaly" && isNumber(burden))
    return `${percent(burden)} of the last beats differ from the reference of this patient${
      isNumber(limits.begin) ? to(Math.round(limits.begin * 100), " %") : "."}${
      measured.reference ? ` ${REFERENCES[measured.reference] ?? ""}` : ""}`;
  if (kind === "lead-off") return `${names(measured.off)}: electrode off, flat line or saturated.`;
  if (kind === "poor-signal") return `${names(measured.poor)}: signal too noisy.`;
  if (kind === "unjudged" && isNumber(unjudged))
    return `The rhythm could not be judged for ${round(unjudged)} s of the last minute${to(limits.begin, " s")}`;
  if (kind === "gap" && isNumber(missing)) return `${round(missing, 1)} s of the last minute missing${to(limits.begin, " s")}`;
  if (kind === "stream-lost" && isNumber(lost)) return `No data had arrived for ${seconds(lost)}${to(limits[priority] ?? limits.medium, " s")}`;
  if (kind === "behind" && isNumber(behind)) return `The monitor is ${round(behind, 1)} s behind${to(limits.begin, " s")}`;
  return "";
}

// Short measured value for a card; empty where the kind has none.
export function measuredRate({ kind, why }) {
  const rate = why.measured?.heart_rate;
  return (kind === "bradycardia" || kind === "tachycardia") && isNumber(rate) ? `${round(rate)}/min` : "";
}

// The same measurement as of now, from the last state of the bed; empty where the state of a bed does not contain it.
export function current({ kind }, bed, age) {
  if (!bed) return "";
  if (kind === "stream-lost") return age > 3 ? `no data for ${seconds(age)}` : "data is arriving";
  if (age > 10) return `not known: no data for ${seconds(age)}`;
  const leads = (state) => Object.entries(bed.quality ?? {}).filter(([, found]) => found === state).map(([lead]) => lead);
  if (kind === "lead-off") return leads("off").length ? `${leads("off").join(", ")} off` : "no lead off";
  if (kind === "poor-signal") return leads("poor").length ? `${leads("poor").join(", ")} noisy` : "no lead noisy";
  if (kind === "anomaly") return isNumber(bed.burden) ? `${percent(bed.burden)} of the last beats` : "not known";
  if (["asystole", "bradycardia", "tachycardia"].includes(kind) || kind.startsWith("ventricular-"))
    return isNumber(bed.heart_rate) ? `heart rate ${round(bed.heart_rate)}/min` : "heart rate not known";
  return "";
}

const MEASURED = { escalated: "On escalation", resumed: "When it recurred" }; // else at the onset
const FACTS = { // measured values: name and unit
  silence: ["no QRS complex for", "s"],
  heart_rate: ["heart rate", "/min"],
  fibrillation: ["probability of fibrillation", "%"],
  tachycardia: ["probability of ventricular tachycardia", "%"],
  burden: ["anomalous beats", "%"],
  unjudged: ["not judged in the last minute", "s"],
  missing: ["missing in the last minute", "s"],
  lost: ["no data for", "s"],
  behind: ["monitor behind by", "s"],
  off: ["leads off", ""],
  poor: ["leads too noisy", ""],
};
const UNITS = { asystole: "s", bradycardia: "/min", tachycardia: "/min", anomaly: "%", "ventricular-fibrillation": "%", "ventricular-tachycardia": "%" }; // units of limits; else seconds
const DELAYS = ["delay", "after", "for"]; // last words of limits that are always in seconds

// All measured values and limits, with their units.
function facts({ kind, why: { measured = {}, limits = {}, lasted, threshold } }) {
  const list = document.createElement("dl");
  const put = (name, value, unit = "") => {
    if (value === null || value === undefined || (Array.isArray(value) && !value.length)) return;
    const number = unit === "%" ? value * 100 : value;
    const shown = isNumber(value) ? `${Number(number.toPrecision(3))} ${unit}`.trim() : [value].flat().join(", ");
    for (const [tag, text] of [["dt", name.replaceAll("_", " ")], ["dd", shown]])
      list.appendChild(document.createElement(tag)).textContent = text;
  };
  for (const [name, value] of Object.entries(measured)) {
    if (name === "pulse" || name === "reference") continue; // the sentence has it
    const [words, unit] = FACTS[name] ?? [name, ""];
    put(words, value, unit);
  }
  put("condition true for", lasted, "s");
  put("beat score threshold", threshold);
  for (const [name, value] of Object.entries(limits)) {
    const seconds = DELAYS.includes(name.split("_").at(-1)) || name === "silence";
    put(`limit: ${name}`, value, seconds ? "s" : UNITS[kind] ?? "s");
  }
  return list;
}

export class Alarms {
  // `since(alarm)` returns the seconds since its onset, and `now(alarm)` the present state of what it measures;
  // `show(stream)` and `discharged(stream)` are called when the user asks for a bed's traces or for its discharge.
  constructor(since, now, show, discharged) {
    this.since = since;
    this.now = now;
    this.show = show;
    this.discharged = discharged;
    this.entries = new Map(); // name: {alarm, element}
    this.list = find("alarm-list");
    this.worst = new Map(); // stream: its first alarm in the list
  }

  reset(alarms) {
    const names = new Set(alarms.map(({ alarm }) => alarm));
    for (const name of this.entries.keys()) if (!names.has(name)) this.remove(name);
    for (const alarm of alarms) this.set(alarm);
    this.arrange();
  }

  take(alarm) {
    const before = this.entries.get(alarm.alarm)?.alarm.state;
    if (alarm.state === "ended") this.remove(alarm.alarm);
    else this.set(alarm);
    this.arrange();
    const again = alarm.change === "resumed" && (!before || before === "latched");
    if (alarm.announced !== false && (again || alarm.change === "onset" || alarm.change === "escalated"))
      find(alarm.priority === "high" ? "urgent" : "polite").textContent =
        `${alarm.priority} priority: ${KINDS[alarm.kind] ?? alarm.kind}, bed ${alarm.stream}`;
  }

  discharge(stream) {
    for (const [name, { alarm }] of this.entries) if (alarm.stream === stream) this.remove(name);
    this.arrange();
  }

  remove(name) {
    this.entries.get(name)?.element.remove();
    this.entries.delete(name);
  }

  set(given) {
    const entry = this.entries.get(given.alarm) ?? this.create(given.alarm);
    // Later changes may leave out what the onset contained; a change after the end of the condition explains nothing.
    const before = entry.alarm?.state;
    const holds = !entry.alarm || ["onset", "escalated", "resumed"].includes(given.change);
    const later = holds ? given.why : { reason: given.why?.reason ?? "" };
    const at = given.why?.measured_at ?? (holds ? { change: given.change, time: given.time } : entry.alarm.why.measured_at);
    entry.alarm = { ...given, why: { ...entry.alarm?.why, reason: "", ...later, measured_at: at } };
    const { alarm, element } = entry;
    const part = (name) => element.querySelector(`.${name}`);
    element.dataset.priority = alarm.priority;
    element.dataset.state = alarm.state;
    part("priority").textContent = alarm.priority;
    part("kind").textContent = KINDS[alarm.kind] ?? alarm.kind;
    part("stream").textContent = alarm.stream;
    const state = STATES[alarm.state] ?? alarm.state;
    const reason = alarm.why.reason === alarm.state ? "" : alarm.why.reason;
    part("state").textContent = [state, reason].filter(Boolean).join(": ");
    const kind = `${KINDS[alarm.kind] ?? alarm.kind} of ${alarm.stream}`;
    part("then-label").textContent = `${MEASURED[at?.change] ?? "At onset"} ${isNumber(at?.time) ? clock(at.time) : ""}`;
    part("then").textContent = sentence(alarm) || "–";
    part("acknowledge").setAttribute("aria-label", `Acknowledge ${kind}`);
    part("discharge").setAttribute("aria-label", `Discharge ${alarm.stream}`);
    part("stream").setAttribute("aria-label", `Show the traces of ${alarm.stream}`);
    part("expand").setAttribute("aria-label", `ECG and measured values of ${kind}`);
    part("failed").textContent = "";
    part("acknowledge").hidden = alarm.state === "acknowledged";
    part("discharge").hidden = alarm.kind !== "stream-lost";
    if (before !== alarm.state) {
      part("acknowledge").disabled = false;
      part("acknowledge").textContent = "Acknowledge";
    }
    if (!part("details").hidden) this.explain(entry);
  }

  create(name) {
    const entry = { element: copy("alarm"), alarm: null, strip: null };
    this.entries.set(name, entry);
    const part = (which) => entry.element.querySelector(`.${which}`);
    part("acknowledge").onclick = () => this.acknowledge(name, part("acknowledge"), part("failed"));
    part("stream").onclick = () => this.show(entry.alarm.stream);
    part("discharge").onclick = () => this.discharged(entry.alarm.stream);
    part("expand").onclick = () => {
      const open = part("details").hidden;
      part("details").hidden = !open;
      part("expand").setAttribute("aria-expanded", open);
      part("expand").textContent = open ? "Hide ECG" : "Show ECG";
      if (open) this.explain(entry);
      else entry.strip = null;
    };
    return entry;
  }

  async acknowledge(name, button, failed) {
    button.disabled = true;
    button.textContent = "Acknowledging…";
    failed.textContent = "";
    const reason = await send("/acknowledge", { alarm: name });
    button.textContent = reason ? "Acknowledge again" : "Acknowledged";
    button.disabled = !reason;
    failed.textContent = reason && `Not acknowledged: ${reason}`;
  }

  // Draws the strips that are shown again, for another gain or colour scheme.
  redraw() {
    for (const entry of this.entries.values()) {
      entry.strip?.draw();
      if (entry.strip) this.explain(entry);
    }
  }

  explain(entry) {
    const { alarm, element } = entry;
    const details = element.querySelector(".details");
    const beats = Array.isArray(alarm.why.beats) ? alarm.why.beats.slice(0, 8) : [];
    const figures = beats.map((beat) => {
      const figure = copy("beat");
      const caption = `${beat.lead ?? ""} ${clock(beat.time)}, score ${round(beat.score, 2)}`;
      figure.querySelector("figcaption").textContent = caption;
      figure.querySelector("canvas").setAttribute("aria-label", `Beat of lead ${caption}, its reconstruction, and the reference`);
      figure.style.setProperty("--score", colourOf(beat.score));
      return figure;
    });
    const key = document.createElement("p");
    key.className = "key";
    for (const name of beats.length ? ["beat", "reconstruction", "error", "patient's reference"] : [])
      key.appendChild(document.createElement("span")).textContent = name;
    if (!entry.strip) {
      const title = `${KINDS[alarm.kind] ?? alarm.kind} of ${alarm.stream}`;
      entry.strip = new Strip(alarm.alarm, title, () => this.since(entry.alarm) ?? Infinity);
      details.replaceChildren(entry.strip.element);
      entry.strip.load();
    }
    // The strip stays where it is, so that it keeps its place while it scrolls.
    while (entry.strip.element.nextSibling) entry.strip.element.nextSibling.remove();
    details.append(key, ...figures, facts(alarm));
    figures.forEach((figure, i) => drawBeat(figure.querySelector("canvas"), beats[i]));
  }

  // By priority, latched after active, acknowledged and suppressed alarms last, the newest first.
  sorted() {
    const rank = ({ alarm }) => 2 * PRIORITIES.indexOf(alarm.priority) + Number(alarm.state === "latched");
    const seen = ({ alarm }) => Number(alarm.state === "acknowledged" || alarm.state === "suppressed");
    return [...this.entries.values()].sort(
      (a, b) => seen(a) - seen(b) || rank(a) - rank(b) || b.alarm.onset - a.alarm.onset);
  }

  arrange() {
    const focused = document.activeElement;
    const sorted = this.sorted();
    this.worst = new Map(sorted.toReversed().map(({ alarm }) => [alarm.stream, alarm]));
    sorted.slice(0, MOST).forEach(({ element }, i) => {
      if (this.list.children[i] !== element) this.list.insertBefore(element, this.list.children[i] ?? null);
    });
    for (const { element } of sorted.slice(MOST)) element.remove();
    if (focused !== document.activeElement && this.list.contains(focused)) focused.focus();
    const open = sorted.filter(({ alarm }) => alarm.state === "active" || alarm.state === "latched").length;
    find("alarm-count").textContent = sorted.length ? `${open} to acknowledge, ${sorted.length} in total` : "";
    find("no-alarms").hidden = sorted.length > 0;
    find("more-alarms").hidden = sorted.length <= MOST;
    find("more-alarms").textContent = `${sorted.length - MOST} more alarms not shown`;
    document.title = open ? `(${open}) ECG live` : "ECG live";
    this.tick();
  }

  tick() {
    for (const { alarm, element } of this.entries.values()) {
      const put = (name, text) => {
        const part = element.querySelector(`.${name}`);
        if (part.textContent !== text) part.textContent = text;
        return part;
      };
      put("since", isNumber(this.since(alarm)) ? seconds(this.since(alarm)) : "");
      const text = this.now(alarm);
      put("now", text).hidden = !text;
      put("now-label", "Now").hidden = !text;
    }
  }
}
