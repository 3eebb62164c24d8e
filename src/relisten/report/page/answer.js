// One question in full: what was asked, its sound, and what every run made of it.

const SIGNS = {
  right: ["✓", "right"],
  wrong: ["✕", "wrong"],
  no_answer: ["∅", "no answer"],
  failed: ["!", "failed"],
  unscored: ["·", "no reference"],
  pending: ["…", "not asked yet"],
  absent: ["–", "not in this run"],
};
const REASONS = {
  in_answer: "stands in the answer",
  malformed: "not two times",
  reversed: "ends before it starts",
  outside: "outside the clip",
  too_short: "shorter than 0.2 s",
  not_interleaved: "cited, not played again",
  over_limit: "over the limit of listens",
};
const outcomeOf = (entry, run) => (entry.runs[run] ? entry.runs[run].outcome : "absent");
const sign = (outcome) =>
  make("span", { className: `sign ${outcome}`, textContent: SIGNS[outcome][0], title: SIGNS[outcome][1], role: "img", "aria-label": SIGNS[outcome][1] });
const same = (one, other) => one.trim().toLowerCase().split(/\s+/).join(" ") === other.trim().toLowerCase().split(/\s+/).join(" ");

class AnswerView {
  /**
   * @param root where to draw
   * @param data the report's data
   * @param onBack called to return to the list, where the page is narrow
   */
  constructor(root, data, onBack) {
    this.root = root;
    this.data = data;
    this.onBack = onBack;
    this.player = null;
    root.addEventListener("keydown", (event) => this.key(event));
  }

  /** Draw an entry; the segments of `run` are on its sound, if it has any. */
  show(entry, run) {
    this.player?.destroy();
    const sound = entry.sound === null ? null : this.data.sounds[entry.sound];
    this.player = sound ? new Player(entry, sound, this.data.runs, run, (segment) => this.mark(segment)) : null;
    const about = Object.entries(entry.groups).map(([key, value]) => make("span", {}, `${key}: ${value}`));
    this.root.replaceChildren(
      make("button", { type: "button", className: "back quiet", onclick: this.onBack }, "← Back to the list"),
      make("p", { className: "meta" }, make("span", {}, entry.id), about),
      make("h3", {}, entry.text || "This row could not be read"),
      this.choices(entry),
      this.player ? this.player.element : make("p", { className: "hint" }, entry.note || "No sound."),
      make("div", { className: "cards" }, entry.runs.map((result, run) => this.card(entry, result, run))),
      this.player && make("p", { className: "hint" }, "Space plays and pauses; 1 to 9 play what was listened to.")
    );
    this.root.querySelectorAll(":scope > .hint:empty").forEach((empty) => empty.remove());
    this.player?.start();
  }

  theme() {
    this.player?.theme();
  }

  choices(entry) {
    const reference = entry.answer;
    const listed = entry.choices.length ? entry.choices : reference === null ? [] : [reference];
    return make(
      "ul",
      { className: "choices", "aria-label": "Choices" },
      listed.map((choice) => {
        const isReference = reference !== null && same(choice, reference);
        const takers = entry.runs
          .map((result, run) => (result?.answer && same(result.answer, choice) ? run : -1))
          .filter((run) => run >= 0);
        return make(
          "li",
          { className: isReference ? "reference" : "" },
          choice,
          isReference ? make("small", {}, "reference") : null,
          this.data.runs.length > 1
            ? takers.map((run) => make("i", { className: `swatch s${run % 6}`, title: `answer of ${this.data.runs[run]}` }))
            : null
        );
      })
    );
  }

  card(entry, result, run) {
    const outcome = outcomeOf(entry, run);
    const name = this.data.runs.length > 1 ? make("span", { className: "run" }, make("i", { className: "swatch" }), this.data.runs[run]) : null;
    const card = make(
      "div",
      { className: `card s${run % 6}`, role: "group", "data-run": run, "aria-label": `Answer of ${this.data.runs[run]}` },
      make(
        "header",
        {},
        name,
        make("span", { className: `badge ${outcome}` }, sign(outcome), ` ${SIGNS[outcome][1]}`),
        result?.answer ? make("b", { className: "given" }, result.answer) : null
      )
    );
    if (result?.error) card.append(make("p", { className: "error" }, result.error));
    if (!result?.parts) return card;
    if (result.findings.length) {
      const lines = result.findings.map((finding) => make("li", {}, finding));
      card.append(make("ul", { className: "findings", "aria-label": "What audio tools found" }, lines));
    }
    const text = make("p", { className: "text" });
    result.parts.forEach((part, key) => text.append(...(part.tag === undefined ? plain(part) : [this.tag(part, key, run)])));
    if (result.cut) text.append(make("span", { className: "markup" }, ` … and ${result.cut.toLocaleString("en")} more characters`));
    card.append(text, make("p", { className: "facts" }, facts(result).map((fact) => make("span", {}, fact))));
    return card;
  }

  /** A tag in the text, linked to its region. */
  tag(part, key, run) {
    const timed = part.start !== undefined;
    const label = timed ? `${trim(part.start)} to ${trim(part.end)} s` : part.tag;
    const why = part.skip ? ` (${REASONS[part.skip] || part.skip})` : "";
    const told = part.skip === "not_interleaved" ? label : label + why;
    const button = make(
      "button",
      {
        type: "button",
        className: part.listen ? "tag" : "tag skipped",
        disabled: !timed || !this.player,
        title: part.tag + why,
        "data-segment": key,
        "data-run": run,
      },
      part.listen ? `${part.listen}: ${label}` : told
    );
    const find = () => this.player?.regions.find((known) => known.key === String(key));
    button.addEventListener("click", () => {
      this.player.select(run);
      this.player.play(find());
    });
    for (const [event, near] of Object.entries({ mouseenter: true, focus: true, mouseleave: false, blur: false })) {
      button.addEventListener(event, () => {
        if (near) this.player.select(run);
        this.player.highlight(near ? find() : null);
      });
    }
    return button;
  }

  /** Show in the text what is being played. */
  mark(segment) {
    for (const button of this.root.querySelectorAll(".tag")) {
      const is = segment !== null && button.dataset.segment === segment.key && Number(button.dataset.run) === this.player.run;
      button.classList.toggle("playing", is);
    }
  }

  key(event) {
    if (!this.player || event.ctrlKey || event.metaKey || event.altKey) return;
    const number = Number(event.key);
    if (event.key === " " && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      this.player.toggle();
    } else if (number >= 1 && number <= 9) {
      this.player.play(this.player.regions.filter((known) => known.listen)[number - 1]);
    } else if (event.key === "Escape") {
      this.onBack();
    }
  }
}

/** Text with the marks of its blocks set back. */
function plain(text) {
  return text
    .split(/(<\/?(?:think|answer)>)/)
    .filter(Boolean)
    .map((piece) => (/^<\/?(?:think|answer)>$/.test(piece) ? make("span", { className: "markup" }, piece) : piece));
}

function facts(result) {
  const [encode, prefill, decode, listen] = result.seconds;
  const second = (value) => value.toFixed(2);
  const count = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
  return [
    routed(result.route),
    count(result.listens, "listen"),
    count(result.words, "word"),
    count(result.tokens, "token"),
    result.total ? `${second(result.total)} s (encode ${second(encode)}, prefill ${second(prefill)}, decode ${second(decode)}, listen ${second(listen)})` : "",
    result.iou === null ? "" : `IoU with the truth ${Math.round(100 * result.iou)} %`,
    result.finish === "answer" ? "" : `ended: ${result.finish.replace("_", " ")}`,
    result.error ? "" : result.note || "",
  ].filter(Boolean);
}

/** The route of an answer, how sure the policy was, and what went wrong. */
function routed(route) {
  if (route === null) return "";
  const sure = route.confidence === null ? "" : `, confidence ${Math.round(100 * route.confidence)} %`;
  return `route ${route.name}${sure}${route.note ? ` (${route.note})` : ""}`;
}

const trim = (seconds) => String(Math.round(seconds * 100) / 100);
