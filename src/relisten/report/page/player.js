// One sound: waveform, spectrogram, what the answers listened to, what is known to be there; all of it playable.

/** An element with properties, attributes (`data-`, `aria-`, `role`, ...) and children; text is only ever text. */
function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The [r, g, b] that a custom property stands for in the present theme. */
function colour(property) {
  const probe = make("i", { hidden: true });
  probe.style.color = `var(${property})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return found.slice(0, 3);
}

const LANES = 8;
const css = (rgb, alpha = 1) => `rgba(${rgb.join(",")},${alpha})`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

class Player {
  /**
   * @param entry an entry of the report's data
   * @param sound its sound: duration, peaks, link, embedded
   * @param runs names of the runs
   * @param run whose segments to show, if it has any
   * @param onSegment told (segment or null) of what is played, so that its tag can show it
   */
  constructor(entry, sound, runs, run, onSegment) {
    this.entry = entry;
    this.sound = sound;
    this.onSegment = onSegment;
    this.regions = [];
    this.playing = null;
    this.canPlay = Boolean(sound.embedded || sound.link);
    this.wave = make("div", { className: "wave" });
    this.canvas = make("canvas", { hidden: true });
    this.canvas.setAttribute("aria-hidden", "true");
    // In wavesurfer's own tree, below the waveform, so that regions reach over both; its style sheet floats canvases.
    this.canvas.style.cssText = "display:none;position:static;width:100%;height:96px;image-rendering:auto";
    this.audio = make("audio", { preload: "auto", hidden: true });
    this.button = make("button", { type: "button", className: "play", textContent: "Play", disabled: !this.canPlay });
    this.time = make("span", { className: "time" });
    this.element = make(
      "div",
      { className: "player" },
      this.wave,
      this.lanes(),
      make("div", { className: "controls" }, this.button, this.time, this.tabs(runs)),
      this.canPlay ? null : make("p", { className: "hint", textContent: "This sound is not in the report." }),
      this.audio
    );
    this.button.addEventListener("click", () => this.toggle());
    const has = (number) => entry.runs[number] && segmentsOf(entry.runs[number]).length > 0;
    this.select(has(run) ? run : Math.max(0, entry.runs.findIndex((_, number) => has(number))));
  }

  /** Draw; call it when `element` is in the page. */
  start() {
    const peaks = Float32Array.from(bytesOf(this.sound.peaks), (byte) => byte / 255);
    this.surfer = WaveSurfer.create({
      container: this.wave,
      height: 64,
      peaks: [peaks],
      duration: this.sound.duration,
      media: this.audio,
      cursorWidth: 1,
      barWidth: 2,
      barGap: 1,
      barRadius: 1,
      interact: this.canPlay,
    });
    this.marks = this.surfer.registerPlugin(WaveSurfer.Regions.create());
    this.surfer.getWrapper().append(this.canvas);
    this.marks.on("region-clicked", (region, event) => {
      event.stopPropagation();
      this.play(this.regions.find((known) => known.region === region));
    });
    this.surfer.on("timeupdate", (now) => this.showTime(now));
    this.surfer.on("play", () => (this.button.textContent = "Pause"));
    this.surfer.on("pause", () => {
      this.button.textContent = "Play";
      this.setPlaying(null);
    });
    this.surfer.on("interaction", () => this.setPlaying(null));
    // Regions need the length, which is known as soon as the outline is drawn.
    this.surfer.once("ready", () => {
      this.ready = true;
      this.drawRegions();
      this.load(); // not before: wavesurfer empties the source when it takes the outline
    });
    this.showTime(0);
    this.theme();
  }

  /** The sound itself; the waveform is there before it. */
  async load() {
    if (this.sound.link) this.audio.src = this.sound.link;
    if (!this.sound.embedded) return;
    const holder = await soundElement(this.entry.sound);
    if (!holder || this.gone) return;
    const bytes = bytesOf(holder.textContent);
    this.url = URL.createObjectURL(new Blob([bytes], { type: "audio/ogg" }));
    this.audio.src = this.url;
    try {
      this.picture = spectrogram(await decodeSound(bytes));
    } catch {
      return; // a browser without Opus; it has the waveform
    }
    if (!this.gone) this.paint();
  }

  /** Colours of the present theme. */
  theme() {
    this.surfer.setOptions({
      waveColor: css(colour("--wave")),
      progressColor: css(colour("--ink")),
      cursorColor: css(colour("--ink")),
    });
    this.drawRegions();
    if (this.picture) this.paint();
  }

  paint() {
    this.canvas.style.display = "block";
    paintSpectrogram(this.canvas, this.picture, colour("--spectrogram-low"), colour("--spectrogram-high"));
  }

  /** Show the segments of one run. */
  select(run) {
    if (run === this.run) return;
    this.run = run;
    for (const tab of this.element.querySelectorAll(".tabs button")) {
      tab.setAttribute("aria-pressed", String(Number(tab.dataset.run) === run));
    }
    this.drawRegions();
  }

  drawRegions() {
    if (!this.ready) return;
    this.marks.clearRegions();
    const shown = this.entry.runs[this.run];
    this.rgb = colour(`--s${this.run % 6}`);
    this.regions = (shown ? segmentsOf(shown) : []).map((segment) => {
      const label = make("span", {
        textContent: segment.listen ? String(segment.listen) : "",
        title: `${segment.start} to ${segment.end} s`,
      });
      label.style.cssText = `display:inline-block;padding:1px 4px;font:600 11px system-ui;color:${css(this.rgb)}`;
      const region = this.marks.addRegion({
        start: segment.start,
        end: segment.end,
        drag: false,
        resize: false,
        color: css(this.rgb, 0.18),
        content: label,
      });
      region.element.style.borderLeft = region.element.style.borderRight = `1px solid ${css(this.rgb)}`;
      region.element.dataset.segment = segment.key;
      return { ...segment, region };
    });
  }

  /** Make a segment stand out, or none. */
  highlight(segment) {
    for (const known of this.regions) {
      const strong = known.key === segment?.key || known.key === this.playing?.key;
      known.region.setOptions({ color: css(this.rgb, strong ? 0.42 : 0.18) });
      known.region.element.toggleAttribute("data-active", strong);
    }
  }

  /** Play one segment of the selected run, from its start to its end. */
  play(segment) {
    if (!segment) return;
    this.setPlaying(segment);
    if (this.canPlay) this.surfer.play(segment.start, segment.end);
    else this.surfer.setTime(segment.start);
  }

  setPlaying(segment) {
    this.playing = segment;
    this.highlight(null);
    this.onSegment(segment);
  }

  toggle() {
    if (!this.canPlay) return;
    if (this.surfer.isPlaying()) this.surfer.pause();
    else this.surfer.play();
  }

  destroy() {
    this.gone = true;
    this.surfer?.destroy();
    this.audio.removeAttribute("src");
    if (this.url) URL.revokeObjectURL(this.url);
  }

  showTime(now) {
    this.time.textContent = `${clock(now)} of ${clock(this.sound.duration)}`;
  }

  tabs(runs) {
    if (runs.length < 2) return null;
    const buttons = runs.map((name, run) =>
      make(
        "button",
        { type: "button", className: `s${run % 6}`, "data-run": run, "aria-pressed": "false", onclick: () => this.select(run) },
        name
      )
    );
    return make("div", { className: "tabs", role: "group", "aria-label": "Segments of" }, buttons);
  }

  /** What is known to be there, below the waveform on the same scale. */
  lanes() {
    const place = (element, start, end) => {
      element.style.left = `${(100 * start) / this.sound.duration}%`;
      element.style.width = `${(100 * (end - start)) / this.sound.duration}%`;
      return element;
    };
    const length = this.sound.duration;
    const lanes = [...byLabel(this.entry.events || [])].map(([label, events]) => {
      const marks = events.map(([start, end]) => place(make("i", { title: `${label} ${start} to ${end} s` }), start, end));
      const name = make("span", { textContent: label });
      name.style.left = `${(100 * widestGap(events, length)) / length}%`;
      return make("div", { className: "lane" }, marks, name);
    });
    const reference = this.entry.reference || [];
    if (reference.length) {
      const title = "segments of the reference answer";
      const spans = reference.map(([start, end]) => place(make("i", { title: `${title}: ${start} to ${end} s` }), start, end));
      const name = make("span", { textContent: "reference" });
      name.style.left = `${(100 * widestGap(reference, length)) / length}%`;
      lanes.push(make("div", { className: "lane reference" }, spans, name));
    }
    return make("div", { className: "lanes", "aria-hidden": "true" }, lanes);
  }
}

/** Events by label, in order; of more than `LANES` labels the rest share the last row. */
function byLabel(events) {
  const rows = new Map();
  for (const event of events) {
    const label = rows.has(event[2]) || rows.size < LANES - 1 ? event[2] : "others";
    rows.set(label, [...(rows.get(label) || []), event]);
  }
  return rows;
}

/** Where the longest stretch without an event begins. */
function widestGap(events, length) {
  let [at, widest, end] = [0, -1, 0];
  for (const [start, stop] of [...events, [length, length]].sort((a, b) => a[0] - b[0])) {
    if (start - end > widest) [at, widest] = [end, start - end];
    end = Math.max(end, stop);
  }
  return at;
}

/** The tags of an answer that have times, each with a key of its own. */
function segmentsOf(run) {
  return (run.parts || [])
    .map((part, key) => ({ ...part, key: String(key) }))
    .filter((part) => part.start !== undefined);
}

/** The element that holds a sound; sounds stand behind the script and may still be on their way. */
async function soundElement(number) {
  const find = () => document.getElementById(`sound-${number}`);
  if (!find() && document.readyState === "loading") {
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  return find();
}
