"""The mathematics of compression on plain arrays: knows no model, no file, no runtime."""
