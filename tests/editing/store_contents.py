"""What the samples of a store are, whatever their numbers."""

from small_stores import tree

from grncli.store import open_store


def contents(path):
    """Bits, label, columns and line of each sample by its part and key."""
    store, found = open_store(path), {}
    for grid in store.grids:
        view = store.grid(grid)
        columns = {name: view.column(name) for name in store.columns}
        for row, index in enumerate(view.indices.tolist()):
            sample, line = store[index], store.record(index)
            assert (sample.bits == view.read([row])[0]).all()
            named = {name: value for name, value in line.items() if name != "row"}
            numbers = {name: values[row].item() for name, values in columns.items()}
            found[store.place_of(index)[0], line["key"]] = (sample.bits.tobytes(), sample.label, numbers, named)
    return found


def changed_files(before, path):
    """Names of files that are not as in ``before``, a tree of the same folder."""
    after = tree(path)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
