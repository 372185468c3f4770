"""`python -m compressor` is the command `compressor`."""

from compressor.cli import main

main()
