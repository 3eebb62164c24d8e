"""Whisper's log-mel spectrogram for clips of their own length, many at once.

The stock extractor pads every clip with zeros to 30 s or 300 s, transforms all of it and masks the
padding afterwards. Here only the frames that exist are computed, and they are equal to the stock ones:

* A clip of n samples has ceil(n / hop) frames; frame k is centred on sample k * hop.
* Before the clip the signal is mirrored. After the clip come the zeros of the padding, so the last frames
  see zeros, not a mirror; only where the padding is shorter than half a window is its end mirrored again.
* Values are floored 8 below the clip's own maximum (log10 units). Frames centred just after the clip's end
  still overlap it and count for that maximum, although they are not returned.

A clip longer than the stock length is not cut off: it is treated as if the padding were longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from relisten.audio import SAMPLE_RATE, Clip
from relisten.errors import InputError

FRAME_BLOCK = 16_384  # frames transformed at once: bounds memory for hour-long clips
DYNAMIC_RANGE = 8.0
MEL_FLOOR = 1e-10


class LogMel:
    """Log-mel features of clips, equal to `WhisperFeatureExtractor` on the frames that exist.

    Args:
        n_mels: mel bands (128 for Qwen2.5-Omni).
        n_fft: window length in samples.
        hop_length: samples between frames (160 = 10 ms).
        max_samples: length to which the stock extractor pads, in samples; matters only for clips that end
            within half a window of it.
        device: where features are computed and returned.
    """

    def __init__(
        self,
        n_mels: int = 128,
        n_fft: int = 400,
        hop_length: int = 160,
        max_samples: int = 300 * SAMPLE_RATE,
        device: torch.device | str = "cpu",
    ) -> None:
        if min(n_mels, n_fft, hop_length, max_samples) < 1 or n_fft % 2 or max_samples % hop_length:
            raise InputError(
                f"log-mel settings n_mels={n_mels}, n_fft={n_fft}, hop_length={hop_length}, "
                f"max_samples={max_samples}: all must be positive, n_fft even and max_samples a multiple of "
                "hop_length; correct the checkpoint's preprocessor_config.json"
            )
        self.n_mels = n_mels
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.max_samples = max_samples
        self.device = torch.device(device)
        filters = mel_filter_bank(
            num_frequency_bins=1 + n_fft // 2,
            num_mel_filters=n_mels,
            min_frequency=0.0,
            max_frequency=8000.0,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self._filters = torch.from_numpy(filters).to(self.device, torch.float32)
        self._window = torch.hann_window(n_fft, device=self.device)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], device: torch.device | str = "cpu") -> LogMel:
        """From the content of a checkpoint's `preprocessor_config.json`.

        Raises InputError for settings that this front end does not reproduce.
        """
        rules = {"sampling_rate": SAMPLE_RATE, "padding_side": "right", "padding_value": 0.0, "dither": 0.0}
        for key, value in rules.items():
            if config.get(key, value) != value:
                raise InputError(
                    f"preprocessor_config.json has {key}={config[key]!r}, but the log-mel front end needs "
                    f"{value!r}; use a checkpoint with that setting"
                )
        sizes = {"feature_size": 80, "n_fft": 400, "hop_length": 160, "chunk_length": 30}
        for key, default in sizes.items():
            sizes[key] = config.get(key, default)
            if type(sizes[key]) is not int:
                raise InputError(
                    f"preprocessor_config.json has {key}={sizes[key]!r}, which must be a whole number; "
                    "copy it from the original checkpoint"
                )
        return cls(
            n_mels=sizes["feature_size"],
            n_fft=sizes["n_fft"],
            hop_length=sizes["hop_length"],
            max_samples=sizes["chunk_length"] * SAMPLE_RATE,
            device=device,
        )

    def to(self, device: torch.device | str) -> LogMel:
        """The same front end on another device."""
        return LogMel(self.n_mels, self.n_fft, self.hop_length, self.max_samples, device)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples: ceil(num_samples / hop_length)."""
        return -(-num_samples // self.hop_length)

    def __call__(self, clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
        """Features of all clips one after the other.

        Returns:
            features: (n_mels, sum of frames) float32; always outside autograd and autocast.
            lengths: (len(clips),) int64, the frames of each clip.
        """
        signal, firsts, computed = self._lay_out(clips)
        kept = [self.num_frames(clip.num_samples) for clip in clips]
        lengths = torch.tensor(kept, dtype=torch.int64, device=self.device)
        if not sum(kept):
            return torch.zeros(self.n_mels, 0, device=self.device), lengths
        rows = np.concatenate([np.arange(f, f + c) for f, c in zip(firsts, computed, strict=True)])
        owner = torch.from_numpy(np.repeat(np.arange(len(clips)), computed)).to(self.device)
        exists = np.concatenate([np.arange(c) < k for c, k in zip(computed, kept, strict=True)])
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            log_mel = self._transform(signal, torch.from_numpy(rows).to(self.device))
            peaks = log_mel.new_full((len(clips),), math.log10(MEL_FLOOR))
            peaks = peaks.scatter_reduce(0, owner, log_mel.amax(dim=1), "amax")
            floored = torch.maximum(log_mel, (peaks - DYNAMIC_RANGE)[owner, None])
            if not exists.all():
                floored = floored[torch.from_numpy(exists).to(self.device)]
            return ((floored + 4.0) / 4.0).T.contiguous(), lengths

    def _lay_out(self, clips: Sequence[Clip]) -> tuple[Tensor, list[int], list[int]]:
        """One signal with every clip, padded, at a multiple of the hop.

        Returns the signal, the first frame of each clip in it, and how many frames to compute for each:
        those that exist and those that only overlap its end.
        """
        half = self.n_fft // 2
        firsts, computed, total = [], [], 0
        for clip in clips:
            frames = -(-(clip.num_samples + half) // self.hop_length)
            if clip.num_samples <= self.max_samples:
                frames = min(frames, self.max_samples // self.hop_length)
            firsts.append(total)
            computed.append(frames)
            total += frames + -(-self.n_fft // self.hop_length)
        signal = np.zeros(total * self.hop_length + self.n_fft, dtype=np.float32)
        for clip, first in zip(clips, firsts, strict=True):
            start = first * self.hop_length + half
            n = clip.num_samples
            signal[start : start + n] = clip.samples
            mirrored = clip.samples[1 : half + 1]
            signal[start - len(mirrored) : start] = mirrored[::-1]
            end = self.max_samples
            if 0 <= end - n <= half:
                # Position end + i of the stock signal mirrors end - 2 - i.
                tail = signal[start + max(end - 1 - half, 0) : start + end - 1][::-1].copy()
                signal[start + end : start + end + len(tail)] = tail
        return torch.from_numpy(signal).to(self.device), firsts, computed

    def _transform(self, signal: Tensor, rows: Tensor) -> Tensor:
        """(frames, n_mels) log10 mel energies of the frames `rows` of `signal`."""
        frames = signal.unfold(0, self.n_fft, self.hop_length)
        blocks = []
        for first in range(0, len(rows), FRAME_BLOCK):
            spectrum = torch.fft.rfft(frames[rows[first : first + FRAME_BLOCK]] * self._window)
            power = spectrum.real.square() + spectrum.imag.square()
            blocks.append((power @ self._filters).clamp_(min=MEL_FLOOR).log10_())
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)
