"""What tests of temperatures share."""

from collections.abc import Iterator

import pytest
import transformers


@pytest.fixture(autouse=True)
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from advising on back ends, which the tests ask for on purpose."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)
