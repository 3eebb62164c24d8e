"""Benchmarks by name. A benchmark is one file that offers what `base.Benchmark` asks for."""

from __future__ import annotations
