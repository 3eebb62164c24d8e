// The list of answers: filter, search, sort; only the rows in sight exist.

const ROW = 60;
const SPARE = 6;

const SORTS = {
  order: ["Benchmark order", null],
  most: ["Most listens", (result) => -result.listens],
  fewest: ["Fewest listens", (result) => result.listens],
  long: ["Longest text", (result) => -result.words],
  slow: ["Slowest", (result) => -result.total],
  iou: ["Lowest IoU with the truth", (result) => result.iou],
  clip: ["Longest clip", (result, entry) => -entry.duration],
};
const CHANGES = {
  all: ["All", () => true],
  differ: ["Outcomes differ", (entry) => new Set(entry.runs.map((_, run) => outcomeOf(entry, run))).size > 1],
  gained: ["Gained", (entry, run) => outcomeOf(entry, 0) !== "right" && outcomeOf(entry, run) === "right"],
  lost: ["Lost", (entry, run) => outcomeOf(entry, 0) === "right" && outcomeOf(entry, run) !== "right"],
};

class AnswerList {
  /**
   * @param root the list box
   * @param bar where the filters go
   * @param data the report's data
   * @param onOpen told (entry, run, reveal) what is chosen
   */
  constructor(root, bar, data, onOpen) {
    Object.assign(this, { root, data, onOpen, shown: [], selected: -1 });
    this.state = { search: "", run: data.runs.length - 1, outcome: "", group: "", change: "all", sort: "order" };
    this.texts = data.entries.map(textOf);
    this.space = make("div", { className: "space", role: "presentation" });
    root.append(this.space);
    root.addEventListener("scroll", () => this.draw(), { passive: true });
    root.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.open(Number(row.dataset.at), true);
    });
    root.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(root);
    this.filters(bar);
    this.update();
  }

  /** Change filters, in the page's controls too. */
  set(changes) {
    Object.assign(this.state, changes);
    for (const [name, control] of Object.entries(this.controls)) control.value = String(this.state[name]);
    this.update();
  }

  filters(bar) {
    const { runs, entries } = this.data;
    const select = (name, label, options) => {
      const control = make("select", { onchange: () => this.set({ [name]: name === "run" ? Number(control.value) : control.value }) }, options);
      return [control, make("label", {}, label, control)];
    };
    const option = ([value, text]) => make("option", { value }, text);
    const search = make("input", { type: "search", placeholder: "Search questions and answers", "aria-label": "Search" });
    search.addEventListener("input", () => this.set({ search: search.value }));
    const [run, runLabel] = select("run", "Run", runs.map((name, number) => option([number, name])));
    const [group, groupLabel] = select("group", "Group", [option(["", "All"]), ...groupsOf(entries)]);
    const [change, changeLabel] = select("change", "Against the first", Object.entries(CHANGES).map(([key, [name]]) => option([key, name])));
    const [sort, sortLabel] = select("sort", "Sort", Object.entries(SORTS).map(([key, [name]]) => option([key, name])));
    this.controls = { search, run, group, change, sort };
    this.chips = make("div", { className: "chips", role: "group", "aria-label": "Outcome" });
    this.count = make("span", { id: "shown", role: "status" });
    const compared = runs.length > 1 ? [runLabel, changeLabel] : [];
    const grouped = group.options.length > 1 ? [groupLabel] : [];
    bar.append(
      make("div", { className: "bar" }, this.chips, this.count),
      make("div", { className: "bar" }, search, compared, grouped, sortLabel)
    );
    this.search = search;
    run.value = String(this.state.run);
  }

  update() {
    const { search, run, outcome, group, change, sort } = this.state;
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const [key, value] = group ? JSON.parse(group) : [];
    const kept = [];
    const counts = {};
    this.data.entries.forEach((entry, index) => {
      if (key !== undefined && entry.groups[key] !== value) return;
      if (!CHANGES[change][1](entry, run)) return;
      if (!words.every((word) => this.texts[index].includes(word))) return;
      const has = outcomeOf(entry, run);
      counts[has] = (counts[has] || 0) + 1;
      if (!outcome || has === outcome) kept.push(index);
    });
    const by = SORTS[sort][1];
    if (by) {
      const rank = (index) => {
        const entry = this.data.entries[index];
        const result = entry.runs[run];
        const value = result?.parts ? by(result, entry) : null;
        return value === null || value === undefined ? Infinity : value;
      };
      const ranks = new Map(kept.map((index) => [index, rank(index)]));
      kept.sort((a, b) => (ranks.get(a) === ranks.get(b) ? a - b : ranks.get(a) - ranks.get(b)));
    }
    const before = this.shown[this.selected];
    this.shown = kept;
    this.selected = kept.indexOf(before);
    this.space.style.height = `${kept.length * ROW}px`;
    this.root.scrollTop = this.selected < 0 ? 0 : this.root.scrollTop;
    this.count.textContent = `${kept.length.toLocaleString("en")} of ${this.data.entries.length.toLocaleString("en")}`;
    this.drawChips(counts);
    this.draw();
  }

  drawChips(counts) {
    const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
    const there = Object.keys(SIGNS).filter((name) => this.data.entries.some((entry) => outcomeOf(entry, this.state.run) === name));
    const chip = (name, label, count) =>
      make(
        "button",
        { type: "button", "aria-pressed": String(this.state.outcome === name), "data-outcome": name, onclick: () => this.set({ outcome: name }) },
        name ? sign(name) : null,
        `${label} ${count.toLocaleString("en")}`
      );
    const focused = this.chips.contains(document.activeElement) ? document.activeElement.dataset.outcome : null;
    this.chips.replaceChildren(chip("", "All", total), ...there.map((name) => chip(name, SIGNS[name][1], counts[name] || 0)));
    if (focused !== null) this.chips.querySelector(`[data-outcome="${focused}"]`)?.focus();
  }

  /** The rows in sight. */
  draw() {
    const first = Math.max(0, Math.floor(this.root.scrollTop / ROW) - SPARE);
    const last = Math.min(this.shown.length, Math.ceil((this.root.scrollTop + this.root.clientHeight) / ROW) + SPARE);
    const rows = [];
    for (let at = first; at < last; at++) rows.push(this.row(at));
    if (!this.shown.length) rows.push(make("p", { className: "empty" }, "No answer matches."));
    this.space.replaceChildren(...rows);
    if (this.selected >= first && this.selected < last) this.root.setAttribute("aria-activedescendant", `row-${this.shown[this.selected]}`);
    else this.root.removeAttribute("aria-activedescendant");
  }

  row(at) {
    const index = this.shown[at];
    const entry = this.data.entries[index];
    const result = entry.runs[this.state.run];
    const about = [entry.id, ...Object.values(entry.groups)];
    if (result?.parts) about.push(`${result.listens} listen${result.listens === 1 ? "" : "s"}`);
    const row = make(
      "div",
      {
        className: "row",
        id: `row-${index}`,
        role: "option",
        "aria-selected": String(at === this.selected),
        "aria-posinset": at + 1,
        "aria-setsize": this.shown.length,
        "data-at": at,
      },
      make("span", { className: "marks" }, entry.runs.map((_, run) => sign(outcomeOf(entry, run)))),
      make("span", { className: "q" }, entry.text || entry.runs.find(Boolean)?.error || ""),
      make("span", { className: "sub" }, about.join(" · "))
    );
    row.style.top = `${at * ROW}px`;
    return row;
  }

  /** Choose a row; `reveal` also turns to it where the page is narrow. */
  open(at, reveal) {
    if (at < 0 || at >= this.shown.length) return;
    this.selected = at;
    const [top, bottom] = [at * ROW, (at + 1) * ROW];
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    else if (bottom > this.root.scrollTop + this.root.clientHeight) this.root.scrollTop = bottom - this.root.clientHeight;
    this.draw();
    this.onOpen(this.data.entries[this.shown[at]], this.state.run, reveal);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.root.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.open(Math.min(this.shown.length - 1, Math.max(0, this.selected + moves[event.key])), false);
    } else if (event.key === "Enter") {
      this.open(Math.max(0, this.selected), true);
    }
  }
}

/** Everything of an entry that a search looks through. */
function textOf(entry) {
  const responses = entry.runs.flatMap((result) =>
    result ? [result.error, result.answer, ...(result.parts || []).map((part) => (part.tag === undefined ? part : part.tag))] : []
  );
  const parts = [entry.id, entry.text, ...entry.choices, entry.answer, ...Object.values(entry.groups), ...responses];
  return parts.filter(Boolean).join(" ").toLowerCase();
}

function groupsOf(entries) {
  const keys = {};
  for (const entry of entries) {
    for (const [key, value] of Object.entries(entry.groups)) (keys[key] ||= new Map()).set(value, (keys[key].get(value) || 0) + 1);
  }
  return Object.entries(keys).map(([key, values]) => {
    const options = [...values].sort(([a], [b]) => (a < b ? -1 : 1));
    const group = make("optgroup", {}, options.map(([value, count]) => make("option", { value: JSON.stringify([key, value]) }, `${value} (${count})`)));
    group.label = key;
    return group;
  });
}
