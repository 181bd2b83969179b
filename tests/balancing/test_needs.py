import sys

import pytest

from recmoe.balancing.rules.imtl_g import IMTLGConfig
from recmoe.errors import StackError


def test_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)

    with pytest.raises(
        StackError, match=r"^model\.balancing: imtl_g needs torchjd \(.*\); pip install 'recmoe\[balancing\]'$"
    ):
        IMTLGConfig().build(num_tasks=2)
