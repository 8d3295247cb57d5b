// Traces: samples that arrive about every second, drawn as a sweep like on a bedside monitor.

import { colourOf, ink, prepare } from "./live_beats.js";

export const MM = 3; // CSS pixels per millimetre; the same as --mm in live.css
export const SPEED = 25 * MM;
const ERASED = 0.4; // seconds of old samples that are cleared ahead of the sweep
const KEPT = 40; // seconds of samples that are stored
export const BASE = 0.62; // share of a lead's height at which its median is drawn
const BEFORE = 0.25, AFTER = 0.45; // seconds of a beat around its R peak
export const GUTTER = 34; // CSS pixels at the left, for the mark of 1 mV
export const display = { gain: 10 }; // mm/mV, the same for all leads

// The sample time at the head of a bed's sweep: behind the newest chunk by the jitter of arrivals, at their speed.
export class Clock {
  constructor() {
    this.edge = null;
  }

  arrived(start, end, now) {
    if (this.edge === null || end < this.edge - 5 || start > this.edge + 10 || now > this.came + 5) {
      // The first chunk, a restarted stream, or the first chunk after a gap.
      Object.assign(this, { ends: [], speed: 1, head: start, last: now });
    } else if (end > this.edge + 1e-3) {
      this.ends.push([now, this.edge]); // the newest sample just before this chunk
      if (this.ends.length > 9) this.ends.shift();
      // A recording may be played at any speed; a speed near 1 is live data that arrives with jitter.
      const [[first, from], [latest, to]] = [this.ends[0], this.ends.at(-1)];
      const speed = latest > first ? (to - from) / (latest - first) : 1;
      this.speed = speed > 0.8 && speed < 1.25 ? 1 : speed;
    } else {
      return; // another lead of the same chunk
    }
    this.edge = end;
    this.came = now;
  }

  // Seconds of sample time; null before any samples.
  at(now) {
    if (this.edge === null) return null;
    const passed = Math.max(now - this.last, 0) * this.speed;
    this.last = now;
    this.head += passed;
    if (this.ends.length) {
      const spare = Math.min(...this.ends.map(([when, end]) => end + (now - when) * this.speed));
      const late = spare - 0.2 * this.speed - this.head;
      // A small error is corrected 10 % faster or slower, which nobody sees; a large one at once.
      const far = Math.abs(late) > 3 * Math.max(this.speed, 1);
      this.head += far ? late : Math.min(Math.max(late, -0.1 * passed), 0.1 * passed);
    }
    this.head = Math.min(this.head, this.edge);
    return this.head;
  }
}

// Draws the mark of 1 mV and 0.2 s in the gutter.
export function drawMark(context, height) {
  const [high, wide] = [display.gain * MM, 0.2 * SPEED];
  const bottom = (height + high) / 2 - 5;
  context.beginPath();
  for (const [x, y] of [[3, bottom], [7, bottom], [7, bottom - high], [7 + wide, bottom - high], [7 + wide, bottom], [11 + wide, bottom]])
    context.lineTo(x, y);
  context.strokeStyle = context.fillStyle = ink.head;
  context.lineWidth = 1.5;
  context.stroke();
  context.font = "10px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText("1 mV", 7 + wide / 2, Math.min(bottom + 11, height - 2));
}

// One lead of one bed on a canvas.
export class Trace {
  constructor(element, name) {
    this.canvas = element.querySelector("canvas");
    this.label = element.querySelector(".gain");
    element.querySelector(".name").textContent = name;
    this.name = name;
    this.chunks = [];
    this.middle = null;
  }

  add(start, rate, values) {
    const end = start + values.length / rate;
    const newest = this.chunks.at(-1);
    if (newest && start < newest.start - 5) this.chunks = []; // the stream restarted
    else if (newest && start <= newest.start) return; // received over two connections
    this.chunks.push({ start, end, rate, values });
    while (this.chunks[0].end < end - KEPT) this.chunks.shift();
    this.centre();
  }

  // Follows the median, which is drawn at the same height; says so where the gain cuts off peaks.
  centre() {
    const seen = this.chunks.slice(-6).flatMap((chunk) => chunk.values).filter(Number.isFinite);
    if (seen.length < 10) return;
    seen.sort((a, b) => a - b);
    const median = seen[seen.length >> 1];
    this.middle = this.middle === null ? median : this.middle + 0.3 * (median - this.middle);
    const height = this.canvas.clientHeight / MM;
    const above = (seen.at(-1) - this.middle) * display.gain > height * BASE;
    const below = (this.middle - seen[0]) * display.gain > height * (1 - BASE);
    const text = `${display.gain} mm/mV${above || below ? ", cut off" : ""}`;
    if (this.label.textContent === text) return;
    this.label.textContent = text;
    this.canvas.setAttribute("aria-label", `ECG trace of lead ${this.name}, 25 mm/s, ${text}`);
  }

  // Draws up to `head` (seconds of sample time); `beats` are sorted by time.
  draw(head, beats) {
    const sheet = prepare(this.canvas);
    if (!sheet || this.middle === null) return;
    const { context, width, height } = sheet;
    const span = (width - GUTTER) / SPEED;
    const first = head - span + ERASED;
    const x = (time) => GUTTER + (((time % span) + span) % span) * SPEED;
    const y = (value) => height * BASE - (value - this.middle) * display.gain * MM;
    drawMark(context, height);
    context.lineWidth = 1.6;
    context.lineJoin = "round";
    let beat = 0, colour = null, before = null;
    for (const { start, end, rate, values } of this.chunks) {
      if (end < first || start > head) continue;
      if (before && start - before.time > 1.5 / rate) before = null;
      for (let i = Math.max(0, Math.floor((first - start) * rate)); i < values.length; i++) {
        const time = start + i / rate;
        if (time > head) break;
        if (values[i] === null) {
          before = null;
          continue;
        }
        while (beat + 1 < beats.length && beats[beat + 1].time - BEFORE <= time) beat++;
        const near = beats[beat];
        const within = near && time >= near.time - BEFORE && time <= near.time + AFTER;
        const point = { time, x: x(time), y: y(values[i]), colour: within ? colourOf(near.score) : ink.trace };
        if (before && point.x < before.x) before = null;
        if (!before || point.colour !== colour) {
          if (colour) context.stroke();
          context.beginPath();
          if (before) context.moveTo(before.x, before.y);
          context.strokeStyle = colour = point.colour;
        }
        context.lineTo(point.x, point.y);
        before = point;
      }
    }
    if (colour) context.stroke();
    if (before) this.dot(context, before.x, before.y, 2.5, ink.head);
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    for (const mark of beats) if (mark.time >= first && mark.time <= head) this.mark(context, x(mark.time), mark, height);
  }

  dot(context, x, y, radius, colour) {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  }

  // Marks a normal beat with a dot, an anomalous one with a triangle and its score, for readers who see no colours.
  mark(context, x, beat, height) {
    const colour = colourOf(beat.score);
    if (!beat.anomalous) {
      this.dot(context, x, height - 6, 2.5, colour);
      return;
    }
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(x - 5, height - 2);
    context.lineTo(x + 5, height - 2);
    context.lineTo(x, height - 10);
    context.fill();
    context.fillText(beat.score.toFixed(1), x + 16, height - 2);
  }
}

// Returns `beats` and `more` together, sorted by time, without duplicates and beats that are too old.
export function merged(beats, more) {
  const known = new Map(beats.map((beat) => [beat.time, beat]));
  for (const { time, score, anomalous } of more) {
    if (Number.isFinite(time)) known.set(time, { time, score: score ?? 0, anomalous });
  }
  const all = [...known.values()].sort((a, b) => a.time - b.time);
  return all.filter((beat) => beat.time > all.at(-1).time - KEPT);
}
