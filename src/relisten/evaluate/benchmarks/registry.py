"""Every benchmark by its name."""

from __future__ import annotations

from relisten.errors import InputError
from relisten.evaluate.benchmarks.base import Benchmark
from relisten.evaluate.benchmarks.mmar import Mmar
from relisten.evaluate.benchmarks.mmau import MMAU, MMAU_MINI
from relisten.evaluate.benchmarks.mmau_pro import MmauPro
from relisten.evaluate.benchmarks.mmsu import Mmsu
from relisten.evaluate.benchmarks.questions import Questions
from relisten.evaluate.benchmarks.scenes import Scenes
from relisten.evaluate.benchmarks.star_bench import StarBench

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (Questions(), Scenes(), Mmar(), MMAU_MINI, MMAU, Mmsu(), MmauPro(), StarBench())
}


def find_benchmark(name: str) -> Benchmark:
    """Raises InputError for a name that is none."""
    if name not in BENCHMARKS:
        raise InputError(f"benchmark {name!r} is unknown; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
