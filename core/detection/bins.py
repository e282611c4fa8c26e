"""The age grid: AGES_H, BLOCKS, BLOCK_H."""

from __future__ import annotations

WEATHER_H = 108.0

AGES_H = (1, 2, 3, 6, 9, 12, 18, *range(24, 28 * 24 + 1, 24), *range(32 * 24, 56 * 24 + 1, 4 * 24))

BLOCKS = 4

BLOCK_H = 24 // BLOCKS

BLOCK_DAYS = 28
