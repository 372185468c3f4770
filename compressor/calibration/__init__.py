"""What is learned from sample data: one execution feeds all statistics, and memory does not grow with it."""

from compressor.calibration.ranges import Range, collect_ranges

__all__ = ["Range", "collect_ranges"]
