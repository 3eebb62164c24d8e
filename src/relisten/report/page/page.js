// Puts the page together: the list and the answer beside it, links into them, the theme.

const data = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);
const browser = byId("browser");

const back = () => {
  for (const part of [browser, byId("answers")]) part.classList.remove("reading");
  byId("list").focus({ preventScroll: true });
};
const addressOf = (entry) => `#answer=${encodeURIComponent(entry.id.toWellFormed())}`;
const view = new AnswerView(byId("answer"), data, back);
const list = new AnswerList(byId("list"), byId("filters"), data, (entry, run, reveal) => {
  view.show(entry, run);
  history.replaceState(null, "", addressOf(entry));
  if (!reveal) return;
  for (const part of [browser, byId("answers")]) part.classList.add("reading");
  if (getComputedStyle(byId("list")).display === "none") byId("answers").scrollIntoView();
});

/** Open the answer that the address names; else the first, without turning to it. */
function follow() {
  const at = list.shown.findIndex((index) => location.hash === addressOf(data.entries[index]));
  if (at >= 0) {
    list.open(at, true);
    byId("answers").scrollIntoView();
  } else if (list.selected < 0 && list.shown.length) {
    list.selected = 0;
    list.draw();
    view.show(data.entries[list.shown[0]], list.state.run);
  }
}
follow();
window.addEventListener("hashchange", follow);

document.addEventListener("click", (event) => {
  const link = event.target.closest("button.link");
  if (!link) return;
  const { run, outcome, change } = link.dataset;
  list.set({ search: "", group: "", run: Number(run), outcome: outcome || "", change: change || "all" });
  list.open(0, false);
  byId("answers").scrollIntoView();
});

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    list.search.focus();
  }
});

const themes = ["", "light", "dark"];
const setTheme = (theme) => {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  byId("theme").textContent = `◐ ${{ "": "Auto", light: "Light", dark: "Dark" }[theme]}`;
  view.theme();
};
byId("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "";
  setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.theme());
setTheme("");

const links = [...document.querySelectorAll(".top a")];
const watch = new IntersectionObserver(
  (seen) => {
    for (const one of seen) {
      const link = links.find((known) => known.hash === `#${one.target.id}`);
      if (one.isIntersecting) {
        links.forEach((known) => known.removeAttribute("aria-current"));
        link?.setAttribute("aria-current", "true");
      }
    }
  },
  { rootMargin: "-15% 0px -75% 0px" }
);
document.querySelectorAll("main > section").forEach((part) => watch.observe(part));
