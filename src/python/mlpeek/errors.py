"""What goes wrong, as one exception."""

from __future__ import annotations

import os


class MlpeekError(Exception):
    """A study that cannot be read, or a command of mlpeek that failed; its text is the line that says so.

    `code` is the command's exit code (1 a failure, 2 a wrong use, 130 stopped), and `None` where no command ran.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def about_file(path: str | os.PathLike[str], problem: str) -> MlpeekError:
    """The error for a file that is damaged, foreign or missing."""
    return MlpeekError(f"{os.fspath(path)}: {problem}")
