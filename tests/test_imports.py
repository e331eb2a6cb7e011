"""No file imports, by whatever way round, a file that imports it."""

from graphlib import TopologicalSorter

import pytest


def test_there_are_no_circles_of_imports_also_inside_functions_and_for_types():
    grimp = pytest.importorskip("grimp")  # comes with import-linter
    graph = grimp.build_graph("zoo_lightning", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # raises CycleError with the files of a circle
