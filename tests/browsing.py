"""What tests of pages in a real browser share: a page that asks for nothing else, and what must not be seen on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Texts whose colour stands out less than 4.5:1 from what is behind them.
FAINT = """() => {
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b); };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!c.startsWith("rgba")) return c; } };
  const words = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() && words(e)).map((e) => {
    const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => x - y);
    return [(b + 0.05) / (a + 0.05), e.textContent.trim()]; }).filter(([ratio]) => ratio < 4.5); }"""

# What reaches beyond its frame: the page, a table whose container can't be scrolled by key, letters outside a picture.
CUT_OFF = """() => {
  const cut = [], name = (e) => `${e.tagName} ${e.className.baseVal ?? e.className} ${e.textContent.slice(0, 40)}`;
  if (document.documentElement.scrollWidth > innerWidth) cut.push(`page ${document.documentElement.scrollWidth}`);
  for (const table of document.querySelectorAll("table")) {
    const box = table.parentElement, scrolls = box.tabIndex === 0 && getComputedStyle(box).overflowX === "auto";
    const over = table.getBoundingClientRect().right - box.getBoundingClientRect().right;
    if (over > 1 && !scrolls) cut.push(name(table));
  }
  for (const text of document.querySelectorAll(".panel svg text")) {
    if (!text.checkVisibility()) continue;
    const t = text.getBoundingClientRect(), s = text.ownerSVGElement.getBoundingClientRect();
    if (t.left < s.left - 1 || t.right > s.right + 1 || t.top < s.top - 1 || t.bottom > s.bottom + 1)
      cut.push(name(text));
  }
  for (const e of document.querySelectorAll("main p, main dd, main td, main th, .badge, .command, .bar, footer"))
    if (e.checkVisibility() && !e.closest(".scroll, thead, .bar nav") && e.getBoundingClientRect().right > innerWidth)
      cut.push(name(e));
  return cut; }"""

# What a reader who hears the page could not tell from the next one.
NAMELESS = """() => [...document.querySelectorAll("figure, table, input, nav, section, [role=img], [role=region]")]
  .filter((e) => !(e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.caption?.textContent
    || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent)).map((e) => e.outerHTML.slice(0, 80))"""


@contextlib.contextmanager
def opened(browser: Any, path: Path, width: int = 1280, **how: Any) -> Iterator[Any]:
    """A page; afterwards: nothing but the file was asked for, no dialog has opened, and the console is empty."""
    complaints: list[str] = []
    script = how.pop("before", None)
    context = browser.new_context(viewport={"width": width, "height": 844}, **how)
    context.set_default_timeout(600_000)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    allowed = (path.as_uri(), "data:")
    page.on("request", lambda r: None if r.url.startswith(allowed) else complaints.append(r.url))
    if script:
        page.add_init_script(script)
    page.goto(path.as_uri())
    yield page
    context.close()
    assert complaints == []


# The English words that can be seen or heard on a page, but for code, names of papers, and what is called so.
ENGLISH = """() => {
  const other = "code, pre, cite, math, script, style, template, [lang='en-x-own']";
  const skipped = (e) => e.closest(other) || !e.checkVisibility();
  const seen = [...document.body.querySelectorAll("*")].filter((e) => !skipped(e))
    .flatMap((e) => [...[...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data), e.ariaLabel ?? ""]);
  return [...new Set([document.title, ...seen].join(" ").match(/[A-Za-z]{3,}/g))].sort(); }"""
