"""What is encoded in one batch where that pays, as on a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import torch
from support.sounds import noise_clip

from relisten.audio import Clip
from relisten.engines.encoding import Encoder
from relisten.models import Family


def test_a_clip_that_fails_fails_alone() -> None:
    batches: list[int] = []

    def encode(clips: list[Clip], cache: object) -> list[torch.Tensor]:
        batches.append(len(clips))
        if any(clip.duration > 3 for clip in clips):
            raise MemoryError("out of memory")
        return [torch.zeros(2, 4) for _ in clips]

    family = SimpleNamespace(device=torch.device("cuda"), encode_audio=encode)
    encoder = Encoder(cast(Family, family), lambda: None, threads=1, cache=None)
    sounds = [encoder.ask(noise_clip(seconds, 0)) for seconds in (1.0, 4.0, 2.0)]
    assert encoder.work()
    assert batches == [3, 1, 1, 1]
    assert [sound.embeddings is not None for sound in sounds] == [True, False, True]
    assert [str(sound.error) for sound in sounds] == ["None", "out of memory", "None"]
    assert not encoder.work()
