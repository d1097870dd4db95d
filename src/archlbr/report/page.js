"use strict";
(() => {
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const tables = [...document.querySelectorAll("section table:not(.code)")];
  const functions = [...document.querySelectorAll("details.function")];

  for (const table of tables) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      button.addEventListener("click", () => {
        const number = head.classList.contains("n");
        const before = head.getAttribute("aria-sort");
        const down = before ? before === "ascending" : number;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const cell = row.cells[column];
          return number ? Number(cell.dataset.v || -1) : cell.textContent;
        };
        const rows = [...table.tBodies[0].rows].sort((one, other) => {
          const a = value(one), b = value(other);
          const order = number ? a - b : a.localeCompare(b);
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (text) => words.every((word) => text.includes(word));
    let shown = 0, all = 0;
    for (const table of tables) {
      for (const row of table.tBodies[0].rows) {
        row.hidden = !matches(row.textContent.toLowerCase());
        all += 1;
        shown += row.hidden ? 0 : 1;
      }
    }
    for (const one of functions) {
      one.hidden = !matches(one.querySelector("summary").textContent.toLowerCase());
    }
    found.textContent = words.length ? `${shown} of ${all} rows` : "";
  };
  search.addEventListener("input", filter);

  const openTarget = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const holder = target && target.closest("details.function");
    if (holder) {
      holder.hidden = false;
      holder.open = true;
      target.scrollIntoView({ block: "center" });
    }
  };
  window.addEventListener("hashchange", openTarget);
  openTarget();

  const step = (by) => {
    const rows = functions.filter((one) => !one.hidden);
    if (!rows.length) return;
    const here = rows.findIndex((one) => one.contains(document.activeElement));
    const next = rows[(here + by + rows.length + (here < 0 && by < 0 ? 1 : 0)) % rows.length];
    next.open = true;
    next.querySelector("summary").focus();
    next.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && search.value) {
      search.value = "";
      filter();
    } else if (event.target !== search && event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (event.target !== search && (event.key === "]" || event.key === "[")) {
      step(event.key === "]" ? 1 : -1);
    }
  });
})();
