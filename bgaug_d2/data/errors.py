"""The error of this package."""

from __future__ import annotations


class DatasetError(ValueError):
    """A data set is missing, partial or malformed; the message is one sentence for the user."""
