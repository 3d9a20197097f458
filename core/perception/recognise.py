"""Whether somebody who was just found is a person lost a moment ago: by place, size and colours."""

from __future__ import annotations

import numpy as np

from core.perception.appearance import appearance_distance
from core.perception.config import TrackingConfig
from core.perception.person import Person, Sample


def recognise_or_none(
    lost: list[Person], sights: list[Sample], colours: np.ndarray, config: TrackingConfig
) -> Person | None:
    """The lost person that somebody most likely is, who was seen as `sights` (in frame order) and in `colours`.

    What counts is the first sight after the person's last; a few frames before it may contradict, as readings go
    wrong just before somebody is lost. Distances in crop sides, from where the person was last seen or was heading,
    whichever is nearer.
    """
    best, best_cost = None, 1.0
    for person in lost:
        last = person.last
        later = [sight for sight in sights if sight.frame > last.frame]
        if not later or len(sights) - len(later) > config.max_contradiction:
            continue
        first = later[0]
        gap = first.time - last.time
        side = max(first.size, last.size)
        expected = person.expected_roi(first.frame).center.numpy()
        distance = min(float(np.linalg.norm(first.center - place)) / side for place in (last.center, expected))
        reach = config.lost_reach + config.reach_per_second * gap
        growth = side / max(1e-6, min(first.size, last.size))
        difference = appearance_distance(person.appearance, colours)
        tolerated = config.tolerated_colours(gap)
        strange = 0.5 if np.isnan(difference) else difference / tolerated
        cost = 0.5 * distance / reach + 0.5 * strange
        if distance <= reach and growth <= config.max_growth + gap and strange <= 1 and cost < best_cost:
            best, best_cost = person, cost
    return best
