"""Scores as people read them: fractions in percent with its sign, others with three decimals. Files keep fractions."""

from __future__ import annotations

from collections.abc import Sequence

from msekit.evaluation.metrics import metric_named


def fraction(metric: str, printed: float) -> float:
    """A metric's value as this kit keeps it, from how a paper prints it: percent → fraction, others as they are."""
    return round(printed / 100, 6) if metric_named(metric).percent else printed


def axis(metric: str) -> tuple[float, str]:
    """What a figure multiplies a metric with, and its unit."""
    return (100.0, "%") if metric_named(metric).percent else (1.0, "")


def percent(share: float | None) -> str:
    """A share of 1 as people read it: `48.53 %`; "undefined" for None."""
    return "undefined" if share is None else f"{100 * share:.2f} %"


def show(
    metric: str,
    value: float | None,
    *,
    spread: float | None = None,
    interval: Sequence[float] | None = None,
    signed: bool = False,
) -> str:
    """A metric as people read it everywhere: `62.00 %`, or three decimals for one that is no percentage.

    Args:
        metric: A key of `METRICS`.
        value: A fraction, or what the metric's unit is; None reads "undefined".
        spread: Standard deviation: `62.00 ± 1.50 %`.
        interval: Its bounds: `62.00 [60.12, 63.90] %`.
        signed: Write a + before what is not negative, as for differences.
    """
    if value is None:
        return "undefined"
    scale, digits, unit = (100.0, 2, " %") if metric_named(metric).percent else (1.0, 3, "")
    sign = "+" if signed else ""
    text = f"{value * scale:{sign}.{digits}f}"
    if spread is not None:
        text += f" ± {spread * scale:.{digits}f}"
    if interval is not None:
        text += f" [{', '.join(f'{bound * scale:{sign}.{digits}f}' for bound in interval)}]"
    return text + unit
