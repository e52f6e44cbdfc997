"""A benchmark's report as Markdown tables."""

from __future__ import annotations

from typing import Any


def to_markdown(report: dict[str, Any]) -> str:
    """Tables of what was measured."""
    lines = [
        f"{report['machine']}; {report['device']}; {report['date']}; commit "
        f"{str(report['versions']['git_commit'])[:7]}",
        "",
    ]
    if engine := report.get("engine"):
        lines += ["| engine | images/s | rows/s | TFLOP/s | of the matrix-product rate |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        titles = {
            "stock_per_image": "diffusers, a call per picture",
            "stock_grouped": "diffusers, grouped by T_hat, batches of "
            f"{engine['stock_grouped']['batch_size']}",
            "ours": f"this engine, {engine['shape']['rows']} rows",
        }
        for name, title in titles.items():
            each = engine[name]
            lines.append(
                f"| {title} | {each['images_per_s']:.3g} | {each['rows_per_s']:.3g} | "
                f"{each['tflops']:.3g} | {100 * each['share']:.0f} % |"
            )
        speedup = engine["speedup"]
        lines += [
            "",
            f"{engine['model']}, {engine['dtype']}, {engine['shape']['resolution']} px, mean T_hat "
            f"{engine['T_hat']['mean']:.1f} of {engine['shape']['steps']}: "
            f"{speedup['per_image']:.2f} times a call per picture, {speedup['grouped']:.2f} times "
            f"grouped; solver's largest relative error {engine['solver_max_rel_error']:.1e}",
            "",
            "| ladder | images/s |",
            "| --- | --- |",
            *(f"| {name} | {rate:.3g} |" for name, rate in engine["ladder"].items()),
            "",
        ]
    if loader := report.get("loader"):
        lines += ["| on a miss | look-ahead | painting's speed | images/s | waiting | augmented |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for each in loader["situations"]:
            ahead = {True: "on", False: "off"}.get(each.get("look_ahead"), "–")
            speed = f"{100 * each['speed']:.0f} % of need" if "speed" in each else "–"
            name = "no augmentation" if each["on_miss"] == "none" else each["on_miss"]
            lines.append(
                f"| {name} | {ahead} | {speed} | {each['images_per_s']:.3g} | "
                f"{100 * each['stall_share']:.1f} % | {100 * each['augmented_share']:.0f} % |"
            )
        lines.append("")
    if profiles := report.get("profiles"):
        lines += ["| profile | images/s | taken for its kind | told from real | diversity |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {name} | {each['images_per_s']:.3g} | {each['recognised']:.2f} | "
            f"{each['told_apart']:.2f} | {each['diversity']:.2f} |"
            for name, each in profiles.items()
        ]
        lines.append("")
    if scale := report.get("scale"):
        lines += ["| entries | look-up, ms | start, ms | memory grown, kB |"]
        lines += ["| --- | --- | --- | --- |"]
        lines += [
            f"| {each['entries']:,} | {each['get_ms']:.3f} | {each['start_ms']:.3f} | "
            f"{each['grown_kb']} |"
            for each in scale
        ]
        lines.append("")
    rows = [
        (f"{part}: {name}", value)
        for part in ("training", "cache", "mapper")
        for name, value in report.get(part, {}).items()
    ]
    if rows:
        lines += ["| what | median |", "| --- | --- |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in rows]
    return "\n".join(lines)
