"""The engine's meter, by a clock of the test's own."""

from __future__ import annotations

import pytest

from bgaug_d2.inpaint.meter import Meter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_requests_there_are_no_numbers() -> None:
    reading = Meter(Clock()).read()
    assert (reading.occupancy, reading.latency_p50_s, reading.latency_p99_s) == (None, None, None)
    assert (reading.rows_per_s, reading.images_per_s) == (0.0, 0.0)


def test_rates_count_busy_time_only() -> None:
    clock = Clock()
    meter = Meter(clock)
    for request_id in "ab":
        meter.submitted(request_id)
    for _ in range(5):
        clock.now += 1.0
        meter.stepped(3, max_batch_rows=4)
    meter.answered("a")
    clock.now += 5.0
    meter.answered("b")
    clock.now += 1000.0  # idle
    reading = meter.read()
    assert (reading.calls, reading.rows, reading.pictures) == (5, 15, 2)
    assert reading.occupancy == 0.75
    assert reading.rows_per_s == pytest.approx(1.5)
    assert reading.images_per_s == pytest.approx(0.2)
    assert (reading.latency_p50_s, reading.latency_p99_s) == (5.0, 10.0)
    meter.submitted("c")
    clock.now += 10.0
    assert meter.read().images_per_s == pytest.approx(0.1)  # busy again, up to now


def test_rows_that_need_two_calls_count_as_two() -> None:
    meter = Meter(Clock())
    meter.stepped(6, max_batch_rows=4)
    reading = meter.read()
    assert (reading.calls, reading.rows, reading.occupancy) == (2, 6, 0.75)


def test_latency_is_that_of_the_last_requests() -> None:
    clock = Clock()
    meter = Meter(clock)
    for number in range(600):
        meter.submitted(str(number))
        clock.now += 50.0 if number < 80 else 1.0
        meter.answered(str(number))
    assert meter.read().latency_p99_s == 1.0
