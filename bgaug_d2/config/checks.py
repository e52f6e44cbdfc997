"""Checks of values that several settings share."""

from __future__ import annotations

from bgaug_d2.errors import ConfigError


def check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{key}={value!r} is not allowed; choose one of {', '.join(allowed)}")


def check_between(key: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    # In this form NaN is refused too: no comparison with it holds.
    if not low <= value <= high:
        upper = "" if high == float("inf") else f" and at most {high}"
        raise ConfigError(f"{key}={value!r} is not allowed; it must be at least {low}{upper}")
