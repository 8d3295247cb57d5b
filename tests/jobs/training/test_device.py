from pathlib import Path

import pytest

from jobs.training.device import DeviceSettings, open_device


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the CPU's features are listed on Linux")
def test_a_cpu_trains_in_bf16_where_that_is_fast_and_the_recipe_allows_it() -> None:
    has_amx = "amx_bf16" in Path("/proc/cpuinfo").read_text()
    automatic, full = DeviceSettings(threads=1), DeviceSettings(threads=1, precision="fp32")
    assert open_device(automatic, gpu=False, bf16_on_cpu=True).bf16 == has_amx
    assert not open_device(automatic, gpu=False).bf16
    assert not open_device(full, gpu=False, bf16_on_cpu=True).bf16
