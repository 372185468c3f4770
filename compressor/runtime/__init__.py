"""Execution of models: arrays in, arrays out, and what that costs."""
