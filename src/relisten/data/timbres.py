"""Synthesis of single sound events: one function per label, from random parameters to a dry sound.

Every function takes a `Draw` (the random source that also knows the split) and returns a `SynthSound` that starts
at its onset and has peak 1. Ranges are wide on purpose: a model that hears only these must also know a recorded
kit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from relisten.audio import SAMPLE_RATE
from relisten.data.synth import (
    NYQUIST,
    Array,
    Draw,
    SynthSound,
    biquad,
    clock,
    coloured,
    decay,
    edges,
    filtered,
    finish,
    in_box,
    samples_of,
    unit,
)

# Drums


def kick(draw: Draw) -> SynthSound:
    long_tail = draw.chance(0.15)
    tau = draw.banded_log(0.12, 0.45) if long_tail else draw.banded_log(0.012, 0.13)
    count = samples_of(min(1.6, 6.5 * tau) + 0.03)
    t = clock(count)
    base = draw.banded_log(32, 115)
    swept = base * (1 + draw.log(0.05, 6) * np.exp(t / -draw.log(0.004, 0.06)))
    phase = 2 * np.pi * np.cumsum(np.minimum(swept, 1200)) / SAMPLE_RATE
    hold = draw.uniform(0, 0.05) if draw.chance(0.4) else 0.0
    body = np.sin(phase + draw.uniform(0, 1.5)) * np.exp(np.maximum(t - hold, 0) / -tau)
    for _ in range(draw.integer(0, 3)):
        mode = base * draw.uniform(1.5, 5.5)
        body += draw.log(0.05, 0.8) * np.sin(2 * np.pi * mode * t) * decay(count, tau * draw.uniform(0.2, 0.8))
    if draw.chance(0.4):
        body = np.tanh(body * draw.log(1.2, 8))
    click = draw.noise(count) * decay(count, draw.log(0.001, 0.015))
    click = filtered(click, biquad("band", draw.log(600, 5500), draw.log(0.4, 2)))
    air = draw.noise(count) * decay(count, tau * draw.uniform(0.15, 0.6))
    air = filtered(air, biquad("low", draw.log(150, 1500)))
    mix = unit(body) + draw.log(0.001, 0.9) * unit(click) + draw.log(0.002, 0.3) * unit(air)
    if draw.chance(0.4):
        mix = in_box(draw, mix)
    if draw.chance(0.3):
        corner = draw.log(200, 3000)
        mix = filtered(mix, biquad("low", corner), biquad("low", corner))
    return finish(coloured(draw, mix, 0.8))


def snare(draw: Draw) -> SynthSound:
    noise_tau = draw.banded_log(0.02, 0.2)
    count = samples_of(min(1.2, 6.5 * noise_tau) + 0.05)
    t = clock(count)
    first = draw.banded_log(140, 360)
    tone_tau = draw.log(0.012, 0.13)
    bend = 1 + draw.uniform(0, 0.5) * np.exp(t / -draw.uniform(0.005, 0.03))
    tone = np.zeros(count)
    modes = (
        (1.0, 1.0),
        (draw.uniform(1.4, 1.9), draw.log(0.1, 1)),
        (draw.uniform(2.1, 3.2), draw.log(0.03, 0.6)),
    )
    for ratio, level in modes:
        phase = 2 * np.pi * np.cumsum(first * ratio * bend) / SAMPLE_RATE
        tone += level * np.sin(phase + draw.uniform(0, 3)) * decay(count, tone_tau / ratio**0.5)
    noise = draw.noise(count)
    if draw.chance(0.4):
        # Wires rattle: the noise comes in grains rather than as a smooth hiss.
        noise *= (draw.rng.random(count) < draw.log(0.05, 0.6)) * 2.0
    corner = draw.log(1000, 7800)
    noise = filtered(
        noise,
        biquad("high", draw.log(150, 2000), draw.uniform(0.5, 1)),
        biquad("low", corner, draw.uniform(0.5, 1)),
        biquad("peak", draw.log(500, 6000), draw.log(0.6, 3), draw.uniform(-6, 9)),
    )
    attack = draw.uniform(0.004, 0.02) if draw.chance(0.15) else 0.0005
    shape = (1 - np.exp(t / -attack)) * decay(count, noise_tau)
    shape += draw.uniform(0, 1.5) * decay(count, noise_tau * draw.uniform(0.1, 0.4))
    # Recorded snares owe most of their energy to the shell, few are all wires.
    share = draw.log(0.8, 12) if draw.chance(0.75) else draw.log(0.25, 0.8)
    mix = share * unit(tone) + unit(noise * shape)
    if draw.chance(0.3):
        rim = np.zeros(count)
        for _ in range(3):
            rim += np.sin(2 * np.pi * draw.log(400, 2200) * t) * decay(count, draw.log(0.004, 0.03))
        mix = unit(mix) + draw.log(0.1, 0.8) * unit(rim)
    mix = _grounded(draw, unit(mix))
    if draw.chance(0.5):
        mix = in_box(draw, mix)
    return finish(coloured(draw, mix))


def hi_hat(draw: Draw) -> SynthSound:
    low, high = draw.choice(((0.008, 0.05), (0.008, 0.05), (0.04, 0.14), (0.1, 0.35), (0.3, 0.8)))
    tau = draw.banded_log(low, high)
    count = samples_of(min(2.2, 5 * tau) + 0.03)
    t = clock(count)
    kind = draw.choice(("squares", "plates", "plates", "hiss"))
    corner = draw.log(1800, 6500) if draw.chance(0.5) else draw.log(250, 1800)
    if kind == "squares":
        ratios = 1 + np.sort(draw.rng.random(6)) * draw.uniform(1.5, 9)
        wave = np.sign(np.sin(2 * np.pi * draw.banded_log(180, 620) * ratios[:, None] * t)).sum(0)
        if draw.chance(0.4):
            wave *= np.sin(2 * np.pi * draw.log(1500, 7000) * t + draw.uniform(0.5, 4) * wave)
        wave += draw.log(0.03, 3) * draw.noise(count)
    else:
        wave = _plates(draw, count) if kind == "plates" else draw.noise(count)
    sections = [biquad("high", corner, draw.uniform(0.5, 1.2))]
    if draw.chance(0.5):
        sections.append(biquad("high", corner * draw.uniform(0.5, 1), draw.uniform(0.5, 1.2)))
    if draw.chance(0.25):
        sections.append(biquad("low", draw.log(4000, 7800)))
    if draw.chance(0.4):
        # Cymbals are weak where claps are strong.
        sections.append(biquad("peak", draw.log(900, 1900), draw.uniform(0.4, 1), draw.uniform(-14, -3)))
    wave = filtered(wave, *sections)
    shape = decay(count, tau) + draw.uniform(0, 1.5) * decay(count, tau * draw.uniform(0.08, 0.3))
    if draw.chance(0.3):
        # A pedal closes or a loose hat swishes: the sound swells first.
        shape *= 1 - np.exp(t / -draw.log(0.001, min(0.04, tau)))
    mix = unit(wave * shape)
    for _ in range(draw.integer(0, 3)):
        ring = np.sin(2 * np.pi * draw.log(260, 850) * t + draw.uniform(0, 6))
        mix += draw.log(0.02, 0.7) * ring * decay(count, tau * draw.uniform(0.15, 1))
    if draw.chance(0.4):
        wood = draw.noise(count) * decay(count, draw.log(0.004, 0.06))
        mix += draw.log(0.05, 0.8) * unit(filtered(wood, biquad("band", draw.log(250, 800), draw.log(0.8, 4))))
    mix = _grounded(draw, mix)
    if draw.chance(0.35):
        mix = in_box(draw, mix)
    return finish(coloured(draw, mix, 0.7))


def _plates(draw: Draw, count: int) -> Array:
    """Noise whose spectrum is a thicket of random resonances, as of two cymbals: (count,)."""
    spectrum = np.fft.rfft(draw.noise(count))
    frequency = np.arange(len(spectrum)) * (SAMPLE_RATE / count)
    width = draw.log(8, 150)
    peaks = np.full(len(spectrum), draw.log(0.02, 0.6))
    for centre in 300 * 26 ** draw.rng.random(draw.integer(6, 18)):
        peaks += draw.log(0.2, 1) / (1 + ((frequency - centre) / width) ** 2)
    spectrum *= peaks * (np.maximum(frequency, 100) / 1000) ** draw.uniform(0, 1.2)
    return np.fft.irfft(spectrum, count)


def _grounded(draw: Draw, samples: Array) -> Array:
    """The hit (peak 1) with the thump of its stand and the rumble of its recording below 200 Hz."""
    if draw.chance(0.5):
        return samples
    count = len(samples)
    rumble = draw.noise(count) * decay(count, draw.log(0.01, 0.3))
    rumble = filtered(rumble, biquad("low", draw.log(30, 180)), biquad("low", draw.log(60, 300)))
    return samples + draw.log(0.005, 0.4) * unit(rumble)


def clap(draw: Draw) -> SynthSound:
    single = draw.chance(0.25)
    tail_tau = draw.banded_log(0.003, 0.03) if single else draw.banded_log(0.01, 0.12)
    count = samples_of(min(1.0, 6 * tail_tau) + 0.12)
    t = clock(count)
    shape = np.zeros(count)
    bursts = 1 if single else draw.integer(2, 5)
    at, spacing = 0.0, draw.uniform(0.006, 0.02)
    for number in range(bursts):
        late = np.maximum(t - at, 0)
        tau = tail_tau if number == bursts - 1 else draw.uniform(0.002, 0.008)
        shape += (t >= at) * np.exp(late / -tau) * (1.0 if number == bursts - 1 else draw.uniform(0.5, 1.1))
        at += spacing * draw.uniform(0.6, 1.4)
    centre = draw.banded_log(750, 2600)
    narrow = filtered(
        draw.noise(count), biquad("band", centre, draw.log(0.7, 5)), biquad("high", draw.log(250, 800))
    )
    wide = filtered(draw.noise(count), biquad("high", draw.log(300, 2000)), biquad("low", draw.log(3000, 7800)))
    mix = (unit(narrow) + draw.log(0.02, 0.9) * unit(wide)) * shape
    mix = _grounded(draw, unit(mix))
    if draw.chance(0.6):
        mix = in_box(draw, mix)
    return finish(coloured(draw, mix, 0.7))


# Tones


def _beep(draw: Draw, low: float, high: float) -> SynthSound:
    pitch = draw.banded_log(low, high)
    count = samples_of(draw.banded_log(0.12, 1.6))
    t = clock(count)
    phase = 2 * np.pi * pitch * t + draw.uniform(0, 6)
    shape = draw.choice(("sine", "square", "triangle"))
    if shape == "sine":
        wave = np.sin(phase)
    else:
        # Sums of odd harmonics, so that nothing folds back from above the Nyquist frequency.
        power = 1 if shape == "square" else 2
        odd = np.arange(1, min(30, max(2, int(NYQUIST / pitch))), 2)
        signs = np.ones(len(odd)) if shape == "square" else (-1.0) ** np.arange(len(odd))
        wave = (signs / odd**power) @ np.sin(odd[:, None] * phase)
    if draw.chance(0.2):
        wave *= 1 + draw.uniform(0.1, 0.3) * np.sin(2 * np.pi * draw.uniform(4, 9) * t)
    envelope = edges(count, draw.uniform(0.002, 0.012), draw.uniform(0.005, 0.03))
    return finish(wave * envelope, pitch, sustained=True)


def low_beep(draw: Draw) -> SynthSound:
    return _beep(draw, 200, 600)


def high_beep(draw: Draw) -> SynthSound:
    return _beep(draw, 1000, 4000)


def chirp(draw: Draw) -> SynthSound:
    count = samples_of(draw.banded_log(0.15, 1.4))
    span = draw.log(2.2, 9)
    low = draw.banded_log(250, min(1800, 6500 / span))
    position = clock(count) / (count / SAMPLE_RATE)
    if draw.chance(0.5):
        position = 1 - position
    frequency = low * span**position if draw.chance(0.6) else low * (1 + (span - 1) * position)
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    wave = np.sin(phase)
    if draw.chance(0.4):
        wave += draw.uniform(0.1, 0.5) * np.sin(2 * phase)
    return finish(wave * edges(count, draw.uniform(0.003, 0.015), draw.uniform(0.005, 0.04)), sustained=True)


def bell(draw: Draw) -> SynthSound:
    pitch = draw.banded_log(350, 1800)
    tau = draw.banded_log(0.12, 0.7)
    count = samples_of(min(2.2, 5 * tau))
    t = clock(count)
    ratios = draw.choice(
        (
            (1, 2.0, 2.4, 3.0, 4.5, 5.33),
            (1, 2.76, 5.4, 8.93),
            (1, 1.51, 2.74, 4.1, 5.9),
            (1, 2.32, 4.25, 6.63),
        )
    )
    mix = np.zeros(count)
    for number, ratio in enumerate(ratios):
        frequency = pitch * ratio * (1 + 0.004 * draw.uniform(-1, 1))
        if frequency < 0.95 * NYQUIST:
            level = 1.0 if number == 0 else draw.uniform(0.25, 0.9)
            mix += level * np.sin(2 * np.pi * frequency * t) * decay(count, tau / ratio ** draw.uniform(0.3, 0.8))
    strike = filtered(draw.noise(count) * decay(count, 0.003), biquad("high", 2000))
    mix = unit(mix) * edges(count, 0.001, 0.02) + draw.log(0.02, 0.3) * unit(strike)
    return finish(mix, pitch)


# Noise, voice, music


def noise_burst(draw: Draw) -> SynthSound:
    count = samples_of(draw.banded_log(0.18, 1.5))
    noise = draw.noise(count)
    low = draw.banded_log(60, 2500)
    high = min(draw.log(3, 40) * low, 7800.0)
    if draw.chance(0.75):
        noise = filtered(noise, biquad("high", low), biquad("low", max(high, 900.0)))
    envelope = edges(count, draw.uniform(0.002, 0.015), draw.uniform(0.005, 0.05))
    return finish(noise * envelope * (1 + draw.uniform(0, 0.2) * np.sin(20 * clock(count))), sustained=True)


_VOWELS: Final = (
    (300, 2250, 2950), (400, 2000, 2550), (550, 1800, 2500), (700, 1650, 2450), (720, 1100, 2450),
    (570, 850, 2400), (450, 1050, 2250), (320, 880, 2250), (490, 1350, 1700), (630, 1200, 2400),
)  # fmt: skip


def voice(draw: Draw) -> SynthSound:
    syllables = draw.integer(1, 5)
    seconds = draw.banded_log(0.3, 1.5)
    count = samples_of(seconds)
    t = clock(count)
    base = draw.banded_log(85, 290)
    contour = base * 2 ** (
        draw.uniform(-0.4, 0.3) * t / seconds + 0.06 * np.sin(2 * np.pi * draw.uniform(2, 6) * t)
    )
    phase = np.cumsum(contour) / SAMPLE_RATE
    # A falling saw per glottal cycle, smoothed, with breath noise on top.
    source = 1 - 2 * (phase % 1.0) ** draw.uniform(0.4, 1.2)
    source = filtered(source + draw.log(0.01, 0.12) * draw.noise(count), biquad("low", draw.log(900, 3500), 0.6))
    size = draw.uniform(0.9, 1.2)
    centres = (np.arange(syllables + 1) / syllables) * seconds
    width = seconds / syllables
    mixed = np.zeros(count)
    for centre in centres:
        weight = np.clip(1 - np.abs(t - centre) / width, 0, 1)
        begin, end = int(np.argmax(weight > 0)), count - int(np.argmax(weight[::-1] > 0))
        formants = (*draw.choice(_VOWELS), draw.uniform(3300, 3900))
        sections = [biquad("peak", f * size, draw.uniform(4, 9), draw.uniform(14, 22)) for f in formants]
        mixed[begin:end] += weight[begin:end] * filtered(source[begin:end], *sections)
    rhythm = 1 - draw.uniform(0.4, 0.95) * np.cos(np.pi * syllables * t / seconds) ** draw.choice((4, 8, 16))
    rhythm[: samples_of(0.25 * width)] = 1.0
    mixed = unit(mixed) * rhythm
    if draw.chance(0.6):
        hiss = filtered(draw.noise(count), biquad("high", draw.log(2000, 5000)))
        place = draw.integer(0, syllables - 1) * width
        mixed += draw.log(0.05, 0.5) * unit(hiss) * np.exp(-(((t - place) / 0.04) ** 2))
    return finish(mixed * edges(count, draw.uniform(0.005, 0.02), 0.04), sustained=True)


def chord(draw: Draw) -> SynthSound:
    root = draw.banded_log(105, 420)
    seconds = draw.banded_log(0.35, 1.8)
    count = samples_of(seconds)
    t = clock(count)
    notes = [0, draw.choice((3, 4)), 7] + ([draw.choice((10, 11, 12))] if draw.chance(0.5) else [])
    style = draw.choice(("plucked", "pad", "organ"))
    harmonics = np.arange(1, 9)
    levels = 1.0 / harmonics ** draw.uniform(0.7, 2)
    if style == "organ":
        levels = np.array([1, 0.8, 0.3, 0.6, 0.05, 0.3, 0.02, 0.3]) * (0.3 + 0.7 * draw.rng.random(8))
    mix = np.zeros(count)
    for note in notes:
        frequency = root * 2 ** (note / 12) * (1 + 0.003 * draw.uniform(-1, 1))
        used = harmonics[harmonics * frequency < 0.95 * NYQUIST]
        used = used[levels[used - 1] > 0.03]
        phase = 2 * np.pi * frequency * t + draw.uniform(0, 6)
        mix += draw.uniform(0.6, 1) * (levels[used - 1] @ np.sin(used[:, None] * phase))
    if style == "plucked":
        mix *= decay(count, seconds * draw.uniform(0.2, 0.35)) * edges(count, 0.002, 0.05)
        return finish(coloured(draw, mix, 0.5), root)
    envelope = edges(count, draw.uniform(0.005, 0.02 if style == "organ" else 0.04), draw.uniform(0.02, 0.08))
    return finish(coloured(draw, mix, 0.5) * envelope, root, sustained=True)


LABELS: Final = (
    "kick", "snare", "hi-hat", "clap", "low beep", "high beep", "chirp", "bell", "noise burst", "voice", "chord",
)  # fmt: skip
DRUMS: Final = LABELS[:4]
SYNTHESIS: Final[dict[str, Callable[[Draw], SynthSound]]] = {
    "kick": kick, "snare": snare, "hi-hat": hi_hat, "clap": clap, "low beep": low_beep, "high beep": high_beep,
    "chirp": chirp, "bell": bell, "noise burst": noise_burst, "voice": voice, "chord": chord,
}  # fmt: skip
