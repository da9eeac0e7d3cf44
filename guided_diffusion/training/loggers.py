"""The loggers that Lightning's own constructors don't set up as is needed here."""

from __future__ import annotations
