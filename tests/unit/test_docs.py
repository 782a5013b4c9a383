"""The pages that are made from the code are up to date."""

from __future__ import annotations

import pytest

from ecan.testing import docs


@pytest.mark.parametrize("page", docs.PAGES, ids=lambda page: page.name)
def test_made_tables_are_up_to_date(page) -> None:
    """Run ``python -m ecan.testing.docs`` if this fails."""
    text = page.read_text("utf-8")

    assert text == docs.render(text)
    assert "<!-- made:" in text
