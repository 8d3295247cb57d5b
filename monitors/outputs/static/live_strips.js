// The strip of an alarm: its ECG from 10 s before to 20 s after the onset, on paper that scrolls sideways.

import { ink, prepare } from "./live_beats.js";
import { BASE, GUTTER, MM, SPEED, display, drawMark } from "./live_traces.js";

const LEAD = 40 * MM; // height of a lead in CSS pixels
const AGAIN = 3000; // ms between looks at a strip that is still recorded
const STILL = 40; // seconds after the onset, by which a strip is complete or will never be

const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

// One strip in an alarm's details; it loads itself again until it is complete.
export class Strip {
  constructor(alarm, title, since) {
    this.alarm = alarm;
    this.title = title;
    this.since = since;
    this.element = copy("strip");
    this.paper = this.element.querySelector(".paper");
    this.paper.setAttribute("aria-label", `ECG around the onset of ${title}; scrolls sideways`);
    this.caption = this.element.querySelector("figcaption");
    this.caption.textContent = "Loading the ECG around the onset…";
  }

  async load() {
    try {
      const answer = await fetch(`/strip?alarm=${encodeURIComponent(this.alarm)}`);
      const content = await answer.json();
      if (!answer.ok) {
        this.caption.textContent = content.reason;
        this.paper.hidden = true;
        return;
      }
      const first = !this.strip;
      this.strip = content;
      this.draw();
      if (first) this.paper.scrollLeft = this.x(content.onset) - 0.6 * this.paper.clientWidth;
    } catch {
      this.caption.textContent = "The ECG around the onset could not be loaded. Close it and try again.";
      return;
    }
    if (!this.strip.complete && this.since() < STILL && this.element.isConnected) setTimeout(() => this.load(), AGAIN);
  }

  x(time) {
    return GUTTER + (time - this.strip.start) * SPEED;
  }

  draw() {
    if (!this.strip) return;
    const { leads, values, rate, start, onset, until, complete, left_out: others } = this.strip;
    const canvas = this.element.querySelector("canvas");
    canvas.style.width = `${Math.ceil(this.x(until)) + 4}px`;
    canvas.style.height = `${LEAD * leads.length}px`;
    const sheet = prepare(canvas);
    if (!sheet) return;
    const { context, height } = sheet;
    let cut = false;
    leads.forEach((lead, number) => {
      context.save();
      context.translate(0, number * LEAD);
      context.beginPath();
      context.rect(0, 0, sheet.width, LEAD);
      context.clip();
      drawMark(context, LEAD);
      const seen = values[lead].filter(Number.isFinite).sort((a, b) => a - b);
      const middle = seen[seen.length >> 1] ?? 0;
      const y = (value) => LEAD * BASE - (value - middle) * display.gain * MM;
      if (seen.length) cut ||= y(seen.at(-1)) < 0 || y(seen[0]) > LEAD;
      context.beginPath();
      let before = false;
      values[lead].forEach((value, i) => {
        if (value === null) before = false;
        else {
          const at = this.x(start + i / rate);
          if (before) context.lineTo(at, y(value));
          else context.moveTo(at, y(value));
          before = true;
        }
      });
      context.strokeStyle = ink.trace;
      context.lineWidth = 1.5;
      context.lineJoin = "round";
      context.stroke();
      context.fillStyle = ink.head;
      context.font = "650 12px system-ui, sans-serif";
      context.textAlign = "left";
      context.fillText(lead, GUTTER + 4, 14);
      context.restore();
    });
    context.save();
    context.beginPath();
    context.moveTo(this.x(onset), 0);
    context.lineTo(this.x(onset), height);
    context.setLineDash([6, 3]);
    context.strokeStyle = ink.accent;
    context.lineWidth = 1.5;
    context.stroke();
    context.fillStyle = ink.accent;
    context.font = "11px system-ui, sans-serif";
    context.fillText("onset", this.x(onset) + 4, height - 5);
    context.restore();
    const said = [`ECG around the onset (dashed): 25 mm/s, ${display.gain} mm/mV${cut ? ", cut off" : ""}`];
    said.push(`${leads.join(", ")}${others ? ` (${leads.length} of ${leads.length + others} leads)` : ""}`);
    if (!complete) {
      const seconds = Math.max(0, until - onset).toFixed(0);
      said.push(this.since() < STILL ? `${seconds} of 20 s so far` : `incomplete: ${seconds} of 20 s, then the monitor or the bed stopped`);
    }
    this.caption.textContent = said.join("; ");
    canvas.setAttribute("aria-label", `${this.title}. ${this.caption.textContent}`);
  }
}
