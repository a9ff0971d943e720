// The things to move. Each reads its numbers from the page, shows the first state that the page has, and no more.
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const data = (key) => JSON.parse(one(`#data-${key}`)?.textContent ?? "null");
const SVG = "http://www.w3.org/2000/svg";

// A number as the text has it, three digits of it: 0.0581, 13.1, 7.45 × 10⁻⁹.
function written(value) {
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5)) return String(Number(value.toPrecision(3)));
  const [mantissa, power] = value.toExponential(2).split("e");
  return `${Number(mantissa)}\u202f×\u202f10${[...String(Number(power))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;
}
const tenth = (value) => value.toFixed(1).replace("-", "−");

// Where a point of a picture's axes lies; a logarithmic y axis has its limits as powers.
function axesOf(svg, logarithmic) {
  const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
  const [x0, x1] = svg.dataset.x.split(" ").map(Number), [y0, y1] = svg.dataset.y.split(" ").map(Number);
  return {
    left, top, right, bottom,
    x: (x) => left + ((x - x0) / (x1 - x0)) * (right - left),
    y: (y) => bottom - (((logarithmic ? Math.log10(y) : y) - y0) / (y1 - y0)) * (bottom - top),
  };
}
function drawn(svg, kind) {
  const element = document.createElementNS(SVG, kind);
  element.setAttribute("class", "overlay");
  svg.append(element);
  return element;
}

// Figure 6: the curves up to an epoch; the values beside them follow.
{
  const draw = one(".draw"), figure = draw?.closest("figure");
  if (figure) {
    const slider = one("input", draw), button = one("button", draw), out = one("output", draw);
    const panels = all(".panel", figure).map((panel, i) => {
      const svg = one("svg", panel), values = JSON.parse(one("script", panel).textContent), axes = axesOf(svg, false);
      const clip = document.createElementNS(SVG, "clipPath"), window = document.createElementNS(SVG, "rect");
      clip.id = `drawn-${i}`;
      for (const [name, value] of Object.entries({ x: axes.left - 5, y: axes.top - 5, height: axes.bottom - axes.top + 10 }))
        window.setAttribute(name, value);
      clip.append(window);
      svg.append(clip);
      for (const line of all("[style*='--c']", svg))
        if (line.hasAttribute("clip-path")) line.setAttribute("clip-path", `url(#drawn-${i})`);
      return { window, axes, at: values.at, xs: values.xs, scrub: one(".scrub input", panel) };
    });
    const last = panels[0].xs.length - 1;
    let timer = null;
    const show = (i) => {
      slider.value = i;
      out.textContent = panels[0].xs[i];
      slider.setAttribute("aria-valuetext", panels[0].xs[i]);
      for (const { window, axes, at, scrub } of panels) {
        window.setAttribute("width", i === last ? axes.right - axes.left + 10 : axes.x(at[i]) - axes.left + 5);
        scrub.value = i;
      }
      panels[0].scrub.dispatchEvent(new Event("input"));
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      button.setAttribute("aria-pressed", "false");
      one(".play", button).hidden = false;
      one(".pause", button).hidden = true;
    };
    slider.max = last;
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) === last) show(0);
      button.setAttribute("aria-pressed", "true");
      one(".play", button).hidden = true;
      one(".pause", button).hidden = false;
      timer = setInterval(() => {
        show(Number(slider.value) + 1);
        if (Number(slider.value) === last) stop();
      }, 350);
    });
    show(last);
  }
}

// ∏λ: what shortcuts alone leave of the gradient, beside what was measured.
{
  const box = one("#thing-product"), found = data("product");
  if (box) {
    const [scale, depth] = all("input", box), [scaleOut, depthOut] = all("output", box);
    const svg = one("figure.product svg"), axes = axesOf(svg, true);
    const curve = drawn(svg, "path"), point = drawn(svg, "circle");
    point.setAttribute("r", 5);
    const inside = (y) => Math.min(Math.max(y, axes.top), axes.bottom);
    const show = () => {
      const lambda = Number(scale.value), layers = Number(depth.value), units = (layers - 2) / 2, left = lambda ** units;
      scaleOut.textContent = lambda;
      depthOut.textContent = layers;
      one(".power", box).textContent = `${lambda}${[...String(units)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("")}`;
      one(".left", box).textContent = written(left);
      const match = found.measured.find((m) => m.scale === lambda && m.layers === layers);
      one(".is-measured", box).hidden = !match;
      one(".not-measured", box).hidden = Boolean(match);
      const value = one(".measured", box);
      value.textContent = match ? written(match.value) : "";
      value.dataset.record = match ? found.record : "";
      value.dataset.at = match?.at ?? "";
      const points = Array.from({ length: units + 1 }, (_, n) => `${axes.x(n)} ${inside(axes.y(lambda ** n))}`);
      curve.setAttribute("d", `M${points.join("L")}`);
      point.setAttribute("cx", axes.x(units));
      point.setAttribute("cy", inside(axes.y(left)));
    };
    scale.addEventListener("input", show);
    depth.addEventListener("input", show);
    show();
  }
}

// The bottleneck: w channels in and out, a quarter inside; beside a pair of 3x3 convolutions.
{
  const box = one("#thing-bottleneck");
  if (box) {
    const [width, pair] = all("input", box), [widthOut, pairOut] = all("output", box);
    const show = () => {
      const w = Number(width.value), p = Number(pair.value), inner = w / 4;
      const weights = { pair: 2 * 9 * p * p, narrow: 2 * w * inner + 9 * inner * inner };
      widthOut.textContent = w;
      pairOut.textContent = p;
      for (const [name, value] of Object.entries(weights)) {
        one(`.${name} i`, box).style.width = `${(100 * value) / Math.max(...Object.values(weights))}%`;
        one(`.${name} b`, box).textContent = value.toLocaleString("en-US");
      }
      one(".ratio", box).textContent = (weights.pair / weights.narrow).toFixed(2);
      one(".case .equal", box).hidden = p !== w;
      one(".case .cost", box).hidden = p !== w / 4;
    };
    for (const button of all("button", box))
      button.addEventListener("click", () => { pair.value = Number(width.value) * button.dataset.share; show(); });
    width.addEventListener("input", show);
    pair.addEventListener("input", show);
    show();
  }
}

// F and H: the same step as a share of each.
{
  const box = one("#thing-reaction");
  if (box) {
    const sliders = all("input", box), outs = all("output", box);
    const show = () => {
      const [x, before, after] = sliders.map((s) => Number(s.value));
      sliders.forEach((s, i) => { outs[i].textContent = s.value; });
      for (const [name, from, to] of [["h", x + before, x + after], ["f", before, after]]) {
        one(`.${name}-step`, box).textContent = `${name.toUpperCase()}: ${tenth(from)} → ${tenth(to)}`;
        one(`.${name}-percent`, box).textContent = String(Number(((100 * (to - from)) / from).toPrecision(3))).replace("-", "−");
      }
      one(".step", box).textContent = tenth(after - before);
    };
    for (const slider of sliders) slider.addEventListener("input", show);
    show();
  }
}

// A unit, built: its diagram, equation, code, cost, and the error of a network of such units if one was trained.
{
  const box = one("#thing-unit"), found = data("unit");
  if (box) {
    const chosen = (name) => one(`[name="unit-${name}"]:checked`, box).value;
    const boxes = (parent, letters) => parent.replaceChildren(...letters.map((letter) => {
      const element = document.createElement("span");
      element.className = "box";
      element.textContent = found.layers[letter];
      return element;
    }));
    const call = { c: "conv", b: "bn", r: "relu" };
    const applied = (letters, to) => letters.reduce((inner, letter) => `${call[letter]}(${inner})`, to);
    const meets = { half: "½ +", frozen: "½ + ½", exclusive: "(1−g) + g", shortcut_only: "(1−g) +", dropout: "drop +" };
    const show = () => {
      const [mix, shortcut, order] = ["mix", "shortcut", "order"].map(chosen), { branch, after } = found.orders[order];
      const plain = mix === "plain", projects = ["project", "everywhere"].includes(shortcut) && !plain;
      const first = projects ? branch.indexOf("c") : 0; // a projection shares the unit's first activation with F
      boxes(one(".lead-boxes", box), branch.slice(0, first));
      boxes(one(".branch", box), branch.slice(first));
      boxes(one(".after-boxes", box), after);
      one(".ways", box).classList.toggle("none", plain);
      one(".shortcut .box", box).textContent = found.shortcuts[shortcut].box;
      one(".meet", box).hidden = plain;
      one(".meet", box).textContent = meets[mix] ?? "+";
      one(".mix", box).innerHTML = found.mixes[mix].math;
      one(".equation .h", box).innerHTML = plain ? "" : found.shortcuts[shortcut].math;
      const lines = [`def F(x): return ${applied(branch.slice(first), "x")}`];
      if (!plain) lines.push(found.shortcuts[shortcut].code);
      if (first) lines.push(`x = ${applied(branch.slice(0, first), "x")}`);
      lines.push(found.mixes[mix].code, `return ${applied(after, "y")}`);
      one(".code code", box).textContent = lines.join("\n");
      const [weights, adds] = found.costs[`${mix} ${shortcut}`], name = found.networks[`${mix} ${shortcut} ${order}`];
      one(".weights", box).textContent = weights.toLocaleString("en-US");
      one(".adds", box).textContent = (adds / 1e6).toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
      one(".network", box).textContent = name;
      const error = found.errors[`${mix} ${shortcut} ${order}`], value = one(".error", box);
      one(".has-error", box).hidden = !error;
      one(".no-error", box).hidden = Boolean(error);
      for (const about of all(".about", box)) about.textContent = error?.about[about.lang] ?? "";
      value.textContent = error ? tenth(error.value) : "";
      value.dataset.record = error?.record ?? "";
      value.dataset.at = error?.at ?? "";
      one(".diagram", box).setAttribute("aria-label", `${lines.join("; ")}`);
      delete one(".diagram", box).dataset.labelZh; // code is read in either language
    };
    box.addEventListener("change", show);
    show();
  }
}

// Units taken out of a trained network: what the record has of one at a time, and of several at random.
{
  const box = one("#thing-deletion"), found = data("deletion");
  if (box) {
    const units = one(".units", box), several = one("#several", box), words = (id) => one(`#${id}-word`, box).innerHTML;
    const svg = one("figure.deletion svg"), axes = axesOf(svg, false), point = drawn(svg, "circle");
    point.setAttribute("r", 5);
    let out = null;
    const net = () => found.nets[one("[name='deleted-net']:checked", box).value];
    const bind = (element, value, at) => {
      element.textContent = tenth(value);
      element.dataset.record = found.record;
      element.dataset.at = at;
    };
    const range = (p) => (p && p.low !== p.high ? `(${tenth(p.low)}–${tenth(p.high)})` : "");
    const show = () => {
      const single = net().one.find((p) => p.x === out), shown = single ?? { mean: net().whole.value, at: net().whole.at };
      one(".which", box).innerHTML = single ? `${words("one")} ${out}` : words("whole");
      bind(one(".error", box), shown.mean, shown.at);
      one(".range", box).textContent = range(single);
      for (const button of units.children) button.setAttribute("aria-pressed", String(Number(button.value) === out));
      point.setAttribute("visibility", single ? "visible" : "hidden");
      if (single) { point.setAttribute("cx", axes.x(out)); point.setAttribute("cy", axes.y(single.mean)); }
      const many = net().several[Number(several.value)];
      one("output", box).textContent = many.x;
      bind(one(".several-error", box), many.mean, many.at);
      one(".several-range", box).textContent = range(many);
      several.setAttribute("aria-valuetext", `${many.x}`);
    };
    const start = () => {
      const there = new Set(net().one.map((p) => p.x)), most = Math.max(...Object.values(found.nets).flatMap((n) => n.one.map((p) => p.x)));
      units.replaceChildren(...Array.from({ length: most }, (_, i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.value = button.textContent = i + 1;
        button.innerHTML = `<span class="hidden-words">${words("unit")} </span>${i + 1}`;
        button.disabled = !there.has(i + 1);
        return button;
      }));
      several.max = net().several.length - 1;
      if (!there.has(out)) out = null;
      show();
    };
    units.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button) { out = out === Number(button.value) ? null : Number(button.value); show(); }
    });
    for (const radio of all("[name='deleted-net']", box)) radio.addEventListener("change", start);
    several.addEventListener("input", show);
    start();
  }
}

// The appendix: studies whose claims have the words that were typed.
{
  const search = one("#search");
  search?.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase(), studies = all(".study");
    for (const study of studies) {
      const found = study.textContent.toLowerCase().includes(wanted);
      study.hidden = !found;
      study.open = found && wanted !== "";
    }
    one(".nothing").innerHTML = studies.every((study) => study.hidden) ? one("#no-claim").innerHTML : "";
  });
}
