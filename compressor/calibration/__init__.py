"""What is learned from sample data: one execution feeds all statistics, and memory does not grow with it."""

from compressor.calibration.ranges import Observer, Range, collect_ranges

__all__ = ["Observer", "Range", "collect_ranges"]
