"""Every error that a user can cause; each message says what to do."""

from __future__ import annotations


class MissError(RuntimeError):
    """A picture is not in the cache although ``on_miss`` is ``error``."""


class AnnotationError(ValueError):
    """An annotation cannot be used; the message names image id, annotation id and the fault."""


class ConfigError(ValueError):
    """A setting is not allowed; the message names the key, the value and the choices."""


class ImageError(ValueError):
    """An image file cannot be used; the message names the file and the fault."""


class CacheError(ValueError):
    """The folder cannot be used as a cache; the message names it and what to do."""


class WorkerStartError(RuntimeError):
    """A painting process did not become ready; the message has the last line it wrote."""


class DatasetError(ValueError):
    """A data set is missing, partial or malformed; the message is one sentence for the user."""


class ModelError(RuntimeError):
    """A model cannot be had or cannot be used; the message says what to do."""
