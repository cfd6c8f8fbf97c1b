"use strict";
(() => {
  const PAGE = { table: 50, gallery: 48 };
  const data = JSON.parse(document.getElementById("rows").textContent);
  const columns = data.columns;
  const at = Object.fromEntries(columns.map((column, index) => [column.name, index]));
  const get = (row, name) => (name in at ? row[at[name]] : null);
  const element = (id) => document.getElementById(id);
  const collator = new Intl.Collator("en", { numeric: true });

  const OUTCOMES = {
    right: ["Right", (row) => get(row, "correct") === true],
    wrong: ["Wrong", (row) => get(row, "correct") === false],
    suspicious: ["Suspicious", (row) => get(row, "rank") !== null],
    refused: ["Refused", (row) => get(row, "refused") !== null],
  };
  const first = "rank" in at ? "rank" : "photo";
  const state = { sort: first, down: false, page: 0, matches: [], open: -1, filters: {} };
  // What a search looks through, once.
  const texts = data.rows.map((row) =>
    ["photo", "label", "predicted", "item", "reasons"].map((n) => get(row, n) ?? "").join("\n").toLowerCase(),
  );

  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") made.className = value;
      else if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function text(value) {
    if (value === null || value === undefined) return "";
    if (value === true) return "yes";
    if (value === false) return "no";
    if (typeof value !== "number" || Number.isInteger(value)) return String(value);
    const rounded = Number(value.toPrecision(4));
    // What is not quite certain is not shown as certain.
    return rounded === 1 && value < 1 ? "> 0.9999" : String(rounded);
  }

  function picture(row, large) {
    const holder = make("span", { class: large ? "picture large" : "picture" });
    fill(holder, row);
    return holder;
  }

  function fill(holder, row) {
    const photo = get(row, "thumbnail");
    const heats = get(row, "heats");
    const heat = (heats && heats[element("method").value]) ?? get(row, "heat");
    holder.replaceChildren();
    if (photo === null) {
      holder.append(make("span", { class: "none" }, get(row, "refused") ?? "no picture"));
      return;
    }
    holder.append(make("img", { src: photo, alt: "", loading: "lazy" }));
    if (heat) holder.append(make("img", { src: heat, alt: "", class: "heat", loading: "lazy" }));
  }

  function compare(name, down) {
    const index = at[name];
    const numeric = columns[index].numeric;
    const sign = down ? -1 : 1;
    return (one, other) => {
      const a = data.rows[one][index];
      const b = data.rows[other][index];
      // What has no value comes last, whichever way.
      if (a === null || b === null) return a === b ? one - other : a === null ? 1 : -1;
      const order = numeric ? a - b : collator.compare(text(a), text(b));
      return sign * order || one - other;
    };
  }

  function select() {
    const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = [];
    for (const [name, value] of Object.entries(state.filters)) {
      if (value === "") continue;
      if (name === "outcome") tests.push(OUTCOMES[value][1]);
      else if (name === "finding") {
        const photos = new Set(data.findings[value]);
        tests.push((row) => photos.has(row[at.photo]));
      } else {
        const index = at[name.replace(/^group /, "")];
        tests.push((row) => text(row[index]) === value);
      }
    }
    state.matches = [];
    data.rows.forEach((row, index) => {
      if (tests.every((test) => test(row)) && words.every((word) => texts[index].includes(word)))
        state.matches.push(index);
    });
    state.matches.sort(compare(state.sort, state.down));
    state.page = 0;
    show();
  }

  function size() {
    return PAGE[element("view").value];
  }

  function show() {
    const count = state.matches.length;
    const pages = Math.max(1, Math.ceil(count / size()));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const from = state.page * size();
    const some = state.matches.slice(from, from + size());
    element("count").textContent =
      `${count.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} photos` +
      (count > size() ? `, ${(from + 1).toLocaleString("en")} to ${(from + some.length).toLocaleString("en")} shown` : "");
    element("listing").replaceChildren(element("view").value === "table" ? tableOf(some) : galleryOf(some));
    element("pager").hidden = pages === 1;
    element("place").textContent = `Page ${state.page + 1} of ${pages}`;
    for (const button of element("pager").querySelectorAll("button"))
      button.disabled = ["first", "previous"].includes(button.dataset.page) ? state.page === 0 : state.page === pages - 1;
  }

  function tableOf(indices) {
    const head = make("tr");
    for (const index of data.shown) {
      const column = columns[index];
      const sorted = state.sort === column.name ? (state.down ? "descending" : "ascending") : null;
      const button = make("button", { type: "button", "data-sort": column.name }, column.heading);
      head.append(make("th", { scope: "col", "aria-sort": sorted, class: column.numeric ? "number" : "" }, button));
    }
    const body = make("tbody");
    for (const index of indices) {
      const row = data.rows[index];
      const line = make("tr", { class: get(row, "correct") === false ? "wrong" : "" });
      for (const which of data.shown) {
        const column = columns[which];
        if (column.name === "photo") {
          const button = make("button", { type: "button", "data-open": index }, text(row[which]));
          line.append(make("th", { scope: "row" }, button));
        } else line.append(make("td", { class: column.numeric ? "number" : "" }, text(row[which])));
      }
      body.append(line);
    }
    const table = make("table", { class: "rows" }, make("thead", {}, head), body);
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows of the photos" }, table);
  }

  function galleryOf(indices) {
    const list = make("ul", { class: "gallery" });
    for (const index of indices) {
      const row = data.rows[index];
      const wrong = get(row, "correct") === false;
      const said = get(row, "predicted") ?? get(row, "item");
      const name = make("span", { class: "caption" }, text(get(row, "photo")));
      const note = said === null ? null : make("span", { class: "caption" }, `${wrong ? "Wrong: " : ""}${said} ${text(get(row, "probability"))}`);
      const button = make("button", { type: "button", "data-open": index, class: wrong ? "wrong" : "" }, picture(row, false), name, note);
      list.append(make("li", {}, button));
    }
    return list;
  }

  function open(index) {
    const row = data.rows[index];
    state.open = state.matches.indexOf(index);
    element("photo-name").textContent = text(get(row, "photo"));
    fill(element("photo-picture"), row);
    element("photo-facts").replaceChildren(
      ...columns.flatMap((column, which) => {
        if (["photo", "thumbnail", "heat", "heats"].includes(column.name) || row[which] === null) return [];
        return [make("div", {}, make("dt", {}, column.heading), make("dd", {}, text(row[which])))];
      }),
    );
    element("photo-previous").disabled = state.open <= 0;
    element("photo-next").disabled = state.open < 0 || state.open >= state.matches.length - 1;
    if (!element("photo").open) element("photo").showModal();
  }

  function step(by) {
    const next = state.matches[state.open + by];
    if (state.open >= 0 && next !== undefined) open(next);
  }

  function choice(name, heading, options) {
    const made = make("select", { "data-filter": name });
    made.append(make("option", { value: "" }, "all"));
    for (const [value, label] of options) made.append(make("option", { value }, label));
    element("choices").append(make("label", {}, `${heading} `, made));
    state.filters[name] = "";
  }

  function values(name) {
    const found = new Set(data.rows.map((row) => text(get(row, name))));
    found.delete("");
    return [...found].sort(collator.compare).map((value) => [value, value]);
  }

  function narrow(name, value) {
    element("filters").reset();
    const target = document.querySelector(`select[data-filter="${name}"]`);
    if (target === null) return;
    target.value = value;
    state.filters[name] = value;
    if ("thumbnail" in at && data.rows.some((row) => get(row, "thumbnail") !== null)) element("view").value = "gallery";
    select();
    element("photos").scrollIntoView();
    element("search").focus({ preventScroll: true });
  }

  function prepare() {
    const outcomes = Object.entries(OUTCOMES).filter(([, [, test]]) => data.rows.some(test));
    if (outcomes.length) choice("outcome", "Outcome", outcomes.map(([key, [label]]) => [key, label]));
    for (const name of ["label", "predicted", "cluster"]) if (name in at) choice(name, columns[at[name]].heading, values(name));
    for (const column of columns) if (column.group) choice(`group ${column.name}`, column.heading, values(column.name));
    const findings = Object.keys(data.findings).filter((key) => data.findings[key].length);
    if (findings.length) choice("finding", "Finding", findings.map((key) => [key, key]));
    for (const index of data.shown) {
      element("order").append(make("option", { value: columns[index].name }, columns[index].heading));
      element("order").append(make("option", { value: `-${columns[index].name}` }, `${columns[index].heading}, descending`));
    }
    const methods = new Set("heats" in at ? data.rows.flatMap((row) => Object.keys(get(row, "heats") ?? {})) : []);
    for (const name of methods) element("method").append(make("option", { value: name }, name));
    element("methods").hidden = methods.size < 2;
    element("filters").hidden = false;
    element("order").value = first;
  }

  function order(name, down) {
    state.sort = name;
    state.down = down;
    element("order").value = down ? `-${name}` : name;
    select();
  }

  function fade(value) {
    document.documentElement.style.setProperty("--heat", value / 100);
    for (const slider of document.querySelectorAll(".opacity")) slider.value = value;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button === null) return;
    const { sort, open: index, page, finding, class: label } = button.dataset;
    if (sort !== undefined) {
      order(sort, state.sort === sort && !state.down);
      document.querySelector(`button[data-sort="${CSS.escape(sort)}"]`).focus();
    } else if (index !== undefined) open(Number(index));
    else if (finding !== undefined) narrow("finding", finding);
    else if (label !== undefined) narrow("label", label);
    else if (page !== undefined) {
      state.page = { first: 0, previous: state.page - 1, next: state.page + 1, last: Infinity }[page];
      show();
    }
  });
  element("close").addEventListener("click", () => element("photo").close());
  element("photo-previous").addEventListener("click", () => step(-1));
  element("photo-next").addEventListener("click", () => step(1));
  element("photo").addEventListener("keydown", (event) => {
    if (event.target.type === "range") return; // there the arrows move the slider
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("filters").addEventListener("reset", () => {
    for (const name of Object.keys(state.filters)) state.filters[name] = "";
    // The controls have their first values again only after this event.
    setTimeout(() => {
      fade(element("opacity").value);
      order(first, false);
    });
  });
  let waiting = 0;
  element("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(select, 120);
  });
  element("filters").addEventListener("change", (event) => {
    const changed = event.target;
    if (changed.dataset.filter !== undefined) {
      state.filters[changed.dataset.filter] = changed.value;
      select();
    } else if (changed.id === "order") order(changed.value.replace(/^-/, ""), changed.value.startsWith("-"));
    else if (changed.id === "view" || changed.id === "method") show();
  });
  for (const slider of document.querySelectorAll(".opacity"))
    slider.addEventListener("input", (event) => fade(event.target.value));
  // A closed part is not printed, so all are opened.
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
  prepare();
  select();
})();
