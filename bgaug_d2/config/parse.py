"""The keys of an experiment: a mapping into dataclasses, the nearest names for a wrong key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from bgaug_d2.config.experiment import ExperimentConfig
from bgaug_d2.errors import ConfigError

_LONG_NAME = 8  # letters; a shorter name is too often another one with a letter missing
OPTS = "detector.opts"  # the one section whose keys are Detectron2's


def experiment_from_mapping(content: Mapping[str, Any]) -> ExperimentConfig:
    """Check names and types of nested plain values and fill the dataclasses.

    Raises:
        ConfigError: An unknown key (with the nearest valid ones), a value of the wrong type (a
            whole number may stand for a float, nothing else is converted) or out of range.
    """
    experiment: ExperimentConfig = _build(ExperimentConfig, content, "")
    return experiment


def valid_keys(cls: type = ExperimentConfig, path: str = "") -> list[str]:
    """Dotted paths of all sections and values below ``path``."""
    return list(_walk_keys(cls, path))


def unknown_key(key: str, valid: Sequence[str]) -> ConfigError:
    """The error for a key that does not exist."""
    return ConfigError(f"unknown key {key!r}{did_you_mean(key, valid)}")


def did_you_mean(given: str, valid: Sequence[str]) -> str:
    """``; did you mean ...?`` with up to three names, or nothing.

    A long name that lies in another section comes alone. Others are the nearest by last component
    and by the whole path.
    """
    last = {each: each.rpartition(".")[2] for each in valid}
    wanted = given.rpartition(".")[2]
    names = [each for each in valid if last[each] == wanted]
    # A short name such as `mode` may be another one (`model`) that lost a letter.
    if not names or len(wanted) < _LONG_NAME:
        names += difflib.get_close_matches(given, valid, n=3, cutoff=0.6)
        alike = difflib.get_close_matches(wanted, set(last.values()), n=1, cutoff=0.7)
        names += [each for each in valid if last[each] in alike]
    names = list(dict.fromkeys(names))[:3]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def nearest_of(given: str, valid: Sequence[str]) -> str:
    """``did_you_mean`` followed by all valid names, for short lists of choices."""
    hint = did_you_mean(given, valid)
    return f"{hint} There are {', '.join(valid)}" if hint else f"; there are {', '.join(valid)}"


def join(path: str, key: object) -> str:
    """The dotted path of ``key`` in the section ``path``; the top is empty."""
    return f"{path}.{key}" if path else str(key)


def plain(value: Any) -> Any:
    """A deep copy with mappings as dicts and sequences as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def _build(cls: Any, content: Any, path: str) -> Any:
    hints = get_type_hints(cls)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}={content!r} must be a section with the keys {', '.join(hints)}")
    for key in content:
        if key not in hints:
            raise unknown_key(join(path, key), valid_keys())
    return cls(**{key: _value(hints[key], content[key], join(path, key)) for key in content})


def _value(hint: Any, value: Any, path: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, path)
    if get_origin(hint) is list and isinstance(value, list | tuple):
        (item,) = get_args(hint)
        return [_value(item, each, f"{path}[{i}]") for i, each in enumerate(value)]
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return plain(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise ConfigError(f"{path}={value!r} must be {_describe(hint, value)}")


def _describe(hint: Any, value: Any) -> str:
    if hint is str and value is not None:
        return f"text; on a command line quote it twice, '\"{value}\"'"
    if get_origin(hint) is list:
        return "a list, for example [a,b]"
    if get_origin(hint) is dict:
        return "a mapping, for example {a:1}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]


def _walk_keys(cls: type, path: str) -> Iterator[str]:
    hints = get_type_hints(cls)
    for each in fields(cls):
        key = join(path, each.name)
        yield key
        if is_dataclass(hints[each.name]):
            yield from _walk_keys(hints[each.name], key)  # type: ignore[arg-type]
