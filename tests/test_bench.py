"""bench/: what is kept of a run, and the tables and plots that are made of it."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FACTS = {
    "CPU": "A CPU",
    "cores": 2,
    "instructions": "AVX2, no AMX",
    "torch": "2.10",
    "numpy": "2.0",
    "scikit-learn": "1.6",
}


@pytest.fixture
def bench(monkeypatch):
    """Scripts of bench/ import one another by name."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    yield lambda name: __import__(name)
    for name in ("compare", "tables", "plots"):
        sys.modules.pop(name, None)


def case(name, ours, peer, **more):
    times = {"unit": "s", "ours": ours, "peer": peer, "peer_name": "scikit-learn"}
    return {"case": name, "target_ratio": None, "target_limit": None, **times, **more}


def run(path, *cases, facts=FACTS):
    """A file as pytest-benchmark writes it."""
    text = {
        "machine_info": {"facts": facts | {"load before": "0.1"}},
        "benchmarks": [{"extra_info": extra} for extra in (*cases, {})],
    }
    path.write_text(json.dumps(text))
    return path


def test_new_cases_replace_old_ones_of_the_machine(bench, tmp_path):
    compare, kept = bench("compare"), tmp_path / "results" / "machine.json"
    first = run(tmp_path / "first", case("a", [0.12345678], [1]), case("b", [3], [9]))
    compare.keep(compare.measured(first), kept)
    second = run(tmp_path / "second", case("a", [0.5], [1]))
    compare.keep(compare.measured(second), kept)
    result = json.loads(kept.read_text())
    assert result["facts"] == FACTS
    assert {name: value["ours"] for name, value in result["cases"].items()} == {
        "a": [0.5],
        "b": [3],
    }
    assert result["cases"]["a"]["load before"] == "0.1"
    assert compare.measured(first)["cases"]["a"]["ours"] == [0.1235]


def test_results_of_other_versions_are_kept_apart(bench, tmp_path):
    compare, kept = bench("compare"), tmp_path / "kept" / "machine.json"
    compare.keep(compare.measured(run(tmp_path / "run", case("a", [1], [1]))), kept)
    before = kept.read_text()
    facts = FACTS | {"torch": "2.11"}
    other = run(tmp_path / "run", case("a", [2], [1]), facts=facts)
    compare.keep(compare.measured(other), kept)
    assert kept.read_text() == before
    (beside,) = set(kept.parent.iterdir()) - {kept}
    assert beside.name.startswith("machine-2")
    assert json.loads(beside.read_text())["facts"] == facts


def test_table(bench):
    """Medians, their ratio, and the machine; what is not the table's own is left as it is."""
    tables = bench("tables")
    cases = [
        case("GaussianBayes fit", [0.001, 0.002, 0.003], [0.03, 0.04, 0.05], date="2026-01-01"),
        case("EM iteration, diag", [1], [2], date="2026-01-02"),
    ]
    results = [{"facts": FACTS, "cases": {value["case"]: value for value in cases}}]
    page = "before\n<!-- bench: bayes -->\nold\n<!-- /bench -->\nafter\n"
    new = tables.written(page, results)
    assert "| GaussianBayes fit | 2.0 ms | 40.0 ms | scikit-learn | 20.0 | 14.00-30.00 |" in new
    assert "A CPU, 2 cores (AVX2, no AMX)" in new
    assert "2026-01-01. " in new
    assert "`python bench/compare.py -k bench_bayes`" in new
    assert "EM" not in new
    assert "old" not in new
    assert new.startswith("before\n<!-- bench: bayes -->\n")
    assert new.endswith("\n<!-- /bench -->\nafter\n")
    assert tables.written(new, results) == new
    with pytest.raises(SystemExit, match="no table 'other': expected one of summary"):
        tables.written("<!-- bench: other -->\n<!-- /bench -->", results)


def test_table_without_results(bench):
    page = "<!-- bench: bayes -->\n<!-- /bench -->"
    assert "No results are kept; `python bench/compare.py -k" in bench("tables").written(page, [])


def test_link_of_a_plot_that_there_is(bench):
    page = "<!-- bench: growth of EM -->\n<!-- /bench -->"
    tables = bench("tables")
    scaling = {"what": "EM iteration, diag", "axis": "N", "value": 10}
    results = [{"facts": FACTS, "cases": {"a": case("a", [1], [1], scaling=scaling)}}]
    assert "(figures/scaling-em.svg)" in tables.written(page, results)
    assert "No results are kept" in tables.written(page.replace("EM", "sampling"), results)


def test_plots_are_repeatable(bench, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason='plots need pip install "pygen[plots]"')
    plots = bench("plots")
    cases = {}
    for what, axis, values in (
        ("EM iteration, diag", "N", (100, 1000)),
        ("EM iteration, full", "D", (16, 64)),
        ("generator", "batch", (1, 16)),
    ):
        for value in values:
            scaling = {"what": what, "axis": axis, "value": value}
            times = [value * 1e-5, value * 1.1e-5], [value * 3e-5, value * 4e-5]
            cases[f"{what} {value}"] = case("", *times, scaling=scaling)
    monkeypatch.setattr(plots, "kept", lambda: [{"facts": FACTS, "cases": cases}])
    drawn = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        monkeypatch.setattr(sys, "argv", ["plots.py", str(folder)])
        plots.main()
        drawn.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert sorted(drawn[0]) == ["scaling-em.svg", "scaling-generator.svg"]
    assert drawn[0] == drawn[1]
    assert max(map(len, drawn[0].values())) < 100_000
