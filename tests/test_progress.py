"""core.progress against a simulated machine whose true remaining time is known."""

from __future__ import annotations

import pytest

from core.progress import PRIOR_SECONDS, ProgressMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


STAGES = {"perceive": 300, "track": 2, "recover": 300, "place": 300, "write": 300}


def simulate(slowness: float, units: dict[str, int] = STAGES):
    """Run all stages at `slowness` times the prior rates; return [(message, true seconds left)]."""
    clock, sent = Clock(), []
    end = clock.now + slowness * sum(PRIOR_SECONDS[s] * n for s, n in units.items())
    meter = ProgressMeter(lambda m: sent.append((m, end - clock.now)), clock)
    meter.plan(**units)
    for stage, total in units.items():
        meter.begin(stage, total)
        for i in range(total):
            clock.now += slowness * PRIOR_SECONDS[stage]
            meter.update(i + 1)
    meter.finish()
    return meter, sent


@pytest.mark.parametrize("slowness", [0.3, 1.0, 7.0])
def test_eta_is_true_on_a_machine_of_any_speed(slowness):
    meter, sent = simulate(slowness)
    known = [(m, left) for m, left in sent if m.eta_s >= 0]
    assert len(known) > 0.7 * len(sent)
    total = sent[0][1]
    assert max(abs(m.eta_s - left) for m, left in known) < 0.02 * total
    assert meter.fraction == 1.0


def test_eta_adapts_to_a_stage_of_another_speed():
    """Recover runs 20 times slower than its prior: after a tenth of it the time left is right within a tenth."""
    clock, sent = Clock(), []
    meter = ProgressMeter(sent.append, clock)
    meter.plan(perceive=300, recover=300)
    meter.begin("perceive", 300)
    for i in range(300):
        clock.now += 0.03
        meter.update(i + 1)
    meter.begin("recover", 300)
    for i in range(30):
        clock.now += 0.2
        meter.update(i + 1)
    assert sent[-1].eta_s == pytest.approx(270 * 0.2, rel=0.1)


def test_fraction_is_monotone_and_proportional_to_time():
    _, sent = simulate(2.0)
    fractions = [m.fraction for m, _ in sent]
    assert fractions == sorted(fractions)
    total = sent[0][1]
    late = [(m.fraction, 1 - left / total) for m, left in sent if m.eta_s >= 0]
    assert max(abs(f - true) for f, true in late) < 0.03


def test_more_work_than_planned_never_turns_the_fraction_back():
    clock, sent = Clock(), []
    meter = ProgressMeter(sent.append, clock)
    meter.begin("perceive", 10)
    for i in range(40):
        clock.now += 1.0
        meter.update(i + 1)
    meter.plan(recover=4000)
    meter.begin("recover", 4000)
    clock.now += 5
    meter.update(10)
    fractions = [m.fraction for m in sent]
    assert fractions == sorted(fractions) and fractions[-1] < 1
    assert all(m.done <= m.total for m in sent)


def test_resumed_units_do_not_count_as_fast_ones():
    clock, sent = Clock(), []
    meter = ProgressMeter(sent.append, clock)
    meter.begin("perceive", 1000)
    meter.skip(900)
    for i in range(50):
        clock.now += 0.1
        meter.update(901 + i)
    assert sent[-1].eta_s == pytest.approx(50 * 0.1, rel=0.05)


def test_loading_before_the_first_frame_is_no_rate():
    """Three seconds pass before the first of 200 frames, then 50 a second."""
    clock, sent = Clock(), []
    meter = ProgressMeter(sent.append, clock)
    meter.begin("perceive", 200)
    clock.now += 3.0
    meter.update(1)
    assert sent[-1].eta_s == -1.0
    for i in range(40):
        clock.now += 0.02
        meter.update(2 + i)
    assert sent[-1].eta_s == pytest.approx((200 - sent[-1].done) * 0.02, rel=0.02)


def test_unknown_before_anything_was_measured_and_rarely_sent():
    clock, sent = Clock(), []
    meter = ProgressMeter(sent.append, clock)
    meter.plan(perceive=100)
    meter.begin("perceive", 100)
    assert sent[-1].eta_s == -1.0
    for i in range(100):
        clock.now += 0.001
        meter.update(i)
    assert len(sent) <= 3
    assert set(meter.seconds()) == {"perceive"}
