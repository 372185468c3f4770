"""Compress trained models: a recipe of passes in, a smaller verified ONNX file and an honest report out."""

__version__ = "0.1.0"
