"""TorchScript files: told by their content, looked through, and converted to ONNX by a confined process."""
