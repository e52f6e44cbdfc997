"""The error of this package that is a user's to mend."""


class ModelError(RuntimeError):
    """A model cannot be had or cannot be used; the message says what to do."""
