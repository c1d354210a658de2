// Sorting of tables, the search field of the home page, and the catalogue's own script where it is needed. Everything else on these pages works without a script.
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

  const prepare = () => {
    if (document.querySelector(".sp-catalogue, .sp-compare")) {
      const browse = document.createElement("script");
      browse.src = new URL("browse.js", own).href;
      document.head.append(browse);
    }
    document.querySelector(".sp-search")?.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector("[data-md-component=search-query]")?.focus();
    });
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
