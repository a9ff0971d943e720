"use strict";
// The theme: auto follows the system. A page that can't store the choice keeps it until it is closed.
const root = document.documentElement, themes = document.querySelector(".colours");
themes.hidden = false;
themes.querySelector(`[value="${root.dataset.theme ?? "auto"}"]`).checked = true;
themes.addEventListener("change", ({ target }) => {
  if (target.value === "auto") delete root.dataset.theme; else root.dataset.theme = target.value;
  try { localStorage.setItem("resnetlab-theme", target.value); } catch {}
});

// The language: the browser's until one is chosen. Pages carry both.
const languages = document.querySelector(".language");
languages.hidden = false;
languages.querySelector(`[value="${root.dataset.language ?? "en"}"]`).checked = true;
languages.addEventListener("change", ({ target }) => {
  if (target.value === "en") delete root.dataset.language; else root.dataset.language = target.value;
  root.lang = target.value;
  try { localStorage.setItem("resnetlab-language", target.value); } catch {}
});

