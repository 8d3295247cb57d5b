"""Rhythm models of an evaluation: one for all records, or for each record one of other patients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genray.bundle import load_bundle
from genray.datasets.rhythms import group_of
from genray.errors import DataError
from monitors.patient.rhythm.ventricular import RhythmModel


@dataclass(frozen=True)
class RhythmModels:
    """Rhythm models, of which each record is judged by the first that was not trained on its patient.

    Attributes:
        models: the models.
        patients: patients that each was trained on; empty: it may judge all.
    """

    models: tuple[RhythmModel, ...]
    patients: tuple[frozenset[str], ...]

    @classmethod
    def one(cls, model: RhythmModel) -> RhythmModels:
        """Return a model that judges all records."""
        return cls((model,), (frozenset(),))

    @classmethod
    def of_folds(cls, folder: Path) -> RhythmModels:
        """Return the models of the bundles in `folder`, which train-rhythm wrote.

        Raises:
            DataError: there are none.
            BundleError: one is damaged.
        """
        paths = sorted(path.parent for path in folder.glob("*/bundle.json"))
        if not paths:
            raise DataError(
                "no bundles in this folder",
                where=str(folder),
                hint="give the folder `folds` of a run of train-rhythm: RUN/folds",
            )
        bundles = [load_bundle(path) for path in paths]
        trained_on = [frozenset(map(group_of, bundle.manifest.data.get("records", ()))) for bundle in bundles]
        return cls(tuple(map(RhythmModel.from_bundle, bundles)), tuple(trained_on))

    def shares(self, records: Iterable[str]) -> list[tuple[RhythmModel, list[str]]]:
        """Return the models, each with the names of those of `records` that it judges.

        Raises:
            DataError: all were trained on the patient of a record.
        """
        judged: dict[int, list[str]] = {}
        for record in records:
            patient = group_of(record)
            place = next((n for n, known in enumerate(self.patients) if patient not in known), None)
            if place is None:
                raise DataError(
                    f"all {len(self.models)} rhythm models were trained on the patient of {record}",
                    hint="give the folds of one run of train-rhythm, which leave out each patient once",
                )
            judged.setdefault(place, []).append(record)
        return [(self.models[place], names) for place, names in sorted(judged.items())]
