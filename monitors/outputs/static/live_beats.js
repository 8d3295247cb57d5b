// One beat: the colour of its score, and its picture with the model's reconstruction.

// Colours of canvases, from live.css; `ink` follows the colour scheme of the system.
const NAMES = ["trace", "unusual", "head", "dim", "accent", "grid", "grid-5"];
export let ink = read();
const listeners = [];
matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => {
  ink = read();
  for (const listener of listeners) listener();
});

export const onScheme = (listener) => listeners.push(listener);

function read() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

// The colour of the trace up to half of the threshold (1), violet from twice the threshold on. Red, yellow and cyan
// are kept for alarms.
export function colourOf(score) {
  const share = Math.min(Math.max((score - 0.5) / 1.5, 0), 1);
  const unusual = channels(ink.unusual);
  return `rgb(${channels(ink.trace).map((usual, i) => Math.round(usual + share * (unusual[i] - usual))).join(" ")})`;
}

// Returns a canvas's cleared context in CSS pixels; null while it has no size.
export function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const ratio = window.devicePixelRatio || 1;
  const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const numbers = (values) => (Array.isArray(values) ? values.filter(Number.isFinite) : []);

// Draws the beat, its reconstruction with the error shaded, and the patient's reference.
export function drawBeat(canvas, beat) {
  const sheet = prepare(canvas);
  const all = [...numbers(beat.values), ...numbers(beat.reconstruction), ...numbers(beat.reference)];
  if (!sheet || !all.length) return;
  const { context, width, height } = sheet;
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const y = (value) => height - 6 - ((value - low) / (high - low || 1)) * (height - 12);
  const points = (values) => numbers(values).map((value, i, list) => [(i / (list.length - 1)) * width, y(value)]);
  const line = (values, colour, thick, dashes) => {
    context.beginPath();
    for (const [at, up] of points(values)) context.lineTo(at, up);
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.setLineDash(dashes);
    context.stroke();
  };
  context.lineJoin = "round";
  const [made, seen] = [points(beat.reconstruction), points(beat.values)];
  if (made.length && seen.length) {
    context.beginPath();
    for (const [at, up] of [...seen, ...made.reverse()]) context.lineTo(at, up);
    context.fillStyle = `${ink.unusual}55`;
    context.fill("evenodd");
  }
  line(beat.reference, ink.dim, 1.25, [3, 3]);
  line(beat.reconstruction, ink.accent, 1.5, []);
  line(beat.values, colourOf(beat.score), 2, []);
}
