"""The option that turns fast products off."""

import pytest

from grncli import cli
from grncli.models import products


@pytest.mark.parametrize(("options", "expected"), [([], []), (["--plain-products"], [False])], ids=["fast", "plain"])
def test_products_are_plain_on_request(monkeypatch, tmp_path, options, expected):
    asked = []
    monkeypatch.setattr(products, "use", lambda *, fast: asked.append(fast))
    cli._run([*options, "info", str(tmp_path / "nothing")])
    assert asked == expected
