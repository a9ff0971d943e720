// The page of `resnetlab serve`: sends a picture, shows its classes and where the network looked.
"use strict";

const at = (id) => document.getElementById(id);
let decimals = 1; // more where there are thousands of classes
const percent = (value) => `${(100 * value).toFixed(decimals)} %`;
const FEW = 12; // classes that are named in a sentence; more are a list that opens
let served = null; // what /health tells
let picture = null; // the file that is shown
let shownByServer = false; // where the browser can't show the file, or turns it another way than the server
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

function made(name, text, parent) {
  const element = parent.appendChild(document.createElement(name));
  element.textContent = text;
  return element;
}

function choose(select, names, first = []) {
  const rest = names.filter((name) => !first.includes(name));
  select.replaceChildren(...[...first, ...rest].map((name) => new Option(name, name)));
}

function row({ class: name, probability }) {
  const line = document.createElement("tr");
  const head = made("th", name, line);
  head.scope = "row";
  const svg = head.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  for (const [key, value] of Object.entries({ class: "bar", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }))
    svg.setAttribute(key, value);
  const bar = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
  bar.setAttribute("width", 100 * probability);
  bar.setAttribute("height", 1);
  made("td", percent(probability), line).className = "number";
  return line;
}

function source(image, blob) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
}

function place({ left, top, width, height }) {
  const shares = { left, top, width, height };
  for (const [side, share] of Object.entries(shares)) at("crop").style.setProperty(side, `${100 * share}%`);
  at("frame").classList.toggle("cut", width < 1 || height < 1);
}

function answer([{ class: name, probability }]) {
  at("status").replaceChildren();
  made("b", name, at("status"));
  at("status").append(` ${percent(probability)}`);
  at("error").textContent = "";
  document.body.classList.add("answered");
}

async function show(file) {
  const mine = ++asked;
  say("Looking…");
  try {
    served ??= await (await ask("health")).json();
    if (file.size > served.most_bytes)
      throw new Error(`The picture has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${(served.most_bytes / 1e6).toFixed(1)} MB.`);
    const { classes, crop } = await (await ask("predict", file)).json();
    if (mine !== asked) return;
    picture = { file, crop };
    shownByServer = false;
    at("heat").hidden = true;
    at("heat").removeAttribute("src");
    source(at("photo"), file);
    at("photo").alt = "Your picture";
    place(crop);
    decimals = classes[0].probability < 0.01 ? 4 : 1;
    at("classes").replaceChildren(...classes.map(row));
    choose(at("label"), served.classes, classes.map((found) => found.class));
    at("result").hidden = false;
    answer(classes);
    if (served.units.length) await explain();
    else reveal();
  } catch (error) {
    if (mine !== asked) return;
    picture = null;
    at("result").hidden = true; // it would be taken for this picture's
    document.body.classList.remove("answered");
    say("", error.message);
  }
}

async function explain() {
  if (!picture || !served.units.length) return;
  const mine = ++asked, label = at("label").value, unit = at("unit").value;
  const where = new URLSearchParams({ label, unit, view: shownByServer ? "overlay" : "heat" });
  try {
    const image = await (await ask(`explain?${where}`, picture.file)).blob();
    if (mine !== asked) return;
    const words = `Where the network looked for ${label}, at ${unit}`;
    source(at(shownByServer ? "photo" : "heat"), image);
    at(shownByServer ? "photo" : "heat").alt = words;
    at("error").textContent = "";
    reveal();
  } catch (error) {
    if (mine === asked) at("error").textContent = error.message;
  }
}

// The file can't be shown here, or stands another way up than the server has it: show the server's picture of what
// the network sees, which has the colours in it.
function showServers() {
  if (!picture || shownByServer) return;
  shownByServer = true;
  at("heat").hidden = true;
  place({ left: 0, top: 0, width: 1, height: 1 });
  if (served.units.length) explain();
  else reveal();
}

// The part that is seen is a square. Where its sides differ less when they are exchanged, the file is turned.
function isTurned({ width, height }, image) {
  const apart = (a, b) => Math.abs(Math.log(a / b));
  const { naturalWidth: w, naturalHeight: h } = image;
  return apart(width * w, height * h) > apart(width * h, height * w) + 1e-6;
}

function reveal() {
  const heated = served.units.length > 0 && (shownByServer || at("heat").hasAttribute("src"));
  const shown = heated && (shownByServer || at("show").checked);
  const cut = at("frame").classList.contains("cut");
  at("heat").hidden = !shown || shownByServer;
  at("legend").hidden = !shown;
  for (const id of ["show", "strength"]) at(id).disabled = shownByServer;
  const words = [];
  if (shown) words.push(`What the network used for “${at("label").value}”, at ${at("unit").value} (Grad-CAM).`);
  if (shown && served.units.indexOf(at("unit").value) > served.units.indexOf(served.unit)) words.push("This unit's map has a single position, so it can't say where: choose an earlier unit.");
  if (shownByServer && !served.units.length) words.push("This browser can't show the picture.");
  else if (shownByServer) words.push("This browser can't show the picture itself; this is what the network sees of it.");
  else words.push(cut ? "The faded part is cropped away: the network does not see it." : "The network sees the whole picture.");
  at("caption").textContent = words.join(" ");
}

function strengthen() {
  at("frame").style.setProperty("--strength", at("strength").value / 100);
  at("strength").setAttribute("aria-valuetext", `${at("strength").value} %`);
}

function introduce() {
  const { network, classes, classes_named: named, accuracy } = served;
  const count = `${classes.length.toLocaleString("en")} ${classes.length === 1 ? "class" : "classes"}`;
  at("served").textContent = `${network}, ${count}`;
  const share = (value) => `${value.toFixed(1)} %`;
  if (accuracy) {
    const images = accuracy.images ? `${accuracy.images.toLocaleString("en")} test images` : "its test images";
    const interval = accuracy.interval ? ` (95 % interval: ${accuracy.interval[0].toFixed(1)} to ${share(accuracy.interval[1])})` : "";
    at("accuracy").textContent = `The network classified ${share(accuracy.top1)} of ${images} correctly${interval}.`;
  } else at("accuracy").textContent = "The accuracy of this network is not recorded.";
  if (!named) at("names").textContent = `The file does not name its ${count}: they are numbered from 0.`;
  else if (classes.length <= FEW) at("names").textContent = `It tells apart ${count}: ${classes.join(", ")}.`;
  else {
    at("names").textContent = `It tells apart ${count}, such as ${classes.slice(0, 3).join("; ")}.`;
    at("more").hidden = false;
    at("more").addEventListener("toggle", () => classes.forEach((name) => made("li", name, at("all"))), { once: true });
  }
  at("known").hidden = false;
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
at("strength").addEventListener("input", strengthen);
at("photo").addEventListener("error", showServers); // a format that browsers don't know
at("photo").addEventListener("load", () => {
  const { naturalWidth: width, naturalHeight: height } = at("photo");
  at("frame").style.setProperty("--ratio", width / height);
  at("frame").classList.toggle("small", Math.max(width, height) < 128);
  if (picture && !shownByServer && isTurned(picture.crop, at("photo"))) showServers();
});
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
  strengthen();
  try {
    served = await (await ask("health")).json();
    introduce();
    choose(at("unit"), served.units);
    at("unit").value = served.unit;
    at("looking").hidden = !served.units.length;
    at("no-units").hidden = !at("looking").hidden;
    if (!served.units.length) at("picture-title").textContent = "The picture";
    at("scale").style.setProperty("background-image", `linear-gradient(to right, ${served.heat_colours.join(", ")})`);
  } catch (error) {
    say("", error.message);
  }
})();
