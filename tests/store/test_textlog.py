"""Lines of a log, encoded one by one or many at once."""

from hypothesis import given
from hypothesis import strategies as st

from grncli.store.textlog import encode_line, encode_lines

values = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(['}, {"grid": ', '}, {\\"grid\\": ', "\n", "caf\udce9"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["grid", "row", "key"]), inner),
    max_leaves=6,
)
records = st.builds(lambda grid, more: {"grid": grid, **more}, values, st.dictionaries(st.text(), values, max_size=3))


@given(st.lists(records.filter(lambda record: next(iter(record)) == "grid"), min_size=1, max_size=5))
def test_many_lines_at_once_are_the_lines_one_by_one(batch):
    assert encode_lines(batch, first="grid") == b"".join(map(encode_line, batch))
