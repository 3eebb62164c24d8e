"""Benchmarks. A benchmark is one file that offers what `base.Benchmark` asks for; `registry` knows them all."""
