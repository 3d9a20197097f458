"""Which takes of the CMU library lie in some folders, and what a list of captures says of them.

A take is a file NN_MM.fbx: subject NN, trial MM. The list is a CSV with the columns CSV_COLUMNS.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError
from core.synth.splits import split_of

GROUP = "cmu_daz"
FILE_NAME = re.compile(r"(\d+)_(\d+)\.fbx", re.IGNORECASE)
CSV_COLUMNS = SUBJECT, TRIAL, DESCRIPTION, RATE = "Subject", "Trial #", "Motion Description", "framerate"
USUAL_RATE = 120.0
"""Captured frames a second, of which the library kept every fifth: 24."""
UNNAMED_TEST_SUBJECTS = frozenset({"cmu_93", "cmu_103"})
"""Danced what two test clips without a trial number show."""


@dataclass(frozen=True)
class Trial:
    """What the list of captures says of one trial."""

    description: str
    rate: float
    """Frames a second of the capture."""


Trials = dict[tuple[int, int], Trial]
"""By subject and number."""


@dataclass(frozen=True)
class Take:
    """One file and what is known of it."""

    path: Path
    source: str
    """For the motion file: folder and path below it."""
    number: tuple[int, int]
    description: str
    rate: float
    is_listed: bool

    @property
    def name(self) -> str:
        return f"{self.number[0]:02d}_{self.number[1]:02d}"

    @property
    def subject(self) -> str:
        return f"cmu_{self.number[0]:02d}"

    @property
    def is_held_out(self) -> bool:
        return self.subject in UNNAMED_TEST_SUBJECTS or split_of(self.subject, GROUP) != "train"


def read_trials(path: str | Path) -> Trials:
    """Read a CSV with the columns CSV_COLUMNS; rows without a number or a rate are passed over."""
    try:
        with Path(path).open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in CSV_COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}: it is no list of captures")
            trials = {}
            for row in rows:
                words = [(row[name] or "").strip() for name in (SUBJECT, TRIAL, RATE)]
                if all(re.fullmatch(r"\d+", word) for word in words) and int(words[2]):
                    number = int(words[0]), int(words[1])
                    trials[number] = Trial((row[DESCRIPTION] or "").strip(), float(words[2]))
    except (OSError, csv.Error) as error:
        raise InputError(f"cannot read the list of captures {path}: {error}") from error
    return trials


def find_takes(folders: Iterable[str | Path], trials: Trials) -> tuple[list[Take], list[Path]]:
    """One take for each number, the first file found, and the files that are second ones of a trial.

    A trial that is not listed has the rate of most others of its subject, or USUAL_RATE.
    """
    rates: dict[int, Counter[float]] = defaultdict(Counter)
    for (subject, _), trial in trials.items():
        rates[subject][trial.rate] += 1
    takes: dict[tuple[int, int], Take] = {}
    others: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder")
        for path in sorted(folder.rglob("*")):
            found = FILE_NAME.fullmatch(path.name)
            if not found or not path.is_file():
                continue
            number = subject, _ = int(found[1]), int(found[2])
            if number in takes:
                others.append(path)
                continue
            usual = rates[subject].most_common(1)[0][0] if subject in rates else USUAL_RATE
            trial = trials.get(number, Trial("", usual))
            source = f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}"
            takes[number] = Take(path, source, number, trial.description, trial.rate, subject in rates)
    if not takes:
        raise InputError("the folders hold no files named like 01_02.fbx (subject, trial)")
    return list(takes.values()), others
