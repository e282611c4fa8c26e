"""One HDLC frame as values; a module of its own, because the compiled framer makes them."""

from __future__ import annotations

from typing import NamedTuple


class Frame(NamedTuple):
    """One frame whose check sequences were right. Addresses are in wire form: comparing them is all a link does."""

    destination: bytes
    source: bytes
    control: int
    information: bytes = b""
    segmented: bool = False
