"""What can be the user's fault, as one tree.

    CompressorError
    ├── UsageError            exit 2: the command line or the recipe
    │   ├── RecipeError           the recipe file: every problem with its place
    │   └── OutputError           the output cannot be written
    ├── InputError            exit 3: what the recipe points at
    │   ├── ModelError            the model cannot be used
    │   └── DataError             the data cannot be used with this model
    └── ResultError           exit 4: the work itself
        ├── PassError             a pass cannot do what was asked on any layer
        └── VerificationError     a result was refused before it was written

A `CompressorError` becomes one line on stderr and an exit code, in `cli` and nowhere else. Any other
exception is a bug of ours and keeps its traceback. Messages name the place, the value and the way out.
"""

from typing import ClassVar


class CompressorError(Exception):
    """The input is at fault; the message is for the user."""

    exit_code: ClassVar[int] = 1


class UsageError(CompressorError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe is wrong: all problems found, each with its place.

    Args:
        problems: one line each, already naming file, line and column.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class OutputError(UsageError):
    """The output cannot be written where it was asked for."""


class InputError(CompressorError):
    """A file that the recipe points at cannot be used."""

    exit_code = 3


class ModelError(InputError):
    """The model cannot be read, understood or run."""


class DataError(InputError):
    """The data is missing, empty, not finite, or does not fit the model."""


class ResultError(CompressorError):
    """The work failed; nothing was written."""

    exit_code = 4


class PassError(ResultError):
    """A pass cannot do what the recipe asks."""


class VerificationError(ResultError):
    """The result of a pass is not a valid model or no longer does its job."""
