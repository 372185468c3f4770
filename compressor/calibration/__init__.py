"""What is learned from sample data: one execution feeds all statistics, and memory does not grow with it."""

from compressor.calibration.ranges import collect_ranges
from compressor.calibration.statistics import Observer, ObserverName
from compressor.numerics.observers import Range

__all__ = ["Observer", "ObserverName", "Range", "collect_ranges"]
