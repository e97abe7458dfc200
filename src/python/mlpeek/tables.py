"""Rows as a data frame where pandas is there."""

from __future__ import annotations

from typing import Any


def table(rows: list[dict[str, Any]], frame: bool | None) -> Any:
    """`rows` as a pandas data frame (`frame` is `True`), as they are (`False`), or the first where pandas is there (`None`)."""
    if frame is False:
        return rows
    try:
        import pandas
    except ImportError:
        if frame:
            raise
        return rows
    return pandas.DataFrame(rows)
