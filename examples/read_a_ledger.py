"""Read the ledger of a bulk run with pyarrow: what failed and why, and where the time went.

python examples/read_a_ledger.py clean
"""

import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq


def main(output: Path) -> None:
    """Print counts by status, the failed images with their reasons, and the mean time of each stage."""
    folder = output / "_genray" / "ledger"
    if not folder.is_dir():
        sys.exit(f"no ledger: {folder} is missing; give the output folder of a bulk run")
    ledger = pq.read_table(folder)
    for count in ledger["status"].value_counts().to_pylist():
        print(f"{count['values']}: {count['counts']}")
    failed = ledger.filter(pc.field("status") == "failed")
    for row in failed.select(["path", "reason", "detail"]).to_pylist():
        print(f"{row['path']}: {row['reason']}: {row['detail']}")
    for stage in ("read_ms", "decode_ms", "model_ms", "encode_ms", "write_ms"):
        mean = pc.mean(ledger[stage]).as_py()
        print(f"{stage}: {mean:.2f}" if mean is not None else f"{stage}: not measured")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
