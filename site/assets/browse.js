// The catalogue's table (search, facets, columns, export) and the page that sets entries side by side. site.js loads it where one of them is.
// The state of both stands behind the # of the address: that works for a page opened as a file, too, and can be shared.
(() => {
  const root = new URL("..", document.currentScript.src);
  const make = (tag, properties = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) name in node ? (node[name] = value) : node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const state = () => new URLSearchParams(location.hash.slice(1));
  const remember = (parameters) => history.replaceState(null, "", "#" + parameters.toString().replaceAll("%2C", ","));
  const loaded = {};
  const load = (path) => (loaded[path] ??= new Promise((resolve, reject) => {
    document.head.append(make("script", { src: new URL(path, root).href, onload: resolve, onerror: reject }));
  }));
  const names = async () => {
    if (!window.smallprint) await load("assets/names.js");
    return window.smallprint;
  };
  const known = async (ids) => { // everything about these entries, from the parts in which they stand
    const { names: all, part, known } = await names();
    const wanted = new Set(ids);
    const found = new Map(all.flatMap((entry, index) => (wanted.has(entry.id) ? [[entry.id, { entry, part: Math.floor(index / part) }]] : [])));
    const parts = new Set([...found.values()].map((one) => one.part));
    await Promise.all([...parts].map((number) => load(`assets/entries/${number}.js`)));
    return ids.filter((id) => found.has(id)).map((id) => ({ ...found.get(id).entry, ...known[id] }));
  };
  const end = document.querySelector('meta[name="smallprint:page"]').content;
  const pageOf = (path, anchor = "") => new URL(path + end + anchor, root).href;
  const plainly = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

  const catalogue = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const at = Object.fromEntries(heads.map((head, index) => [head.dataset.column, index]));
    const words = (cell) => [...cell.querySelectorAll("span")].map((span) => span.textContent);
    const facets = { family: "Family", venue: "Venue", tags: "Tag", data: "Needs data", training: "Needs training", verdict: "Claims" };
    const later = document.querySelector("noscript.sp-later"); // with scripts on it holds text, not yet a table
    const parsed = make("template", { innerHTML: later?.textContent ?? "" }).content;
    later?.remove();
    const rows = [...table.tBodies[0].rows, ...parsed.querySelectorAll("tbody tr")].map((row) => {
      const cell = (id) => row.cells[at[id]];
      const label = (id) => (id === "tags" ? words(cell(id)) : [(cell(id).querySelector("data") ?? cell(id)).firstChild?.textContent.trim() ?? ""]);
      const facts = Object.fromEntries(Object.keys(facets).map((id) => [id, label(id).filter(Boolean)]));
      return { row, id: row.id, facts, year: Number(cell("year").textContent), text: plainly(row.textContent) };
    });
    const body = table.tBodies[0];
    const order = rows.slice();
    let shown = rows;
    const columns = heads.filter((head) => head.dataset.column !== "name");

    const search = make("input", { type: "search", className: "sp-finder-text", placeholder: "Name, title, author, tag …", "aria-label": "Search the table" });
    const years = rows.map((one) => one.year);
    const [first, last] = [Math.min(...years), Math.max(...years)];
    const year = (label, value) => make("input", { type: "number", min: first, max: last, value, "aria-label": label });
    const from = year("First year", first), to = year("Last year", last);
    const boxes = {};
    const folds = Object.entries(facets).map(([id, title]) => {
      const values = [...new Set(rows.flatMap((one) => one.facts[id]))].sort((a, b) => a.localeCompare(b));
      boxes[id] = values.map((value) => {
        const count = make("small");
        const input = make("input", { type: "checkbox", value });
        return { value, input, count, label: make("label", {}, input, ` ${value} `, count) };
      });
      const summary = make("summary", {}, title);
      return { id, summary, title, node: make("details", { className: "sp-facet" }, summary, make("div", {}, ...boxes[id].map((box) => box.label))) };
    });
    const choice = columns.map((head) => {
      const input = make("input", { type: "checkbox", value: head.dataset.column, checked: !("spare" in head.dataset) });
      return { head, input, label: make("label", {}, input, ` ${head.textContent}`) };
    });
    const chosenColumns = make("details", { className: "sp-facet" }, make("summary", {}, "Columns"), make("div", {}, ...choice.map((one) => one.label)));
    const reset = make("button", { type: "button", className: "sp-reset" }, "Reset");
    const said = make("p", { className: "sp-under", role: "status" });
    const compare = make("a", { className: "sp-to-compare", hidden: true });
    const exports = make("span", { className: "sp-export" }, "Export this view: ", ...["CSV", "JSON", "BibTeX"].map((kind) =>
      make("button", { type: "button", onclick: () => save(kind) }, kind)));
    const spans = make("span", { className: "sp-years" }, "Years ", from, " to ", to);
    const form = make("form", { className: "sp-finder", role: "search", onsubmit: (event) => event.preventDefault() },
      search, make("div", { className: "sp-facets" }, ...folds.map((fold) => fold.node), spans, chosenColumns, reset));
    table.parentElement.before(form, make("div", { className: "sp-finder-foot" }, said, compare, exports));

    const ticked = (id) => new Set(boxes[id].filter((box) => box.input.checked).map((box) => box.value));
    const fits = (one, wanted, except) =>
      one.year >= Number(from.value || first) && one.year <= Number(to.value || last) && wanted.text.every((word) => one.text.includes(word)) &&
      Object.keys(facets).every((id) => id === except || !wanted[id].size || one.facts[id].some((value) => wanted[id].has(value)));

    // Thousands of rows are laid out as far as somebody scrolls.
    const PORTION = 200;
    const more = make("button", { type: "button", className: "sp-more", onclick: () => extend() }, "Show more");
    table.parentElement.after(more);
    const choosable = (one) => {
      if (!one.box) {
        one.box = make("input", { type: "checkbox", "aria-label": `Choose ${one.row.cells[0].querySelector("a").textContent} to compare`, onchange: () => {
          one.box.checked ? picked.add(one.id) : picked.delete(one.id);
          show();
        } });
        one.row.cells[0].prepend(one.box, " ");
      }
      return one.row;
    };
    const extend = () => {
      body.append(...shown.slice(body.rows.length, body.rows.length + PORTION).map(choosable));
      more.hidden = body.rows.length >= shown.length;
    };
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && !more.hidden && extend(), { rootMargin: "600px" }).observe(more);

    let sorting = "";
    const keyOf = (one, id) => {
      const cell = one.row.cells[at[id]];
      const number = cell.querySelector("data");
      const text = cell.textContent.trim();
      return number ? Number(number.value) : id === "year" ? one.year : "number" in heads[at[id]].dataset || id === "verdict" || text === "" ? null : plainly(text);
    };
    const sort = () => {
      const down = sorting.startsWith("-"), id = sorting.replace("-", "");
      for (const head of heads) head.dataset.column === id ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort");
      if (!(id in at)) return order.splice(0, order.length, ...rows);
      const keyed = rows.map((one) => [keyOf(one, id), one]);
      const there = keyed.filter(([key]) => key !== null).sort(([a], [b]) => (down ? -1 : 1) * (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0));
      order.splice(0, order.length, ...there.map(([, one]) => one), ...keyed.filter(([key]) => key === null).map(([, one]) => one)); // the unknown come last
    };

    const picked = new Set();
    const forgive = async () => { // nothing fits: a slip of the finger, perhaps
      const typed = search.value;
      const found = typed && window.smallprintGuess(typed, (await names()).names);
      if (shown.length || search.value !== typed || !found?.length) return;
      said.append(" Did you mean ", ...found.flatMap((entry, index) => [index ? ", " : "", make("button", { type: "button", className: "sp-csv", onclick: () => { search.value = entry.name; show(); } }, entry.name)]), "?");
    };
    const show = () => {
      const wanted = { text: plainly(search.value).split(/\s+/).filter(Boolean), ...Object.fromEntries(Object.keys(facets).map((id) => [id, ticked(id)])) };
      shown = order.filter((one) => fits(one, wanted));
      body.replaceChildren();
      extend();
      for (const fold of folds) {
        const counts = new Map();
        for (const one of rows) if (fits(one, wanted, fold.id)) for (const value of one.facts[fold.id]) counts.set(value, (counts.get(value) ?? 0) + 1);
        for (const box of boxes[fold.id]) {
          box.count.textContent = counts.get(box.value) ?? 0;
          box.label.classList.toggle("sp-none", !counts.get(box.value) && !box.input.checked);
        }
        fold.summary.textContent = wanted[fold.id].size ? `${fold.title}: ${[...wanted[fold.id]].join(", ")}` : fold.title;
        fold.node.classList.toggle("sp-chosen", wanted[fold.id].size > 0);
      }
      for (const one of choice) table.classList.toggle(`sp-without-${one.head.dataset.column}`, !one.input.checked);
      said.textContent = shown.length === rows.length ? `All ${rows.length} entries` : shown.length ? `${shown.length} of ${rows.length} entries` : "No entry fits.";
      if (!shown.length) forgive().catch(() => {});
      compare.hidden = picked.size === 0;
      compare.textContent = `Compare ${picked.size} chosen`;
      compare.href = pageOf("compare", `#entries=${[...picked].join(",")}`);
      const parameters = new URLSearchParams();
      if (search.value) parameters.set("q", search.value);
      for (const id of Object.keys(facets)) if (wanted[id].size) parameters.set(id, [...wanted[id]].join("|"));
      if (Number(from.value) !== first || Number(to.value) !== last) parameters.set("years", `${from.value || first}-${to.value || last}`);
      if (sorting) parameters.set("sort", sorting);
      if (choice.some((one) => one.input.checked === "spare" in one.head.dataset)) parameters.set("columns", choice.filter((one) => one.input.checked).map((one) => one.input.value).join(","));
      if (parameters.size || location.hash) remember(parameters);
    };
    const restore = () => {
      const parameters = state();
      search.value = parameters.get("q") ?? "";
      for (const id of Object.keys(facets)) {
        const values = new Set((parameters.get(id) ?? "").split("|"));
        for (const box of boxes[id]) box.input.checked = values.has(box.value);
      }
      const [a, b] = (parameters.get("years") ?? "").split("-").map(Number);
      from.value = a || first;
      to.value = b || last;
      sorting = parameters.get("sort") ?? "";
      const wanted = parameters.get("columns")?.split(",");
      for (const one of choice) one.input.checked = wanted ? wanted.includes(one.input.value) : !("spare" in one.head.dataset);
      sort();
      show();
    };

    for (const head of heads) {
      const id = head.dataset.column;
      head.replaceChildren(make("button", { type: "button", onclick: () => {
        sorting = sorting === id ? `-${id}` : id;
        sort();
        show();
      } }, ...head.childNodes));
    }
    const save = (kind) => known(shown.map((one) => one.id)).then((view) => {
      const quoted = (value) => `"${String(Array.isArray(value) ? value.join("; ") : value ?? "").replaceAll('"', '""')}"`;
      const fields = ["id", "name", "title", "authors", "year", "venue", "family", "tags", "arxiv", "doi", "url", "data", "training", "verdict", "held", "claims", "summary"];
      const text = {
        CSV: () => [fields, ...view.map((entry) => fields.map((field) => entry[field]))].map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n",
        JSON: () => JSON.stringify(view, null, 2),
        BibTeX: () => view.map((entry) => entry.bibtex).join("\n"),
      }[kind]();
      const [type, suffix] = { CSV: ["text/csv", "csv"], JSON: ["application/json", "json"], BibTeX: ["application/x-bibtex", "bib"] }[kind];
      const address = URL.createObjectURL(new Blob([text], { type }));
      make("a", { href: address, download: `smallprint.${suffix}` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    }, () => { said.textContent = "The catalogue's data could not be loaded."; });

    form.addEventListener("input", show);
    reset.addEventListener("click", () => { remember(new URLSearchParams()); restore(); });
    document.addEventListener("click", (event) => { // a click beside an open facet closes it
      for (const open of form.querySelectorAll("details[open]")) if (!open.contains(event.target)) open.open = false;
    });
    form.addEventListener("keydown", (event) => {
      const open = event.key === "Escape" && event.target.closest("details[open]");
      if (open) { open.open = false; open.firstChild.focus(); }
    });
    addEventListener("hashchange", restore);
    table.classList.add("sp-ready");
    restore();
  };

  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const times = (value) => (value == null ? "–" : `${value.toFixed(value >= 0.1 ? 2 : 3)}×`);
  const signed = (value) => (value == null ? "–" : `${value > 0 ? "+" : ""}${value.toFixed(1)}`.replace("-", "−"));

  const chart = (chosen, condition) => {
    const lines = chosen.flatMap((entry) => entry.measured.filter((one) => one.condition === condition).map((one) => [entry, one]));
    if (!lines.length) return "";
    const svg = (tag, properties, ...children) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
      node.append(...children);
      return node;
    };
    const all = lines.flatMap(([, one]) => Object.values(one.accuracy));
    const low = Math.max(0, Math.floor(10 * Math.min(...all) - 0.3) / 10), high = Math.min(1, Math.ceil(10 * Math.max(...all) + 0.1) / 10);
    const x = (value) => 20 + (390 * (value - low)) / (high - low);
    const height = 40 * lines.length + 34;
    const title = `Accuracy of ${lines.length} methods beside their best controls and references, ${condition}. The table holds every number.`;
    const picture = svg("svg", { viewBox: `0 0 430 ${height}`, role: "img", "aria-label": title, style: "max-width: 27rem" });
    const step = high - low > 0.45 ? 0.1 : high - low > 0.15 ? 0.05 : 0.02;
    for (let tick = low; tick <= high + 1e-9; tick += step) {
      picture.append(svg("line", { x1: x(tick), x2: x(tick), y1: 4, y2: height - 26, class: "sp-grid" }),
        svg("text", { x: x(tick), y: height - 10, "text-anchor": "middle" }, percent(tick).replace(".0%", "%")));
    }
    lines.forEach(([entry, one], index) => {
      const y = 32 + 40 * index; // below its name
      const { reference, control, method } = one.accuracy;
      const line = svg("g", { class: `sp-${entry.family}` }, svg("title", {}, `${entry.name}: method ${percent(method)}${control == null ? "" : `, ${one.control} ${percent(control)}`}, reference ${percent(reference)}`),
        svg("text", { x: 4, y: y - 13 }, entry.name));
      if (control != null) line.append(svg("line", { x1: x(control), x2: x(method), y1: y, y2: y, class: "sp-span" }), svg("path", { d: `M${x(control) - 5} ${y - 5}l10 10m0-10l-10 10`, class: "sp-cross" }));
      line.append(svg("circle", { cx: x(method), cy: y, r: 6, class: "sp-dot" }));
      if (reference != null) line.append(svg("path", { d: `M${x(reference)} ${y - 6}l6 6l-6 6l-6-6z`, class: "sp-diamond" }));
      picture.append(line);
    });
    return make("figure", { className: "sp-chart", tabIndex: 0 }, picture, make("figcaption", { className: "sp-under" }, "● method  × best control  ◇ reference: accuracy after the last step"));
  };

  const compare = (frame, { names: entries, families }) => {
    const by = new Map(entries.map((entry) => [entry.id, entry]));
    const field = make("input", { type: "search", placeholder: "Add an entry by name …", "aria-label": "Add an entry by name", autocomplete: "off", "aria-controls": "sp-suggestions" });
    const suggestions = make("ul", { className: "sp-suggestions", id: "sp-suggestions", hidden: true });
    const condition = make("select", { "aria-label": "Measured under" });
    const table = make("div", { className: "sp-scroll", tabIndex: 0, role: "region", ariaLabel: "Comparison" }), picture = make("div");
    const bar = make("form", { className: "sp-finder", onsubmit: (event) => { event.preventDefault(); suggestions.querySelector("button")?.click(); } },
      make("div", { className: "sp-facets" }, make("span", { className: "sp-pick" }, field, suggestions), condition));
    frame.append(bar, picture, table);
    const chosen = () => (state().get("entries") ?? "").split(",").map((id) => by.get(id)).filter(Boolean);
    const choose = (ids) => {
      const parameters = state();
      ids.length ? parameters.set("entries", ids.join(",")) : parameters.delete("entries");
      remember(parameters);
      refresh();
    };
    field.addEventListener("input", () => {
      const wanted = plainly(field.value).split(/\s+/).filter(Boolean), there = new Set(chosen());
      const found = wanted.length ? entries.filter((entry) => !there.has(entry) && wanted.every((word) => plainly(`${entry.name} ${entry.title} ${entry.authors.join(" ")}`).includes(word))) : [];
      found.sort((a, b) => plainly(b.name).startsWith(wanted[0]) - plainly(a.name).startsWith(wanted[0]));
      if (wanted.length && !found.length) found.push(...window.smallprintGuess(field.value, entries.filter((entry) => !there.has(entry))));
      suggestions.replaceChildren(...found.slice(0, 8).map((entry) => make("li", {}, make("button", { type: "button", onclick: () => {
        field.value = "";
        suggestions.replaceChildren();
        suggestions.hidden = true;
        choose([...chosen().map((one) => one.id), entry.id]);
        field.focus();
      } }, `${entry.name} `, make("small", {}, `${entry.year} · ${families[entry.family]}`)))));
      if (wanted.length && !found.length) suggestions.append(make("li", { className: "sp-nothing" }, "No other entry has such a name."));
      suggestions.hidden = !wanted.length;
    });
    condition.addEventListener("change", () => {
      const parameters = state();
      parameters.set("on", condition.value);
      remember(parameters);
      refresh();
    });
    let turn = 0;
    const show = async () => {
      const own = ++turn;
      const there = await known(chosen().map((entry) => entry.id));
      if (own !== turn) return; // another choice came meanwhile
      const conditions = [...new Set(there.flatMap((entry) => entry.measured.map((one) => one.condition)))];
      const asked = state().get("on");
      const shared = (name) => there.filter((entry) => entry.measured.some((one) => one.condition === name)).length;
      const on = conditions.includes(asked) ? asked : conditions.sort((a, b) => shared(b) - shared(a))[0];
      condition.replaceChildren(...conditions.map((name) => make("option", { value: name, selected: name === on }, name)));
      condition.hidden = !conditions.length;
      if (!there.length) {
        const offers = [["adaround", "data_free_quantization"], ["network_slimming", "pruning_filters"], ["kim_tucker", "lebedev_cp", "jaderberg_low_rank"]].filter((ids) => ids.every((id) => by.has(id)));
        table.replaceChildren(make("p", { className: "sp-empty" }, "Nothing is chosen yet. For instance: ", ...offers.flatMap((ids, index) => [index ? ", " : "", make("a", { href: `#entries=${ids.join(",")}` }, ids.map((id) => by.get(id).name).join(" and "))]), "."));
        picture.replaceChildren();
        return;
      }
      const of = (entry) => entry.measured.find((one) => one.condition === on);
      const rows = [
        ["Family", (entry) => families[entry.family]],
        ["Published", (entry) => `${entry.venue} ${entry.year}`.trim()],
        ["Idea", (entry) => entry.summary],
        ["Use it", (entry) => entry.use],
        ["Rather not", (entry) => entry.not],
        ["Needs data", (entry) => entry.data],
        ["Needs training", (entry) => entry.training],
        ["Effects that hold", (entry) => (entry.claims ? `${entry.held} of ${entry.claims}` : "")],
        ["Effects that fail here", (entry) => (entry.fails.length ? make("ul", {}, ...entry.fails.map((says) => make("li", {}, says))) : "")],
        ["Accuracy of the reference", (entry) => of(entry)?.spread.reference ?? "–"],
        ["of the best control", (entry) => (of(entry)?.spread.control ? `${of(entry).spread.control} (${of(entry).control})` : "–")],
        ["of the method", (entry) => of(entry)?.spread.method ?? "–"],
        ["Points beyond the control", (entry) => signed(of(entry)?.gap)],
        ["Multiply-adds", (entry) => times(of(entry)?.multiply_adds)],
        ["Bit operations", (entry) => times(of(entry)?.bit_operations)],
        ["Bits a weight", (entry) => of(entry)?.bits ?? "–"],
        ["File", (entry) => times(of(entry)?.file_bytes)],
        ["Time, one thread", (entry) => times(of(entry)?.latency)],
        ["Seeds", (entry) => of(entry)?.seeds ?? "–"],
      ];
      const head = make("tr", {}, make("td"), ...there.map((entry) => make("th", { scope: "col", className: `sp-${entry.family}` }, make("a", { href: pageOf(entry.path) }, entry.name), " ",
        make("button", { type: "button", title: "Remove", ariaLabel: `Remove ${entry.name}`, onclick: () => choose(chosen().map((one) => one.id).filter((id) => id !== entry.id)) }, "✕"))));
      const lines = rows.map(([name, cell]) => [name, there.map(cell)]).filter(([, cells]) => cells.some((cell) => cell !== "" && cell !== "–"));
      table.replaceChildren(make("table", { className: "sp-side" }, make("thead", {}, head),
        make("tbody", {}, ...lines.map(([name, cells]) => make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell)))))));
      picture.replaceChildren(chart(there, on));
    };
    const fail = () => table.replaceChildren("The catalogue's data could not be loaded.");
    const refresh = () => show().catch(fail);
    addEventListener("hashchange", refresh);
    refresh();
  };

  const table = document.querySelector(".sp-catalogue");
  if (table) catalogue(table);
  const frame = document.querySelector(".sp-compare");
  if (frame) names().then((data) => compare(frame, data), () => frame.append("The catalogue's data could not be loaded."));
})();
