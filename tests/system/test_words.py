"""Numbers in words."""

import pytest

from lcbench.system.words import gib, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_940, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (22_716_000_000, "22.7 GB"),
        (1_234_567_000_000_000, "1,234.6 TB"),
    ],
)
def test_bytes_in_powers_of_ten(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0.0, "0"),
        (0.00001234, "0.000012"),
        (0.554, "0.55"),
        (1.0, "1"),
        (12.34, "12.3"),
        (80.0, "80"),
        (999.9, "1,000"),
        (1511.0, "1,510"),
        (123456.0, "123,000"),
    ],
)
def test_memory_has_no_exponent(amount: float, written: str) -> None:
    assert gib(amount) == written
