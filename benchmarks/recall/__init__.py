"""The parts of ``benchmarks/semantic_cache.py``."""
