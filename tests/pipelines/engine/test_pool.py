from concurrent.futures import ThreadPoolExecutor

from pipelines.engine.pool import ProgressCounter


def test_reports_of_many_threads_add_up() -> None:
    board = ProgressCounter()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(board.report, [{"done": 1.0, "bytes_in": 10.0}] * 500))
    assert board.counts() == {"done": 500.0, "bytes_in": 5000.0}


def test_a_report_is_answered_with_whether_to_stop() -> None:
    board = ProgressCounter()
    assert not board.report({})
    board.stop()
    assert board.report({"done": 1.0})
    assert board.counts() == {"done": 1.0}
