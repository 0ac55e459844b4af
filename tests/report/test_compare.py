"""Models side by side: what is beside what, what is left out, and every form of the table."""

import csv
import math
import re
from html.parser import HTMLParser

import pytest

from foreloom.report.compare import compare
from foreloom.report.scores import write_rows
from foreloom.report.tables import parse_form, print_or_write


def rows(model, wql, mase=1.0):
    return [{"model": model, "task": task, "WQL": score, "MASE": mase} for task, score in wql.items()]


BASE = {"a_1": 0.4, "b": 0.2, "c": 0.5, "d": 1.0}


@pytest.fixture
def files(tmp_path):
    """Two models, each with the baseline, on four and on three tasks."""
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    write_rows(rows("ours", {"a_1": 0.2, "b": 0.2, "c": 1.0, "d": 0.5}) + rows("seasonal-naive", BASE), first)
    short = {task: score for task, score in BASE.items() if task != "d"}
    write_rows(rows("theirs", {"a_1": 0.1, "b": 0.3, "c": 0.25}) + rows("seasonal-naive", short), second)
    return [first, second]


def test_scores_relatives_means_and_wins(files):
    found = compare(files, metric="wql")
    table = found
    assert [column.name for column in table.columns] == [
        "Task",
        "ours",
        "theirs",
        "seasonal-naive",
        "ours relative",
        "theirs relative",
    ]
    assert table.rows[0] == ["a_1", 0.2, 0.1, 0.4, 0.5, 0.25]
    assert [row[0] for row in table.rows] == ["a_1", "b", "c"]
    average, geometric, against_base, against_ours, against_theirs = table.summary
    assert average[:4] == ["Average", pytest.approx(1.4 / 3), pytest.approx(0.65 / 3), pytest.approx(1.1 / 3)]
    assert geometric[4:] == [pytest.approx(1.0), pytest.approx((0.25 * 1.5 * 0.5) ** (1 / 3))]
    assert against_base[0] == "Wins against seasonal-naive"
    assert against_base[4:] == ["50.0 %", "66.7 %"], "one win, one tie, one loss; three tasks have no interval"
    assert (against_ours[0], against_ours[4]) == ("Wins against ours", None)
    assert against_ours[5] == "66.7 %"
    assert any("3 tasks tell nothing of others: an interval is given from 5 on." in note for note in found.notes)
    assert (against_theirs[5], str(against_theirs[4])[:6]) == (None, "33.3 %")
    assert "Left out, as not all have a score: d (not by theirs)." in found.notes
    assert found.title == "WQL of ours, theirs beside seasonal-naive on 3 tasks"


def test_any_model_may_be_the_baseline(files):
    table = compare(files[:1], baseline="ours")
    assert [column.name for column in table.columns] == ["Task", "seasonal-naive", "ours", "seasonal-naive relative"]
    assert table.rows[0][3] == pytest.approx(2.0)


def test_one_name_in_two_files(files, tmp_path):
    again = tmp_path / "again.csv"
    write_rows(rows("ours", BASE), again)
    names = [column.name for column in compare([files[0], again]).columns]
    assert names[1:3] == ["ours (first)", "ours (again)"]
    assert [c.name for c in compare([files[0], files[0]]).columns][1:3] == ["ours", "seasonal-naive"]
    write_rows(rows("ours", BASE, math.nan) + rows("seasonal-naive", BASE, math.nan), again)
    assert len(compare([again, again]).columns) == 4, "one model, whose MASE nobody knows, is not two"


def test_markdown_and_csv(files):
    found = compare(files)
    assert found.render("markdown").startswith(
        "### WQL of ours, theirs beside seasonal-naive on 3 tasks\n\n"
        "| Task | ours | theirs | seasonal-naive | ours relative | theirs relative |\n"
        "|:---|---:|---:|---:|---:|---:|\n"
        "| a_1 | 0.2000 | 0.1000 | 0.4000 | **0.5000** | **0.2500** |\n"
    )
    header, *body = csv.reader(found.render("csv").splitlines())
    assert header == [column.name for column in found.columns]
    assert [row[0] for row in body] == ["a_1", "b", "c"]


def test_latex_has_the_structure_that_compiles(files, tmp_path):
    odd = tmp_path / "odd.csv"
    write_rows(rows(r"50%_of{x}&y#1$^~\z", {**BASE, "a_1": 0.3}), odd)
    text = compare([*files, odd]).to_latex()
    lines = text.splitlines()
    begins = [line for line in lines if line.startswith((r"\begin", r"\end"))]
    assert begins == [r"\begin{table}", r"\begin{tabular}{lrrrrrrr}", r"\end{tabular}", r"\end{table}"]
    assert [line for line in lines if line.endswith("rule")] == [
        r"\toprule",
        r"\midrule",
        r"\midrule",
        r"\bottomrule",
    ]
    body = lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")]
    cells = [line for line in body if not line.endswith("rule")]
    assert len(cells) == 1 + 3 + 6
    for line in cells:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 7
    assert r"50\%\_of\{x\}\&y\#1\$\textasciicircum{}\textasciitilde{}\textbackslash{}z" in cells[0]
    source = "\n".join(line for line in lines if not line.startswith("%"))
    assert not re.findall(r"(?<!\\)[%#$^~]", source)
    unescaped = re.sub(r"\\[{}]", "", source)
    assert unescaped.count("{") == unescaped.count("}")
    assert not re.findall(r"(?<!\\)_", source)
    assert re.search(r"\\label\{tab:[a-z0-9-]+\}", source)


class Structure(HTMLParser):
    """Open elements, rows of cells, and everything that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.fetched = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "wbr", "img", "link"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.fetched += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_html_stands_alone(files, tmp_path, capsys):
    write_rows(rows("<b>&", BASE), tmp_path / "odd.csv")
    out = tmp_path / "table.html"
    print_or_write(compare([*files, tmp_path / "odd.csv"]), None, out)
    assert capsys.readouterr().out == f"wrote {out}\n"
    structure = Structure()
    structure.feed(out.read_text())
    assert not structure.open and not structure.fetched
    assert structure.rows[0][3] == "<b>&"
    assert structure.rows[1][:2] == ["a_1", "0.2000"]


def test_the_form_is_that_of_the_file_or_as_named(files, tmp_path, capsys):
    found = compare(files)
    print_or_write(found, None, tmp_path / "t.tex")
    assert r"\toprule" in (tmp_path / "t.tex").read_text()
    print_or_write(found, "csv", tmp_path / "t.txt")
    assert (tmp_path / "t.txt").read_text().startswith("Task,ours,")
    print_or_write(found, "csv", None)
    with pytest.raises(ValueError, match="--out .* is read, and nothing is written over it"):
        print_or_write(found, None, files[0], files)
    assert "Task,ours,theirs" in capsys.readouterr().out
    print_or_write(found, None, None)
    shown = capsys.readouterr().out
    assert "Geometric mean" in shown and "Left out" in shown
    with pytest.raises(ValueError, match=r"t.txt: a table's name ends in .md, .tex, .csv, .html"):
        print_or_write(found, None, tmp_path / "t.txt")
    with pytest.raises(ValueError, match="--format 'pdf': expected markdown, latex, csv, html"):
        parse_form("pdf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"x.csv: not a table of scores, which has columns model, task, WQL, MASE"),
        ("", r"x.csv: not a table of scores"),
        ("model,task,WQL\n", r"x.csv: the table has no rows"),
        ("model,task,WQL\nm,t,0.1\nm,u,high\n", r"x.csv:3: WQL is 'high', a number is wanted"),
        ("model,task,WQL\nm,t,0.1\nm,u,-0.1\n", r"x.csv:3: WQL is -0.1, and no error is below 0"),
        ("model,task,WQL\nm,t,0.1\nm,t,0.1\n", r"x.csv:3: task 't' of model 'm' is there twice"),
        ("model,task,WQL\nm,t,0.1\nm\n", r"x.csv:3: the row ends early"),
        (b"\xff\xfe\x00model", r"x.csv: not a CSV file"),
    ],
)
def test_files_that_are_no_scores(tmp_path, text, message):
    file = tmp_path / "x.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        compare([file])


def test_names_that_are_not_there_get_the_nearest(files, tmp_path):
    with pytest.raises(ValueError, match=r"first.csv: no metric 'MAS'. Did you mean MASE\? It has WQL, MASE"):
        compare(files, metric="MAS")
    with pytest.raises(ValueError, match=r"baseline 'seasonal_naive' is in none of .* Did you mean seasonal-naive\?"):
        compare(files, baseline="seasonal_naive")
    write_rows(rows("seasonal-naive", BASE), tmp_path / "alone.csv")
    with pytest.raises(ValueError, match=r"alone.csv: seasonal-naive stands alone"):
        compare([tmp_path / "alone.csv"])
    write_rows(rows("other", {"z": 1.0}), tmp_path / "other.csv")
    with pytest.raises(ValueError, match=r"no task has a WQL of every model: a_1 \(not by other\);"):
        compare([files[0], tmp_path / "other.csv"])


def test_baselines_that_disagree_are_not_the_same_tasks(files, tmp_path):
    write_rows(rows("theirs", BASE) + rows("seasonal-naive", {**BASE, "b": 0.21}), tmp_path / "moved.csv")
    with pytest.raises(ValueError, match=r"seasonal-naive has WQL 0.21 on 'b', but 0.2 in .*first.csv. The"):
        compare([files[0], tmp_path / "moved.csv"])
