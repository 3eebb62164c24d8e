// Sound to picture: decoding, and a spectrogram on a canvas. Rows are spaced by pitch, 60 Hz to 8 kHz.

const RATE = 16000;
const WINDOW = 512;
const ROWS = 96;
const COLUMNS = 700;
const RANGE_DB = 65;

/** The samples of an encoded sound, mono at 16 kHz. */
async function decodeSound(bytes) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const decoded = await context.decodeAudioData(bytes.buffer.slice(0));
  return decoded.getChannelData(0);
}

/** Levels from 0 (background, at most RANGE_DB below the loudest) to 1, one row after the other from high to low pitch. */
function spectrogram(samples) {
  const columns = Math.max(1, Math.min(COLUMNS, Math.ceil(samples.length / (WINDOW / 4))));
  const hop = samples.length / columns;
  const steps = Math.max(1, Math.round(hop / (WINDOW / 2)));
  const shape = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
  const bins = pitchBins();
  const levels = new Float32Array(columns * ROWS).fill(-Infinity);
  const real = new Float32Array(WINDOW);
  const imaginary = new Float32Array(WINDOW);
  for (let column = 0; column < columns; column++) {
    // A column wider than a window keeps the loudest of the windows in it, so that no short event is lost.
    for (let step = 0; step < steps; step++) {
      const start = Math.round((column + step / steps) * hop) - WINDOW / 2;
      for (let i = 0; i < WINDOW; i++) {
        real[i] = (samples[start + i] || 0) * shape[i];
        imaginary[i] = 0;
      }
      transform(real, imaginary);
      for (let row = 0; row < ROWS; row++) {
        let power = 0;
        for (let bin = bins[row][0]; bin <= bins[row][1]; bin++) {
          power = Math.max(power, real[bin] ** 2 + imaginary[bin] ** 2);
        }
        const level = 10 * Math.log10(power + 1e-12);
        const at = (ROWS - 1 - row) * columns + column;
        if (level > levels[at]) levels[at] = level;
      }
    }
  }
  // From background noise, taken as the quieter third of the picture, to the loudest.
  const sorted = levels.slice().sort();
  const top = sorted.at(-1);
  const floor = Math.max(top - RANGE_DB, Math.min(sorted[Math.floor(sorted.length / 3)], top - 20));
  for (let i = 0; i < levels.length; i++) levels[i] = Math.max(0, (levels[i] - floor) / (top - floor));
  return { levels, columns };
}

/** Paint a spectrogram from the colour of silence to that of the loudest, both [r, g, b]. */
function paintSpectrogram(canvas, { levels, columns }, low, high) {
  canvas.width = columns;
  canvas.height = ROWS;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, ROWS);
  for (let i = 0; i < levels.length; i++) {
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = low[k] + (high[k] - low[k]) * levels[i];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** For each row, lowest first, its first and last frequency bin. */
function pitchBins() {
  const edges = Array.from({ length: ROWS + 1 }, (_, i) => 60 * (RATE / 2 / 60) ** (i / ROWS));
  const bin = (frequency) => Math.round((frequency / RATE) * WINDOW);
  return edges.slice(0, -1).map((edge, i) => {
    const first = Math.min(bin(edge), WINDOW / 2);
    return [first, Math.max(first, Math.min(bin(edges[i + 1]) - 1, WINDOW / 2))];
  });
}

/** Fourier transform in place; the length is a power of two. */
function transform(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= n; size <<= 1) {
    const half = size >> 1;
    for (let k = 0; k < half; k++) {
      const angle = (-2 * Math.PI * k) / size;
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      for (let i = k; i < n; i += size) {
        const j = i + half;
        const re = real[j] * c - imaginary[j] * s;
        const im = real[j] * s + imaginary[j] * c;
        [real[j], imaginary[j]] = [real[i] - re, imaginary[i] - im];
        real[i] += re;
        imaginary[i] += im;
      }
    }
  }
}
