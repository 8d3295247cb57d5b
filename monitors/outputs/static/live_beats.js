// One beat: the colour of its score, and its picture with the model's reconstruction.

// Green at 0, yellow at the threshold (1), red from twice the threshold on.
export function colourOf(score) {
  const share = Math.min(Math.max(score, 0), 2) / 2;
  return `hsl(${Math.round(140 - 140 * share)} 85% 60%)`;
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
    context.fillStyle = "rgb(255 93 93 / .3)";
    context.fill("evenodd");
  }
  line(beat.reference, "#8b9bb0", 1.25, [3, 3]);
  line(beat.reconstruction, "#6cb2ff", 1.5, []);
  line(beat.values, colourOf(beat.score), 2, []);
}
