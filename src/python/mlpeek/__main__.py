"""`python -m mlpeek`: the program itself, with all its commands."""

import os
import subprocess
import sys

from .binary import find_binary
from .errors import MlpeekError


def main() -> int:
    try:
        line = [find_binary(), *sys.argv[1:]]
    except MlpeekError as problem:
        print(f"mlpeek: {problem}", file=sys.stderr)
        return 1
    if os.name == "nt":
        return subprocess.call(line)
    os.execv(line[0], line)


if __name__ == "__main__":
    sys.exit(main())
