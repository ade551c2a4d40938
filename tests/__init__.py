import pytest

pytest.register_assert_rewrite("tests.helpers")  # its failures are shown in full
