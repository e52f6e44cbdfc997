"""A benchmark's report as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def to_markdown(report: dict[str, Any]) -> str:
    """Tables of what was measured."""
    lines = [
        f"{report['machine']}; {report['device']}; {report['date']}; commit "
        f"{str(report['versions']['git_commit'])[:7]}",
        "",
    ]
    parts: dict[str, Callable[[Any], list[str]]] = {
        "engine": _engine,
        "loader": _loader,
        "scale": _scale,
    }
    for name, part in parts.items():
        if report.get(name):
            lines += part(report[name])
    groups = {"training": report.get("training", {}), **report.get("hits", {})}
    medians = [
        (f"{group}: {name}", f"{value:.4g}")
        for group, values in groups.items()
        for name, value in values.items()
    ]
    if medians:
        lines += markdown_table(("what", "median"), medians)
    return "\n".join(lines)


def _engine(engine: Mapping[str, Any]) -> list[str]:
    titles = {
        "diffusers_per_image": "diffusers, a call per picture",
        "diffusers_grouped": "diffusers, grouped by T_hat, batches of "
        f"{engine['diffusers_grouped']['batch_size']}",
        "engine": f"this engine, {engine['size']['max_batch_rows']} rows",
    }
    rates = [
        (
            title,
            f"{engine[name]['images_per_s']:.3g}",
            f"{engine[name]['rows_per_s']:.3g}",
            f"{engine[name]['tflops']:.3g}",
            f"{100 * engine[name]['share']:.0f} %",
        )
        for name, title in titles.items()
    ]
    quick = engine["engine_deepcache"]["images_per_s"]
    rates.append(("this engine, whole UNet every 2nd step", f"{quick:.3g}", "–", "–", "–"))
    header = ("engine", "images/s", "rows/s", "TFLOP/s", "of the matrix-product rate")
    ladder = [(name, f"{rate:.3g}") for name, rate in engine["ladder"].items()]
    return [
        *markdown_table(header, rates),
        f"{engine['model']}, {engine['dtype']}, {engine['size']['resolution']} px, mean T_hat "
        f"{engine['T_hat']['mean']:.1f} of {engine['size']['num_inference_steps']}: "
        f"{engine['speedup']['per_image']:.2f} times a call per picture, "
        f"{engine['speedup']['grouped']:.2f} times grouped, with DeepCache "
        f"{engine['speedup']['deepcache']:.2f} times a call per picture; solver's largest "
        "relative error "
        f"{engine['solver_max_rel_error']:.1e}",
        "",
        *markdown_table(("ladder", "images/s"), ladder),
    ]


def _loader(loader: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            "no augmentation" if each["on_miss"] == "none" else each["on_miss"],
            {True: "on", False: "off"}.get(each.get("look_ahead"), "–"),
            f"{100 * each['speed']:.0f} % of need" if "speed" in each else "–",
            f"{each['images_per_s']:.3g}",
            f"{100 * each['stall_share']:.1f} %",
            f"{100 * each['augmented_share']:.0f} %",
        )
        for each in loader["situations"]
    ]
    header = ("on a miss", "look-ahead", "painting's speed", "images/s", "waiting", "augmented")
    return markdown_table(header, rows)


def _scale(sizes: Sequence[Mapping[str, float]]) -> list[str]:
    rows = [
        (
            f"{each['entries']:,}",
            f"{each['get_ms']:.3f}",
            f"{each['start_ms']:.3f}",
            f"{each['grown_kb']}",
        )
        for each in sizes
    ]
    return markdown_table(("entries", "look-up, ms", "start, ms", "memory grown, kB"), rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table and an empty line."""
    lines = [header, ("---",) * len(header), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
