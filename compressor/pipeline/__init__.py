"""A run: load, a loop over the passes, a proof, a measurement, the gates, and then the files."""

from compressor.pipeline.run import Outcome, compare, follow, run, run_fastest

__all__ = ["Outcome", "compare", "follow", "run", "run_fastest"]
