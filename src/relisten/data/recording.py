"""How a scene is recorded: its room, the band and the level of the recording, the noise in the background."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE
from relisten.data.synth import Draw, biquad, filtered

if TYPE_CHECKING:
    from relisten.data.scenes import Event, SceneSpec

_AUDIBLE_DB: Final = 7.0
"""The softest event's level over background noise, at least."""


def record(
    draw: Draw, spec: SceneSpec, dry: NDArray[np.float32], events: tuple[Event, ...]
) -> tuple[NDArray[np.float32], float]:
    """Room, band limit, background noise and level: (n,) float32, and the overall gain in dB that was applied."""
    samples = dry if draw.chance(spec.dry_share) else _in_room(draw, spec, dry)
    if draw.chance(spec.codec_share):
        corner = draw.log(3500, 7500)
        sections = (biquad("low", corner, 0.54), biquad("low", corner, 1.31))
        samples = filtered(samples.astype(np.float64), *sections).astype(np.float32)
    if not draw.chance(spec.silent_share):
        levels = [event.level for event in events]
        floor = min(float(np.median(levels)) - draw.uniform(*spec.snr), min(levels) - _AUDIBLE_DB)
        noise = _background(draw, len(dry))
        samples = samples + noise * np.float32(10 ** (floor / 20))
    peak = float(np.abs(samples).max()) + 1e-9
    gain = draw.uniform(*spec.peak) - 20 * math.log10(peak)
    return samples * np.float32(10 ** (gain / 20)), gain


def _in_room(draw: Draw, spec: SceneSpec, dry: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import signal  # slow to import, and needless for --help

    seconds = draw.banded_log(*spec.reverb)
    count = int(SAMPLE_RATE * min(seconds, 1.0))
    response = draw.rng.standard_normal(count, dtype=np.float32)
    response *= np.exp(np.arange(count, dtype=np.float32) * np.float32(-6.9 / (seconds * SAMPLE_RATE)))
    response = filtered(response.astype(np.float64), biquad("low", draw.log(1200, 7500), 0.5)).astype(np.float32)
    response[: int(SAMPLE_RATE * draw.uniform(0.001, 0.02))] = 0
    response *= np.float32(draw.log(0.06, 0.6)) / (np.linalg.norm(response) + 1e-9)
    for _ in range(draw.integer(1, 6)):
        at = int(SAMPLE_RATE * draw.uniform(0.003, 0.04))
        response[min(at, count - 1)] += draw.uniform(-0.25, 0.25)
    response[0] = 1.0
    wet: NDArray[np.float32] = signal.oaconvolve(dry, response)[: len(dry)]
    return wet.astype(np.float32)


def _background(draw: Draw, count: int) -> NDArray[np.float32]:
    """Noise (count,) of RMS 1: spectrum falling or rising by a random exponent, at times with hum or swell."""
    from scipy import fft

    size = fft.next_fast_len(count, real=True)
    spectrum = fft.rfft(draw.rng.standard_normal(size, dtype=np.float32))
    frequency = np.arange(len(spectrum), dtype=np.float32) * np.float32(SAMPLE_RATE / size)
    slope = draw.banded(-0.5, 1.1)
    spectrum *= np.maximum(frequency, 30.0) ** np.float32(-slope)
    noise = fft.irfft(spectrum, size)[:count]
    noise /= np.sqrt(np.mean(noise**2)) + 1e-9
    t = np.arange(count, dtype=np.float32) / np.float32(SAMPLE_RATE)
    if draw.chance(0.2):
        hum = draw.choice((50.0, 60.0))
        for harmonic in (1, 2, 3, 5):
            noise += draw.log(0.05, 0.8) / harmonic * np.sin(np.float32(2 * np.pi * hum * harmonic) * t)
    if draw.chance(0.3):
        noise *= 1 + draw.uniform(0.1, 0.6) * np.sin(2 * np.pi * draw.log(0.1, 3) * t + draw.uniform(0, 6))
    noise /= np.sqrt(np.mean(noise**2)) + 1e-9
    result: NDArray[np.float32] = noise.astype(np.float32)
    return result
