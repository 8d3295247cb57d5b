"""List the alarms of a monitor's journal in Python, also while the monitor runs.

python examples/query_alarms.py runs/ecg-demo/monitor
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from monitors.outputs.history import read_history


def main(state: Path) -> None:
    """Print each alarm with its priority, its length and its reason, and the alarms for each bed and day."""
    history = read_history(state / "journal.sqlite")
    for episode in history.episodes:
        onset = datetime.fromtimestamp(episode.onset, UTC)
        seconds = episode.lasted(history.until)
        what = f"{episode.stream} {episode.kind} {episode.priority}"
        print(f"{onset:%F %T} {what} {seconds:.0f} s {episode.reason}")
    print(f"{len(history.episodes)} alarms on {history.beds} beds")
    if history.per_bed_and_day is not None:
        print(f"{history.per_bed_and_day:.1f} a bed and day")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
