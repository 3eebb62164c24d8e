"""Answers from vLLM's `AsyncLLM`, in this process: many at once, batched and cached by vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from transformers.utils import logging
from vllm import AsyncEngineArgs, ModelRegistry
from vllm.platforms import current_platform
from vllm.plugins import load_general_plugins
from vllm.v1.engine.async_llm import AsyncLLM

from relisten.audio import Clip
from relisten.engines.base import Feed
from relisten.engines.loop import BackgroundLoop
from relisten.engines.options import checked_context
from relisten.engines.prompting import checked_prompt
from relisten.engines.vllm.banning import SETTING, Ban, BanV2
from relisten.engines.vllm.model import ListeningQwen2_5Omni, listening
from relisten.engines.vllm.plugin import ARCHITECTURE, OURS
from relisten.engines.vllm.stream import CacheRoom, VllmStream
from relisten.engines.vllm.weights import written
from relisten.errors import EngineError, InputError
from relisten.models import default_dtype
from relisten.models.checkpoint import model_folder
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import GeneratedSpan, Sampling

MAX_ROWS = 256
MAX_SOUNDS = 256
"""Sounds that one answer may hear; vLLM wants a limit."""
_PAUSES_AT = "</seg>"  # where `feed` usually pauses; stopping there saves work, but `feed` decides
_CPU_BLOCK = 32  # tokens; the kernel's smallest, where vLLM's default of 128 would cache crops badly

_FEATURES_GB = 1  # of mel features, held in this process and in each of vLLM's cores: hours of sound


class VllmEngine:
    """Decodes with vLLM.

    Args:
        model: "echo-tiny", a checkpoint folder (whole or thinker-only), or a hub id.
        name: what traces call the model; None takes `model`.
        max_rows: answers decoded at once; more wait their turn.
        max_context: tokens an answer may have; None takes what the checkpoint allows.
        device: "auto", or what the installed vLLM runs on: "cpu" or "cuda".
        dtype: "auto" is bfloat16 on a GPU, and for large models on CPUs that multiply it; else float32.
        settings: anything else that vLLM's `AsyncEngineArgs` take, such as `gpu_memory_utilization` or
            `tensor_parallel_size`; they override what is chosen here. `additional_config` is merged with ours.

    Raises:
        InputError: no such checkpoint or setting, or a device that this vLLM does not run on.
        EngineError: vLLM did not start.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        name: str | None = None,
        max_rows: int = MAX_ROWS,
        max_context: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        **settings: Any,
    ) -> None:
        if max_rows < 1:
            raise InputError(f"max rows {max_rows}: it must be at least 1")
        if "max_model_len" in settings:
            raise InputError(f"max_model_len {settings['max_model_len']}: give it as max_context")
        added = settings.pop("additional_config", {})
        if not isinstance(added, Mapping):
            raise InputError(f'additional_config {added}: it must be an object, such as {{"name": 1}}')
        _check_device(device)
        folder = model_folder(model)
        self.family = family = Qwen2_5Omni.outline(folder)
        self.model = name or str(model)
        self.context = checked_context(max_context, family.context_size)
        self.stops = sorted(family.eos_ids | family.completing(_PAUSES_AT))
        self._streams: weakref.WeakSet[VllmStream] = weakref.WeakSet()
        self.closed = False
        self._loop = BackgroundLoop("engine")
        arguments = self._arguments(folder, max_rows, dtype) | settings
        arguments["additional_config"] = {**added, SETTING: list(family.banned_ids)}
        try:
            self.llm: Any = self._loop.run(_start(arguments))
        except BaseException as error:
            self._loop.close()
            if isinstance(error, TypeError):
                raise InputError(
                    f"vLLM does not take these settings ({error}); see vLLM's AsyncEngineArgs"
                ) from None
            if isinstance(error, Exception):
                raise EngineError(
                    f"vLLM did not start ({type(error).__name__}: {error}); what it wrote above says why"
                ) from error
            raise
        self.max_rows: int = self.llm.vllm_config.scheduler_config.max_num_seqs
        cache = self.llm.vllm_config.cache_config
        self.room = CacheRoom(cache.num_gpu_blocks, cache.block_size)

    def _arguments(self, folder: Path, max_rows: int, dtype: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": str(folder),
            "hf_overrides": listening,
            "dtype": default_dtype(_platform(), folder) if dtype == "auto" else dtype,
            "max_num_seqs": max_rows,
            "max_model_len": self.context,
            "limit_mm_per_prompt": {"audio": MAX_SOUNDS},
            "enable_prefix_caching": True,
            "mm_processor_cache_gb": _FEATURES_GB,
            "generation_config": "vllm",  # not the checkpoint's own sampling defaults
            "worker_extension_cls": "relisten.engines.vllm.weights.WeightLoader",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if current_platform.is_cpu():
            arguments |= {"enforce_eager": True, "block_size": _CPU_BLOCK, "skip_mm_profiling": True}
        return arguments

    def open(self, question: Question, clip: Clip, format: Format, sampling: Sampling) -> VllmStream:
        """See `Engine.open`."""
        prompt, span = checked_prompt(self.family, self.model, question, clip, format, self.context)
        stream = VllmStream(self, self.family, prompt, span, clip, sampling)
        self._streams.add(stream)
        return stream

    async def decode(self, stream: VllmStream, feed: Feed) -> GeneratedSpan:
        if self.closed or stream.closed:
            raise EngineError("the engine was closed" if self.closed else "the answer was closed")
        return await asyncio.wrap_future(self._loop.start(stream.run(feed)))

    def close_stream(self, stream: VllmStream) -> Future[None] | None:
        if stream.closed:
            return None
        stream.closed = True
        self._streams.discard(stream)
        return None if self.closed else self._loop.start(stream.end())

    @property
    def open_rows(self) -> int:
        """Answers that are open, and requests that vLLM has."""
        requests: int = 0 if self.closed else self.llm.get_num_unfinished_requests()
        return max(len(self._streams), requests)

    def update_weights(self, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> int:
        """Put new weights in place of those with the same names, and forget all that was computed with the old
        ones: prefixes, heard sounds and features.

        Args:
            tensors: on any device, by the names of checkpoints or of transformers' modules (`family.thinker`'s
                `state_dict` will do); any of them, but of q, k and v, and of gate and up, all or none.

        Returns:
            How many of vLLM's parameters were set.

        Raises:
            EngineError: answers are open, or a name or a shape is not the model's. After a failed update the
                weights are those of neither.
        """
        if self._streams:
            raise EngineError(f"{len(self._streams)} answers are open; weights change only between answers")
        return self._loop.run(self._update(tensors))

    async def _update(self, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> int:
        loaded: set[str] = set()
        failure: Exception | None = None
        await self.llm.pause_generation(mode="abort", clear_cache=True)
        try:
            await self.llm.collective_rpc("relisten_begin_weights")
            try:
                for path in written(tensors):
                    for names in await self.llm.collective_rpc("relisten_load_weights", args=(str(path),)):
                        loaded |= set(names)
            except Exception as error:
                failure = error
            incomplete, *_ = await self.llm.collective_rpc("relisten_end_weights")
        finally:
            await self.llm.resume_generation()
        if failure is not None:
            raise EngineError(f"the new weights were not taken ({type(failure).__name__}: {failure})") from failure
        if incomplete:
            raise EngineError(
                f"{len(incomplete)} layers were given in part, such as {incomplete[0]}; give all of q, k and v, "
                "and both gate and up"
            )
        return len(loaded)

    def close(self) -> None:
        if self.closed:
            return
        ending = [future for stream in tuple(self._streams) if (future := self.close_stream(stream)) is not None]
        self.closed = True
        down = self._loop.start(self._shut_down(ending))
        if self._loop.inside:  # called from `feed`, in the very loop that has to shut down: do not wait
            down.add_done_callback(lambda _: self._loop.close())
        else:
            down.result()
            self._loop.close()

    async def _shut_down(self, ending: Iterable[Future[None]]) -> None:
        await asyncio.gather(*map(asyncio.wrap_future, ending))
        self.llm.shutdown()
        self.llm = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _start(arguments: dict[str, Any]) -> AsyncLLM:
    """Start vLLM in the calling event loop, which then owns it."""
    load_general_plugins()
    # The class itself: given a name, vLLM would start a process to look at it.
    ModelRegistry.register_model(ARCHITECTURE, ListeningQwen2_5Omni)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers warns of parts of the configuration that we do not load
    try:
        config = AsyncEngineArgs(**arguments).create_engine_config()
    finally:
        logging.set_verbosity(verbosity)
    config.model_config.logits_processors = [BanV2 if config.use_v2_model_runner else Ban]
    workers = {
        OURS: "1",
        "TRANSFORMERS_VERBOSITY": "error",
        # Warnings that only vLLM's authors can mend: a deprecated name of torch, shared memory left by workers.
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::UserWarning:multiprocessing.resource_tracker",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        # cuDNN's attention, which PyTorch prefers on some GPUs, plans anew for every length of a chunk of sound.
        "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",
    }
    if config.model_config.enforce_eager:
        # On a CPU a C++ compiler would take half a minute for two small functions of vLLM's sampler.
        workers["TORCH_COMPILE_DISABLE"] = "1"
    with _environment(workers):
        return AsyncLLM.from_vllm_config(config, disable_log_stats=True)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets variables that are not set already, for the processes that are started inside."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _platform() -> str:
    """The kind of device that the installed vLLM runs on."""
    return "cpu" if current_platform.is_cpu() else str(current_platform.device_type)


def _check_device(device: str) -> None:
    has = _platform()
    if device not in ("auto", has):
        hint = "; choose the card with CUDA_VISIBLE_DEVICES" if ":" in device and has == "cuda" else ""
        raise InputError(f"device {device}: the installed vLLM runs on {has}{hint}")
