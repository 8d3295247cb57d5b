"""The last stage of a worker: what a step made of an input is encoded, written, and made to last."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from genray.images.decode import BadImage
from genray.images.photo import Photo
from genray.images.photo_writer import WriteSettings, output_format, write_photo
from pipelines.engine.chunk import Job
from pipelines.storage.sinks import Sink, TableSink


class Writer:
    """Writes to a sink and a table. Any thread may write; one commits when none does.

    Args:
        settings: of the files.
        sink: takes the images.
        table: takes the rows, if the step has any.
    """

    def __init__(self, settings: WriteSettings, sink: Sink, table: TableSink | None) -> None:
        self._settings, self._sink, self._table = settings, sink, table

    def write(self, job: Job) -> Job:
        """Encode and write what was made of an input; what cannot be is noted in the job."""
        made, output = job.made, job.planned.output
        assert made is not None
        try:
            images: dict[str, Photo | bytes | None] = {output: self._copied(job) or made.photo}
            for behind, photo in made.also.items():
                images[f"{output}{behind}{PurePosixPath(output).suffix}"] = photo
            for path, image in images.items():
                if image is not None:
                    self._put(job, path, image)
            if made.row is not None and self._table is not None:
                self._table.add({"path": job.planned.item.path, **made.row})
                job.bytes_out += _payload(made.row)
        except BadImage as bad:
            job.bad = bad
        except OSError as error:
            job.bad = BadImage("unwritable", error.strerror or str(error))
        return job

    def commit(self, key: str) -> None:
        """Make what was written since the last time last."""
        self._sink.commit(key)
        if self._table is not None:
            self._table.commit(key)

    def discard(self) -> None:
        """Forget what was written since the last commit."""
        self._sink.discard()
        if self._table is not None:
            self._table.discard()

    def _put(self, job: Job, path: str, image: Photo | bytes) -> None:
        began = time.perf_counter()
        data = image if isinstance(image, bytes) else write_photo(image, self._settings, path)
        encoded = time.perf_counter()
        where = self._sink.put(path, data, job.planned.item.path)
        job.times["encode_ms"] = job.times.get("encode_ms", 0.0) + (encoded - began) * 1e3
        job.times["write_ms"] = job.times.get("write_ms", 0.0) + (time.perf_counter() - encoded) * 1e3
        job.bytes_out += len(data)
        if job.output:
            job.also.append(where)
        else:
            job.output, job.sha256 = where, hashlib.sha256(data).hexdigest()

    def _copied(self, job: Job) -> Photo | bytes | None:
        """What is written of an input that stays as it is: its bytes, unless another format was asked for."""
        assert job.made is not None
        if job.made.copy is None or job.photo is None:
            return job.made.copy
        same = output_format(job.photo, self._settings, job.planned.output) == job.photo.format
        return job.made.copy if same else job.photo


def _payload(row: Mapping[str, Any]) -> int:
    """Bytes of the values of a table's row."""
    sizes = (len(v) if isinstance(v, bytes | str) else int(getattr(v, "nbytes", 8)) for v in row.values())
    return sum(sizes)
