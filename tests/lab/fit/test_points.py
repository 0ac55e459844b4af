"""CSVs of points: columns under many names, D from C, and rows that are no runs."""

from __future__ import annotations

import pytest

from foreloom.lab.fit.points import read_points


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "points.csv"
        path.write_text(text)
        return path

    return write


def test_names_of_columns_and_what_is_made_of_them(table):
    points = read_points(table("Model Size,Training FLOP,loss\n1e6,1.2e14,3.0\n2e6,2.4e14,2.5\n"))
    assert points.D_P.tolist() == [2e7, 2e7] and points.labels == ("line 2", "line 3")
    assert points.notes[0] == "D is C / 6N, of columns 'Training FLOP' and 'Model Size'."
    named = read_points(table("width,n,tok,x\n8,1e6,2e7,3.0\n"), {"N": "n", "D": "tok", "L": "x"})
    assert (named.C_P[0], named.L_P[0]) == (1.2e14, 3.0)
    counted = read_points(table("N,D,C,L\n1e6,2e7,2.4e14,3.0\n"))
    assert "2 to 2 times 6ND; the best sizes of approaches 1 and 2 are for such a C" in counted.notes[0]


def test_rows_of_one_run_are_one_observation(table):
    points = read_points(table("run,N,D,L\na,1e6,1e7,4\na,1e6,2e7,3\nb,2e6,2e7,2.5\nb,2e6,1e7,2.9\nc,3e6,1e7,\n"))
    assert points.labels == ("a", "b") and points.L_P.tolist() == [3, 2.5]
    assert any("1 without a finite loss left out: c." in note for note in points.notes)
    rows = "\n".join(f"1e6,{k}e6,{9 / k + 2}" for k in range(1, 30))
    with pytest.raises(ValueError, match="29 rows of N = 1e.06 stand at equal distances of D: those of one training"):
        read_points(table(f"N,D,L\n{rows}\n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "no column for N, L, D or C; there are a, b. Name them with --columns"),
        ("N,D,L\n1e6,x,3\n", "points.csv:2: 'x' in column 'D' is not a number"),
        ("N,C,L\n1e6,2e17,3\n0,2e17,3\n", "points.csv:3: N must be a positive number, found 0"),
        ("", "no column for N, L, D or C; there are none. Name them"),
        ("N,D,L\n", "points.csv: no row below the header"),
        ("N,D,L\n1e6,2e7,3\n-5,2e7,3\n", "points.csv:3: N must be a positive number, found -5"),
        ("N,D,C,L\n1e6,2e7,1e14,3\n1e6,2e7,,3\n", "points.csv:3: C must be a positive number, found nan"),
    ],
)
def test_sentences(table, text, sentence):
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        read_points(table(text))


def test_a_column_that_is_not_there(table):
    with pytest.raises(ValueError, match="no column 'params' for N; there are N, D, L"):
        read_points(table("N,D,L\n1,2,3\n"), {"N": "params"})
