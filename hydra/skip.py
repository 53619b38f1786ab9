"""Which frames of a replayed history need no decoding: a run of weeks is tens of megabytes of them."""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = re.compile(r'"tag"\s*:\s*"SnapshotConfirmed"')
_NUMBER: Final = re.compile(r'"number"\s*:\s*(\d{1,18})\s*[,}]')
_DEPOSIT: Final = re.compile(r'"utxoToCommit"\s*:\s*\{')


def snapshot_number(frame: str | bytes) -> int | None:
    """The number of a SnapshotConfirmed without a deposit; None for all else, and where that is not plain to see.

    Quotes inside a JSON string are escaped: what stands in a text can end as one of these names, and then they stand
    in the frame twice.
    """
    text = frame if isinstance(frame, str) else frame.decode(errors="replace")
    if '"SnapshotConfirmed"' not in text or text.count('number"') != 1 or text.count('"SnapshotConfirmed"') != 1:
        return None
    number = _NUMBER.search(text)
    return int(number[1]) if number and _TAG.search(text) and not _DEPOSIT.search(text) else None
