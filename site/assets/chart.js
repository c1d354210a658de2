// Charts that answer: on interest, the static image is replaced in its place by one that Vega draws from the same specification.
(() => {
  const own = document.currentScript.src;
  const wanted = new Map();
  window.smallprintCharts = {};

  // What a page opened as a file may load is a script. One that fails may be asked for again.
  const load = (path) => {
    if (!wanted.has(path)) {
      wanted.set(path, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = new URL(path, own).href;
        script.onload = resolve;
        script.onerror = () => {
          wanted.delete(path);
          script.remove();
          reject(new Error(path));
        };
        document.head.append(script);
      }));
    }
    return wanted.get(path);
  };

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) key in made ? (made[key] = value) : made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // Axes that can be moved: their domains become signals; what they no longer hold is cut off, and they count for themselves.
  const movable = (vega) => {
    const scales = ["x", "y"].map((name) => vega.scales.find((scale) => scale.name === name));
    vega.signals = [...(vega.signals ?? []), { name: "moved", value: false }];
    for (const scale of scales) {
      vega.signals.push({ name: `domain_${scale.name}`, value: scale.domain });
      scale.domain = { signal: `domain_${scale.name}` };
    }
    for (const axis of vega.axes) if (axis.values) axis.values = { signal: `moved ? null : ${JSON.stringify(axis.values)}` };
    for (const mark of vega.marks) mark.clip = { signal: "moved" };
    return vega;
  };

  // A domain made smaller or larger around a place in it (0 to 1), then shifted by a part of itself.
  const stretched = (domain, log, factor, at, shift) => {
    const [low, high] = log ? domain.map(Math.log) : domain;
    const from = low + (high - low) * (at - at * factor - shift);
    const ends = [from, from + (high - low) * factor];
    return log ? ends.map(Math.exp) : ends;
  };

  const mover = (view, frame) => {
    const start = { x: view.signal("domain_x"), y: view.signal("domain_y") };
    let place = [0.5, 0.5]; // where the reader pointed last
    // A place on the screen, as parts of the plot from its lower left corner.
    const part = (event) => {
      const svg = frame.querySelector("svg");
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const [left, top] = view.origin().map((offset, axis) => offset + view.padding()[axis ? "top" : "left"]);
      return [(at.x - left) / view.signal("width"), 1 - (at.y - top) / view.signal("height")];
    };
    const inside = (parts) => parts.every((value) => value >= 0 && value <= 1);
    const move = (factor, at = place, shift = [0, 0], from = { x: view.signal("domain_x"), y: view.signal("domain_y") }) => {
      const x = stretched(from.x, true, factor, at[0], shift[0]);
      if (Math.log(x[1] / x[0]) > 2 * Math.log(start.x[1] / start.x[0]) || x[1] / x[0] < 1.001) return;
      view.signal("moved", true).signal("domain_x", x).signal("domain_y", stretched(from.y, false, factor, at[1], shift[1])).runAsync();
    };
    const reset = () => {
      place = [0.5, 0.5];
      view.signal("moved", false).signal("domain_x", start.x).signal("domain_y", start.y).runAsync();
    };
    let grip = null;
    frame.addEventListener("pointerdown", (event) => {
      const at = part(event);
      if (!inside(at)) return;
      place = at;
      if (event.pointerType !== "mouse" || event.button) return; // a finger scrolls the page
      event.preventDefault(); // no selection of words
      frame.focus({ preventScroll: true });
      grip = { at, domain: { x: view.signal("domain_x"), y: view.signal("domain_y") } };
    });
    addEventListener("pointermove", (event) => {
      if (!grip) return;
      const at = part(event);
      move(1, [0.5, 0.5], at.map((value, axis) => value - grip.at[axis]), grip.domain);
    });
    addEventListener("pointerup", () => (grip = null));
    frame.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      move(Math.exp(Math.max(-50, Math.min(50, event.deltaY)) / 150), part(event));
    }, { passive: false });
    frame.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const shift = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
      if (shift && view.signal("moved")) move(1, place, shift);
      else if (event.key === "+") move(0.7);
      else if (event.key === "-") move(1 / 0.7);
      else if (event.key === "0") reset();
      else return;
      event.preventDefault();
    });
    return { move, reset };
  };

  // The choice that the legend offers to the mouse, for everybody: one series, or all.
  const chooser = (view, picks) => {
    const select = element("select", { ariaLabel: "Single out" }, element("option", { value: "", textContent: "All series" }));
    for (const [field, names] of Object.entries(picks)) {
      const group = element("optgroup", { label: field[0].toUpperCase() + field.slice(1) });
      for (const name of names) group.append(element("option", { value: JSON.stringify([field, name]), textContent: name }));
      select.append(group);
    }
    const store = (field) => `pick_${field}_store`;
    const chosen = () => Object.keys(picks).flatMap((field) => view.data(store(field)).map((row) => JSON.stringify([field, row.values[0]])));
    select.addEventListener("change", () => {
      const [only, name] = select.value ? JSON.parse(select.value) : [];
      for (const field of Object.keys(picks)) {
        view.data(store(field), field === only ? [{ unit: "", fields: [{ type: "E", field }], values: [name] }] : []);
      }
      view.runAsync();
    });
    for (const field of Object.keys(picks)) {
      view.addDataListener(store(field), () => {
        const now = chosen();
        select.value = now.length === 1 ? now[0] : "";
        if (now.length > 1) select.selectedIndex = -1; // more than a list can say
      });
    }
    return select;
  };

  const tools = (figure, view, { zoom, picks }) => {
    const row = figure.querySelector(".sp-tools"), explore = row.querySelector(".sp-explore");
    const made = Object.keys(picks).length ? [chooser(view, picks)] : [];
    const button = (text, label, act) => element("button", { type: "button", textContent: text, title: label, ariaLabel: label, onclick: act });
    let said = "Point at a mark for its numbers";
    if (zoom) {
      const { move, reset } = mover(view, figure.querySelector(".sp-frame"));
      made.push(button("−", "Zoom out", () => move(1 / 0.7)), button("+", "Zoom in, to where you pointed last", () => move(0.7)));
      made.push(button("Reset", "Show the whole chart again", reset));
      said = "Drag to move, Ctrl and wheel to zoom";
    }
    const asked = document.activeElement === explore;
    explore.replaceWith(...made, element("span", { className: "sp-hint", textContent: said }));
    if (asked) figure.querySelector(".sp-frame").focus({ preventScroll: true }); // where arrows move and + zooms; the tools come next
  };

  const draw = async (figure) => {
    if (figure.dataset.state === "drawing" || figure.dataset.state === "drawn") return;
    figure.dataset.state = "drawing";
    const name = figure.dataset.chart, explore = figure.querySelector(".sp-explore");
    try {
      await Promise.all([load("vega.js"), load(`charts/${name}.js`)]);
      const chart = window.smallprintCharts[name];
      const stage = element("span", { className: "sp-stage" });
      const { view } = await window.vegaEmbed(stage, chart.spec, {
        mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false, // no eval, no style that a strict page forbids
        tooltip: { disableDefaultStyle: true }, patch: chart.zoom ? movable : undefined,
        loader: { load: () => Promise.reject(new Error("charts load nothing")) },
      });
      const old = figure.querySelector("svg"), drawn = stage.querySelector("svg");
      const box = old.viewBox.baseVal;
      drawn.style.maxWidth = old.style.maxWidth;
      drawn.style.aspectRatio = `${box.width} / ${box.height}`; // letters may be measured a little differently here
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", old.getAttribute("aria-label"));
      old.replaceWith(stage);
      tools(figure, view, chart);
      figure.dataset.state = "drawn";
    } catch (problem) {
      figure.dataset.state = "";
      explore.textContent = "This chart could not be drawn anew; try again";
    }
  };

  for (const figure of document.querySelectorAll("[data-chart]")) {
    const frame = figure.querySelector(".sp-frame");
    let waiting;
    frame.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse" && !navigator.connection?.saveData) waiting = setTimeout(draw, 150, figure);
    });
    frame.addEventListener("pointerleave", () => clearTimeout(waiting));
    frame.addEventListener("click", () => draw(figure));
    figure.querySelector(".sp-explore").addEventListener("click", () => draw(figure));
  }
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.getElementById("vg-tooltip-element")?.classList.remove("visible");
  });
})();
