// The page of m2e-predict --serve. Nothing leaves this machine; all that comes from a file is set as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
let model = null;

function draw(parent, name, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

function write(parent, name, text, className = "") {
  const node = document.createElement(name);
  node.textContent = text;
  node.className = className;
  parent.append(node);
  return node;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const clip = (value) => Math.min(9, Math.max(1, value));

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").className = isError ? "error" : "";
}

async function predict(file) {
  at("result").hidden = true;
  if (file.size > model.upload_bytes) {
    say(`${file.name} is larger than ${Math.round(model.upload_bytes / 1e6)} MB, the most that is taken.`, true);
    return;
  }
  say(`Listening to ${file.name} …`);
  try {
    const response = await fetch("predict", {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    show(file.name, answer);
    say("");
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
  }
}

function show(name, song) {
  at("song").textContent = name;
  const scores = song.valence === null ? [] : [`valence ${song.valence.toFixed(2)}`, `arousal ${song.arousal.toFixed(2)}`];
  at("facts").textContent = [clock(song.seconds), song.key ?? "no key", ...scores].join(" · ");
  at("notes").textContent = song.notes.map((note) => note.text).join("; ");
  for (const id of ["plane", "tags", "timeline", "chords", "table"]) at(id).replaceChildren();
  at("plane").closest("figure").hidden = at("timeline").closest("figure").hidden = song.valence === null;
  at("tags").closest("figure").hidden = !Object.keys(song.tags).length;
  if (song.valence !== null) {
    showPlane(song);
    showTimeline(song);
  }
  showTags(song);
  showChords(song);
  showTable(song);
  at("result").hidden = false;
}

function showPlane(song) {
  const svg = at("plane");
  const x = (valence) => 34 + (clip(valence) - 1) / 8 * 256;
  const y = (arousal) => 266 - (clip(arousal) - 1) / 8 * 256;
  for (const [attributes, word] of [
    [{ x: 42, y: 28 }, "tense"], [{ x: 282, y: 28, "text-anchor": "end" }, "excited"],
    [{ x: 42, y: 256 }, "sad"], [{ x: 282, y: 256, "text-anchor": "end" }, "calm"],
    [{ x: 162, y: 298, "text-anchor": "middle" }, "valence"],
    [{ x: 10, y: 138, "text-anchor": "middle", transform: "rotate(-90 10 138)" }, "arousal"],
  ]) draw(svg, "text", attributes, word);
  for (const value of [1, 3, 5, 7, 9]) {
    draw(svg, "text", { x: x(value), y: 282, "text-anchor": "middle" }, value);
    draw(svg, "text", { x: 28, y: y(value) + 4, "text-anchor": "end" }, value);
  }
  draw(svg, "line", { class: "grid", x1: x(5), x2: x(5), y1: y(1), y2: y(9) });
  draw(svg, "line", { class: "grid", x1: x(1), x2: x(9), y1: y(5), y2: y(5) });
  draw(svg, "rect", { class: "frame", x: x(1), y: y(9), width: 256, height: 256 });
  const points = song.timeline.map((moment) => [x(moment.valence), y(moment.arousal)]);
  draw(svg, "polyline", { class: "path", points: points.join(" ") });
  for (const [cx, cy] of points) draw(svg, "circle", { class: "moment", cx, cy, r: 3.5 });
  const whole = draw(svg, "circle", { class: "whole", id: "point", cx: x(song.valence), cy: y(song.arousal), r: 8 });
  draw(whole, "title", {}, `valence ${song.valence.toFixed(2)}, arousal ${song.arousal.toFixed(2)}`);
}

function showTags(song) {
  const others = Object.keys(song.tags).filter((name) => !song.given.includes(name));
  others.sort((a, b) => song.tags[b] - song.tags[a]);
  for (const name of [...song.given, ...others]) {
    const row = write(at("tags"), "li", "", song.given.includes(name) ? "given" : "not");
    write(row, "span", name);
    const bar = draw(row, "svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    draw(bar, "rect", { x: 0, y: 1, width: 100 * song.tags[name], height: 8 });
    const mark = 100 * song.thresholds[name];
    draw(bar, "line", { x1: mark, x2: mark, y1: 0, y2: 10, "vector-effect": "non-scaling-stroke" });
    write(row, "span", song.tags[name].toFixed(2));
  }
}

const along = (song, seconds) => 30 + seconds / song.seconds * 860;

function drawTimes(svg, song, y) {
  const step = [1, 5, 10, 30, 60, 120, 300, 600, 3600].find((each) => song.seconds / each <= 10) ?? 36000;
  for (let seconds = 0; seconds <= song.seconds; seconds += step) {
    draw(svg, "text", { x: along(song, seconds), y, "text-anchor": "middle" }, clock(seconds));
  }
}

function showTimeline(song) {
  const svg = at("timeline");
  const y = (value) => 190 - (clip(value) - 1) / 8 * 180;
  for (const value of [1, 3, 5, 7, 9]) {
    draw(svg, "line", { class: "grid", x1: 30, x2: 890, y1: y(value), y2: y(value) });
    draw(svg, "text", { x: 22, y: y(value) + 4, "text-anchor": "end" }, value);
  }
  for (const name of ["valence", "arousal"]) {
    draw(svg, "line", { class: `${name} dotted`, x1: 30, x2: 890, y1: y(song[name]), y2: y(song[name]) });
    const points = song.timeline.flatMap((moment) => [moment.start, moment.end].map((t) => [along(song, t), y(moment[name])]));
    draw(svg, "polyline", { class: name, points: points.join(" ") });
  }
  drawTimes(svg, song, 212);
}

const NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

function showChords(song) {
  const svg = at("chords");
  for (const { start, end, chord } of song.chords) {
    const root = NAMES.indexOf(chord.split(":")[0]);
    const [left, right] = [along(song, start), along(song, end)];
    // Neighbours on the circle of fifths get neighbouring colours.
    const fill = root < 0 ? "#fff" : `hsl(${root * 7 % 12 * 30} 45% 82%)`;
    const box = draw(svg, "rect", { x: left, y: 4, width: right - left, height: 36, fill, stroke: "#fff" });
    draw(box, "title", {}, `${chord}, ${clock(start)}–${clock(end)}`);
    const label = chord.replace(":min", "m").replace(":", "");
    if (right - left >= 7 * label.length + 2) draw(svg, "text", { class: "chord", x: (left + right) / 2, y: 26 }, label);
  }
  draw(svg, "rect", { class: "frame", x: 30, y: 4, width: 860, height: 36 });
  drawTimes(svg, song, 58);
}

function showTable(song) {
  const table = at("table");
  const head = write(table, "tr", "");
  const columns = song.valence === null ? [] : ["valence", "arousal"];
  for (const heading of ["time", ...columns, "tags over their thresholds"]) write(head, "th", heading);
  for (const moment of song.timeline) {
    const row = write(table, "tr", "");
    write(row, "td", `${clock(moment.start)}–${clock(moment.end)}`);
    for (const name of columns) write(row, "td", moment[name].toFixed(2));
    write(row, "td", moment.given.map((name) => `${name} ${moment.tags[name].toFixed(2)}`).join(", ") || "–");
  }
}

at("file").addEventListener("change", (event) => event.target.files.length && predict(event.target.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
  });
}
window.addEventListener("drop", (event) => event.dataTransfer.files.length && predict(event.dataTransfer.files[0]));

fetch("model").then((response) => response.json()).then((about) => {
  model = about;
  at("about").textContent = `A model trained on ${about.datasets.join(", ") || "data that it does not name"}; it hears through ${about.encoder} and ${about.chords} chords.`;
  at("cautions").textContent = about.cautions.join("; ");
  document.body.dataset.ready = "yes";
});
