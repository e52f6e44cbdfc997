"""Every error that a user can cause; each message says what to do.

Command lines catch ``BgAugError`` and print its message without a traceback.
"""

from __future__ import annotations


class BgAugError(Exception):
    """A user can mend the cause: a setting, a data set, a folder, a model."""


class ConfigError(BgAugError, ValueError):
    """A setting is not allowed; the message names the key, the value and the choices."""


class DatasetError(BgAugError, ValueError):
    """A data set is missing, partial or malformed; the message is one sentence for the user."""


class AnnotationError(BgAugError, ValueError):
    """An annotation cannot be used; the message names image id, annotation id and the fault."""


class ImageError(BgAugError, ValueError):
    """An image file cannot be used; the message names the file and the fault."""


class PromptError(BgAugError, ValueError):
    """A prompt needs something that the image does not have."""


class PlanError(BgAugError, ValueError):
    """A dataset dict lacks what the planner needs: a mistake in the set-up, not in the data."""


class MissError(BgAugError, RuntimeError):
    """A picture is not in the cache although ``on_miss`` is ``error``."""


class CacheError(BgAugError, ValueError):
    """The folder cannot be used as a cache; the message names it and what to do."""


class ModelError(BgAugError, RuntimeError):
    """A model cannot be found or cannot be used; the message says what to do."""


class WorkerStartError(BgAugError, RuntimeError):
    """A painting process did not become ready; the message has the last line it wrote."""


class IncompleteError(BgAugError, RuntimeError):
    """Some pictures could not be painted; the message names the report with the reasons."""


class RunFailedError(BgAugError, RuntimeError):
    """A run of a plan failed; the message names its log and quotes its last line."""


class ExportError(BgAugError, ValueError):
    """The export cannot be made; the message names the file and the fault."""


class ReportError(BgAugError, ValueError):
    """The runs cannot be put into a table; the message names the file or folder and why."""


class AuditError(BgAugError, ValueError):
    """An audit cannot be made; the message names what is wrong and what to do."""
