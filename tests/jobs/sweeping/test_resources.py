import pytest

from genray.errors import ResourceError
from genray.targets import Resources
from jobs.sweeping.resources import TrialResources, share_out


@pytest.mark.parametrize(
    ("have", "most", "cpus", "gpus", "expected"),
    [
        (Resources(4, 0), 2, None, 0, TrialResources(2, Resources(2, 0))),
        (Resources(4, 0), 9, None, 0, TrialResources(4, Resources(1, 0))),
        (Resources(4, 0), 3, None, 0, TrialResources(3, Resources(1, 0))),
        (Resources(4, 0), 9, 3, 0, TrialResources(1, Resources(3, 0))),
        (Resources(4, 0), 9, 0.5, 0, TrialResources(8, Resources(0.5, 0))),
        (Resources(32, 4, nodes=2), 9, None, 1, TrialResources(4, Resources(8, 1))),
        (Resources(16, 1), 9, None, 0.5, TrialResources(2, Resources(8, 0.5))),
        (Resources(16, 8), 9, None, 3, TrialResources(2, Resources(8, 3))),
        (Resources(8, 0, nodes=4), 2, None, 0, TrialResources(2, Resources(2, 0))),
        (Resources(16, 6, nodes=2), 9, None, 2, TrialResources(2, Resources(8, 2))),
        (Resources(16, 1, nodes=2), 9, None, 1, TrialResources(1, Resources(8, 1))),
    ],
)
def test_trials_share_what_there_is(
    have: Resources, most: int, cpus: float | None, gpus: float, expected: TrialResources
) -> None:
    share = share_out(have, most, cpus, gpus)
    assert share == expected
    assert share.trials * share.each.cpus <= have.cpus


@pytest.mark.parametrize(
    ("have", "cpus", "gpus", "where"),
    [
        (Resources(4, 0, nodes=2), 3, 0, "sweep.cpus_per_trial"),
        (Resources(4, 0, nodes=2), None, 0.5, "sweep.gpus_per_trial"),
        (Resources(4, 4, nodes=2), None, 3, "sweep.gpus_per_trial"),
    ],
)
def test_what_does_not_fit_is_refused(have: Resources, cpus: float | None, gpus: float, where: str) -> None:
    with pytest.raises(ResourceError) as caught:
        share_out(have, 2, cpus, gpus)
    assert caught.value.where == where
