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
// What only those hear who can't see the page, and its title, which can't stand in it twice.
const speak = () => {
  const chinese = root.lang === "zh", title = document.querySelector("title");
  title.dataset.en ??= title.textContent;
  title.textContent = chinese ? title.dataset.zh : title.dataset.en;
  for (const named of document.querySelectorAll("[data-label-zh]")) {
    named.dataset.labelEn ??= named.getAttribute("aria-label");
    named.setAttribute("aria-label", chinese ? named.dataset.labelZh : named.dataset.labelEn);
  }
};
speak();
languages.addEventListener("change", ({ target }) => {
  if (target.value === "en") delete root.dataset.language; else root.dataset.language = target.value;
  root.lang = target.value;
  speak();
  try { localStorage.setItem("resnetlab-language", target.value); } catch {}
});

