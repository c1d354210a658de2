// Sorting of tables, the search field of the home page, and the scripts of the catalogue and of charts where they are needed. Everything else on these pages works without a script.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = cell.querySelector("data");
    if (number) return Number(number.value);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text.toLowerCase();
  };

  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

  const sort = (heading) => {
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    const known = rows.filter(([key]) => key !== null).sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
    body.append(...known.map(([, row]) => row), ...rows.filter(([key]) => key === null).map(([, row]) => row)); // the unknown come last
  };

  const own = document.currentScript.src;

  // A table as it stands, in the order it is sorted in.
  const download = (table) => {
    const cell = (node) => `"${node.textContent.replace(/[↕↑↓]/g, "").replace(/\s+/g, " ").trim().replaceAll('"', '""')}"`;
    const text = [...table.rows].map((row) => [...row.cells].map(cell).join(",")).join("\r\n") + "\r\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${document.title.replace(/[^\w]+/g, "-").toLowerCase()}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // Search finds words; a name with a slip of the finger is offered here, by the fewest letters to change.
  const distance = (a, b) => {
    let last = [...Array(b.length + 1).keys()];
    for (let i = 1; i <= a.length; i++) {
      const row = [i];
      for (let j = 1; j <= b.length; j++) row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] !== b[j - 1]));
      last = row;
    }
    return last[b.length];
  };
  const plainly = (text) => text.normalize("NFD").toLowerCase().replace(/[^a-z0-9]/g, "");
  const guess = (query, entries) => {
    const wanted = plainly(query);
    const scored = wanted.length < 3 ? [] : entries.map((entry) => [Math.min(...[entry.name, entry.id].map((name) => distance(wanted, plainly(name)))), entry]);
    return scored.filter(([far]) => far <= Math.max(1, Math.floor(wanted.length / 3))).sort(([a], [b]) => a - b).slice(0, 3).map(([, entry]) => entry);
  };
  window.smallprintGuess = guess;
  const forgive = () => {
    const said = document.querySelector(".md-search-result__meta"), field = document.querySelector("[data-md-component=search-query]");
    if (!said || !field) return;
    const offer = document.createElement("p");
    offer.className = "sp-offer";
    offer.setAttribute("role", "status");
    said.after(offer);
    const look = () => {
      const found = said.nextElementSibling?.nextElementSibling?.childElementCount;
      offer.replaceChildren();
      if (found || !field.value.trim()) return;
      if (!window.smallprint) return load();
      const names = guess(field.value, window.smallprint.names);
      const end = document.querySelector('meta[name="smallprint:page"]').content;
      offer.replaceChildren(...names.flatMap((entry, index) => {
        const link = document.createElement("a");
        link.href = new URL(`../${entry.path}${end}`, own).href;
        link.textContent = entry.name;
        return [index ? ", " : "Did you mean ", link];
      }));
    };
    const load = () => {
      const data = document.createElement("script");
      data.src = new URL("names.js", own).href;
      data.onload = look; // other words may stand there meanwhile
      document.head.append(data);
    };
    let waiting;
    field.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(look, 400); // after the search has answered
    });
  };

  const prepare = () => {
    for (const [name, where] of [["browse.js", ".sp-catalogue, .sp-compare"], ["chart.js", "[data-chart]"]]) {
      if (!document.querySelector(where)) continue;
      const script = document.createElement("script");
      script.src = new URL(name, own).href;
      document.head.append(script);
    }
    document.querySelector(".sp-search")?.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector("[data-md-component=search-query]")?.focus();
    });
    forgive();
    for (const frame of document.querySelectorAll(".sp-download")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sp-csv";
      button.textContent = "Download this table as CSV";
      button.addEventListener("click", () => download(frame.querySelector("table")));
      frame.after(button);
    }
    for (const heading of document.querySelectorAll(".sp-sortable th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(heading));
      heading.append(button);
    }
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", prepare);
  else prepare();
})();
