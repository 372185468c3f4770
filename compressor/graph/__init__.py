"""The model as a graph: the one place that knows operators, layouts and onnx_ir."""
