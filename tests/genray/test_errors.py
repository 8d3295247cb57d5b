import pickle

from genray import errors


def test_an_error_says_what_where_and_what_next() -> None:
    error = errors.DataError("no pairs", where="data.path", hint="make some")
    assert str(error) == "no pairs\n  where: data.path\n  next:  make some"


def test_a_bundle_that_cannot_be_used_always_comes_with_what_to_do_next() -> None:
    for kind in (errors.BundleUnknown, errors.BundleMismatch, errors.BundleUnsafe):
        assert "\n  next:  " in str(kind("wrong"))
    assert errors.BundleMismatch("wrong", hint="do this").hint == "do this"


def test_an_error_survives_the_way_between_processes() -> None:
    error = errors.Diverged("NaN", where="step 3", hint="lower the rate")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (what Ray does between its own processes)
    assert type(copy) is errors.Diverged
    assert str(copy) == str(error)


def test_the_exit_code_tells_wrong_usage_from_failure() -> None:
    usage = {errors.SettingsError, errors.DataError, errors.ResourceError, errors.RunError}
    usage |= {errors.BundleMissing, errors.BundleMismatch}
    assert {kind.exit_code for kind in usage} == {2}
    assert {kind.exit_code for kind in (errors.ClusterError, errors.Diverged, errors.StorageFull)} == {1}
    assert errors.Interrupted.exit_code == 130


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.GenrayError)]
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)
