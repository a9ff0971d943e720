// The command: copied, or, where a page may not, selected so that the reader can.
for (const box of document.querySelectorAll(".command")) {
  const button = box.querySelector("button"), code = box.querySelector("code");
  const say = (state) => { for (const name of ["copy", "copied", "selected"]) button.querySelector(`.${name}`).hidden = name !== state; };
  button.hidden = false;
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(code.textContent); say("copied"); }
    catch { getSelection().selectAllChildren(code); say("selected"); }
    setTimeout(() => say("copy"), 2000);
  });
}

// A figure's values at the x that a pointer or the slider is at, in all panels that have the same xs.
for (const figure of document.querySelectorAll(".figure")) {
  const panels = [...figure.querySelectorAll(".panel:has(script)")].map((panel) => {
    const data = JSON.parse(panel.querySelector("script").textContent);
    const svg = panel.querySelector("svg"), slider = panel.querySelector("input");
    const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
    const [low, high] = svg.dataset.x.split(" ").map(Number);
    const place = data.at.map((x) => left + ((x - low) / (high - low)) * (right - left));
    const cells = [...panel.querySelectorAll("td")], x = panel.querySelector("caption .at");
    const rule = document.createElementNS(svg.namespaceURI, "path");
    rule.setAttribute("class", "rule");
    svg.prepend(rule);
    // The slider lies under the axes; its thumb is 16 px wide.
    const share = (units) => `calc(${(100 * units) / svg.viewBox.baseVal.width}% - 8px)`;
    slider.parentElement.style.paddingInline = `${share(left)} ${share(svg.viewBox.baseVal.width - right)}`;
    const show = (i) => {
      slider.value = i;
      slider.setAttribute("aria-valuetext", `${data.label[root.lang]} ${data.xs[i]}`);
      x.textContent = data.xs[i];
      rule.setAttribute("d", `M${place[i]} ${top}V${bottom}`);
      cells.forEach((cell, k) => { [cell.children[0].textContent, cell.children[1].textContent] = data.cells[i][k]; });
    };
    return { svg, slider, place, show, xs: data.xs.join() };
  });
  for (const { svg, slider, place, xs } of panels) {
    const showAll = (i) => panels.filter((p) => p.xs === xs).forEach((p) => p.show(i));
    const follow = (event) => {
      const frame = svg.getBoundingClientRect();
      const x = ((event.clientX - frame.left) / frame.width) * svg.viewBox.baseVal.width;
      showAll(place.reduce((best, at, i) => (Math.abs(at - x) < Math.abs(place[best] - x) ? i : best), 0));
    };
    slider.parentElement.hidden = slider.max === "0";
    slider.addEventListener("input", () => showAll(Number(slider.value)));
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
  }
}
