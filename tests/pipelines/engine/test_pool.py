from concurrent.futures import ThreadPoolExecutor

from pipelines.engine.pool import ProgressCounter


def test_reports_of_many_threads_add_up() -> None:
    progress = ProgressCounter()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(progress.report, [{"done": 1.0, "bytes_in": 10.0}] * 500))
    assert progress.counts() == {"done": 500.0, "bytes_in": 5000.0}


def test_a_report_is_answered_with_whether_to_stop() -> None:
    progress = ProgressCounter()
    assert not progress.report({})
    progress.stop()
    assert progress.report({"done": 1.0})
    assert progress.counts() == {"done": 1.0}
