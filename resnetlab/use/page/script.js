// The page of `resnetlab serve`: sends a picture, shows its classes and where the network looked.
"use strict";

const at = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
let served = null; // what /health tells
let picture = null; // the file that is shown
let asked = 0; // counts what was asked for; an answer to something older is dropped

async function ask(path, body) {
  const headers = body ? { "Content-Type": body.type.startsWith("image/") ? body.type : "image/x-unknown" } : {};
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", body, headers });
  } catch {
    throw new Error("The server can't be reached.");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Error(`${problem.detail || answer.statusText} (${answer.status})`);
}

function say(words, error = "") {
  at("status").textContent = words;
  at("error").textContent = error;
}

function choose(select, names, first = []) {
  const rest = names.filter((name) => !first.includes(name));
  select.replaceChildren(...[...first, ...rest].map((name) => new Option(name, name)));
}

function row({ class: name, probability }) {
  const made = document.createElement("tr");
  const head = made.appendChild(document.createElement("th"));
  head.scope = "row";
  head.textContent = name;
  const svg = head.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  for (const [key, value] of Object.entries({ class: "bar", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }))
    svg.setAttribute(key, value);
  const bar = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
  bar.setAttribute("width", 100 * probability);
  bar.setAttribute("height", 1);
  const cell = made.appendChild(document.createElement("td"));
  cell.className = "number";
  cell.textContent = percent(probability);
  return made;
}

function source(image, blob) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
}

async function show(file) {
  const mine = ++asked;
  say("Looking…");
  try {
    served ??= await (await ask("health")).json();
    if (file.size > served.most_bytes)
      throw new Error(`The picture has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${(served.most_bytes / 1e6).toFixed(1)} MB.`);
    const { classes } = await (await ask("predict", file)).json();
    if (mine !== asked) return;
    picture = file;
    at("photo").classList.remove("broken");
    at("photo").style.transform = `scale(${1 / served.seen})`;
    source(at("photo"), file);
    at("classes").replaceChildren(...classes.map(row));
    choose(at("label"), served.classes, classes.map((found) => found.class));
    at("heat").hidden = true;
    at("result").hidden = false;
    say(`${classes[0].class}, ${percent(classes[0].probability)}.`);
    if (served.units.length) await explain();
    else reveal();
  } catch (error) {
    if (mine !== asked) return;
    picture = null;
    at("result").hidden = true; // it would be taken for this picture's
    say("", error.message);
  }
}

async function explain() {
  if (!picture) return;
  const mine = ++asked, label = at("label").value, unit = at("unit").value;
  const where = new URLSearchParams({ label, unit });
  try {
    const image = await (await ask(`explain?${where}`, picture)).blob();
    if (mine !== asked) return;
    source(at("heat"), image);
    at("heat").alt = `Where the network looked for ${label}, at ${unit}`;
    at("error").textContent = "";
    reveal();
  } catch (error) {
    if (mine === asked) at("error").textContent = error.message;
  }
}

function reveal() {
  const shown = at("show").checked && at("heat").src !== "" && served.units.length > 0;
  at("heat").hidden = !shown;
  at("caption").textContent = shown
    ? `Bright is what the network used for “${at("label").value}”, at ${at("unit").value} (Grad-CAM).`
    : "The part of your picture that the network sees.";
}

const images = (list) => [...list].filter((file) => file.type.startsWith("image/") || file.type === "");

function take(list) {
  const [first] = images(list);
  if (first) show(first);
  else if (list.length) say("", "This is not an image.");
}

at("file").addEventListener("change", () => {
  if (at("file").files.length) show(at("file").files[0]);
  at("file").value = ""; // so that the same file can be chosen again
});
at("label").addEventListener("change", explain);
at("unit").addEventListener("change", explain);
at("show").addEventListener("change", reveal);
at("photo").addEventListener("error", () => at("photo").classList.add("broken")); // a format browsers don't know
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
for (const ended of ["dragleave", "drop"]) document.addEventListener(ended, () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));

(async () => {
  try {
    served = await (await ask("health")).json();
    at("served").textContent = `${served.network}, ${served.classes.length} classes`;
    choose(at("unit"), served.units);
    at("unit").selectedIndex = served.units.length - 1;
    at("looking").hidden = !served.units.length;
    at("no-units").hidden = !at("looking").hidden;
  } catch (error) {
    say("", error.message);
  }
})();
