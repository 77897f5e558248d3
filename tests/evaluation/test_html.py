"""The page of a report."""

import os

from grncli.evaluation import html


def test_names_that_are_no_utf8_stand_as_escapes():
    name = os.fsdecode(b"\xff\xfe<b>.png")
    text = html.page(
        name, [html.paragraph(name), html.table([name], [[name]]), html.footer("grn", name, {"src": name})]
    )
    assert text.encode("utf-8").count(rb"\udcff\udcfe&lt;b&gt;.png") == 7
