"""What tests mix into vLLM's workers."""

from __future__ import annotations

from typing import Any

from relisten.engines.vllm.weights import WeightLoader


class Watch(WeightLoader):
    """Counts what the model is given; see `support.vllm.watched`."""

    def relisten_watch(self) -> None:
        model = self._relisten_model()
        encode = model.embed_multimodal
        self._tokens: list[int] = []
        self._sounds: list[int] = []

        def hear(**inputs: Any) -> Any:
            encoded = encode(**inputs)
            self._sounds += map(len, encoded)
            return encoded

        def count(module: object, given: object, named: dict[str, Any]) -> None:
            self._tokens.append(len(named["positions"]))

        model.embed_multimodal = hear
        self._counting = model.register_forward_pre_hook(count, with_kwargs=True)

    def relisten_watched(self) -> tuple[list[int], list[int]]:
        del self._relisten_model().embed_multimodal
        self._counting.remove()
        return self._tokens, self._sounds
