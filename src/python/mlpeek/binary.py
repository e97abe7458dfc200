"""The `mlpeek` program: where it is, and what it says with `--json`.

Everything that needs a model goes through it, so that Python and the terminal give the same numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from .errors import MlpeekError

_NAME = "mlpeek.exe" if os.name == "nt" else "mlpeek"
# A notebook stops a cell by an interrupt of its own process alone; the command then gets this long to save.
_GRACE_S = 30
# How the line of a failure begins: the program's own, and that about a command line.
_FAILURES = ("mlpeek: ", "error: ")


def find_binary() -> str:
    """The path of the program: what `MLPEEK_BIN` names, the one that was installed with this package, or the first on PATH.

    Raises `MlpeekError` where there is none.
    """
    named = os.environ.get("MLPEEK_BIN")
    if named:
        found = shutil.which(named)
        if found is None:
            raise MlpeekError(f"MLPEEK_BIN names {named}, which is no program that can be run")
        return found
    for folder in _script_folders():
        if os.access(folder / _NAME, os.X_OK):
            return str(folder / _NAME)
    found = shutil.which(_NAME)
    if found is None:
        raise MlpeekError("the mlpeek program is neither beside this package nor on PATH: install the package, or set MLPEEK_BIN")
    return found


def _script_folders() -> Iterator[Path]:
    """Where an installer puts the programs of this package: its environment, the user's, or beside `pip install --target`."""
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
    yield Path(__file__).resolve().parents[1] / "bin"


def run(*words: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Runs `mlpeek WORDS --json` and gives the lines that it printed, each an object (`mlpeek guide json` lists their fields).

    Remarks and progress of the command go to `sys.stderr`, as they come. Raises `MlpeekError` with the command's own line where it
    fails. An interrupt stops the command, which saves what it has.
    """
    line = [find_binary(), *(os.fspath(word) for word in words), "--json"]
    process = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    )
    assert process.stdout is not None and process.stderr is not None
    said: list[str] = []
    listener = threading.Thread(target=_listen, args=(process.stderr, said), daemon=True)
    listener.start()
    objects: list[dict[str, Any]] = []
    try:
        with process.stdout:
            for text in process.stdout:
                objects.append(_object(text, line))
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        listener.join(timeout=_GRACE_S)
    if code != 0:
        raise MlpeekError(_error_line(said, code), code)
    return objects


def _object(text: str, line: Sequence[str]) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise MlpeekError(f"{line[0]} {line[1]} printed what is no line of JSON: is it another program?")
    return value


def _listen(stream: IO[str], said: list[str]) -> None:
    """Passes on what a command says up to the line of its failure, which becomes the exception."""
    failed = False
    with stream:
        for text in stream:
            said.append(text.rstrip("\n"))
            failed = failed or text.startswith(_FAILURES)
            if not failed:
                sys.stderr.write(text)


def _error_line(said: Sequence[str], code: int) -> str:
    for text in reversed(said):
        if text.startswith(_FAILURES):
            return text.split(": ", 1)[1]
    if code < 0:
        return f"mlpeek was ended by signal {-code}"
    return said[-1] if said else f"mlpeek ended with code {code} and said nothing"


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def options(**given: Any) -> list[str]:
    """Options as a command line has them: `top_p=0.3` is `--top-p=0.3`, `True` the option alone, a list the option for each,
    `None` and `False` nothing."""
    words = []
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            words.append(f"{option}={os.fspath(one) if isinstance(one, os.PathLike) else one}")
    return words
