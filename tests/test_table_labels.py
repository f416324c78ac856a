"""Labels, headers and cells of tables: each text is itself, no row is lost, and advice fits the defect."""

import warnings

import numpy as np
import pytest

from vaejax import data
from vaejax.data.dialect import find_delimiter
from vaejax.report.options import Check, file_options

ALL = (1.0, 0.0, 0.0)


@pytest.fixture
def load(tmp_path):
    def load(content, name="table.csv", **options):
        """x, codes and class names in the order of the file, and what was warned of."""
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            dataset = data.load(path, split=ALL, **options)
        order = np.argsort(dataset.rows["train"])
        labels = None if dataset.labels is None else dataset.labels["train"][order].tolist()
        mask = None if dataset.train.mask is None else dataset.train.mask[order]
        return dataset, dataset.train.x[order], mask, labels, [str(remark.message) for remark in remarks]

    return load


@pytest.mark.parametrize(
    "labels",
    [
        ("01", "1", "1.0", "1e0"),
        ("1", "1.0", "+1", "01"),
        ("True", "TRUE", "true"),
        ("north", " north", "north "),
        ("9007199254740992", "9007199254740993", "9007199254740994"),
        ("18446744073709551616", "18446744073709551617"),
        ("2020-01-02", "2020-1-2"),
        ("é", "e\u0301"),
        ("a  b", "a b"),
        ("x" * 300 + "1", "x" * 300 + "2"),
        ("-9", "-9.0"),
        ("0x10", "16"),
        ("inf", "Infinity"),
        ("1_0", "10"),
    ],
)
def test_other_texts_are_other_classes(load, labels):
    written = [*labels, *reversed(labels)]
    content = "group,a\n" + "".join(f'"{label}",{i}\n' for i, label in enumerate(written))
    dataset, x, _, codes, _ = load(content, labels="group")
    # Exactly the texts of the file: each class has its text, and each row its class.
    assert set(dataset.label_names) == set(labels)
    assert len(dataset.label_names) == len(labels)
    assert [dataset.label_names[code] for code in codes] == written
    assert x[:, 0].tolist() == list(range(len(written)))


def test_labels_that_look_alike_are_remarked(load):
    said = load("g,a\nTrue,1\nTRUE,2\nb,3\n", labels="g")[4]
    assert len(said) == 1
    assert "labels 'TRUE' and 'True' are different classes" in said[0]
    assert "correct one" in said[0]
    assert "numeric_labels=True" in load("g,a\n01,1\n1,2\n", labels="g")[4][0]
    assert load("g,a\nnorth,1\nsouth,2\n10,3\n9,4\n", labels="g")[4] == []


def test_labels_declared_numeric_are_compared_without_rounding(load):
    rows = ("01", "1", "1.0", "1e0", "9007199254740992", "9007199254740993", "9007199254740993.0", "-0", "0")
    content = "g,a\n" + "".join(f"{label},{i}\n" for i, label in enumerate(rows))
    dataset, _, _, codes, said = load(content, labels="g", numeric_labels=True)
    assert dataset.label_names == ("-0", "01", "9007199254740992", "9007199254740993")
    assert codes == [1, 1, 1, 1, 2, 3, 3, 0, 0]
    assert said == []
    with pytest.raises(data.DataFileError, match="line 3: the label 'red' is no number; leave numeric_labels=True out"):
        load("g,a\n1,1\nred,2\n", labels="g", numeric_labels=True)
    with pytest.raises(ValueError, match="numeric_labels=True needs labels="):
        load("g,a\n1,1\n2,2\n", numeric_labels=True)
    with pytest.raises(TypeError, match="numeric_labels= must be one of False, True, got 1"):
        load("g,a\n1,1\n", labels="g", numeric_labels=1)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2**53, 2**53 + 1, 2**53 + 2, 2**53 + 1]),
        np.array([2**64 - 1, 2**64 - 2, 0, 2**64 - 1], np.uint64),
        np.array(["01", "1", "1.0", "01"]),
        np.array([0.5, 1.0, 1.5, 0.5]),
        np.array([True, False, True, True]),
    ],
)
def test_labels_of_archives_stay_distinct(tmp_path, labels):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(8).reshape(4, 2), labels=labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = data.load(path, split=ALL, labels="labels")
    order = np.argsort(dataset.rows["train"])
    names = [dataset.label_names[code] for code in dataset.labels["train"][order]]
    assert names == [str(value) for value in labels.tolist()]


def test_labels_of_parts_do_not_meet_in_float64(tmp_path):
    path = tmp_path / "a.npz"
    parts = {"train": np.eye(4), "test": np.eye(4)[:2]}
    train = np.array([2**53, 2**53 + 1, 5, 6], np.int64)
    np.savez(path, **parts, train_y=train, test_y=np.array([2**63, 2**63 + 1], np.uint64))
    dataset = data.load(path, labels="y", split=ALL)
    assert dataset.label_names == tuple(map(str, [5, 6, 2**53, 2**53 + 1, 2**63, 2**63 + 1]))
    np.savez(path, **parts, train_y=train, test_y=np.array(["5", "6"]))
    with pytest.raises(data.DataFileError, match="some of train_y, test_y hold text and others numbers"):
        data.load(path, labels="y", split=ALL)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("g,a\nNA,1\nb,2\n", {}, r"line 2, column 'g' is a missing label.*without 'NA' reads it as a class"),
        ("g,a\n,1\nb,2\n", {}, "line 2, column 'g' is a missing label; remove the row or label it$"),
        ("g,a\n  ,1\nb,2\n", {"missing": "?"}, "line 2, column 'g' is a missing label"),
        ("g,a\n-9.00,1\nb,2\n", {"missing": ("", "-9")}, "line 2, column 'g' is a missing label"),
        ("g,a\nb,1\n -9,2\n", {"missing": ("", "-9.0")}, "line 3, column 'g' is a missing label"),
    ],
)
def test_missing_labels(load, content, options, message):
    with pytest.raises(data.DataFileError, match=message):
        load(content, labels="g", **options)


def test_na_can_be_a_class(load):
    dataset, _, _, codes, _ = load("g,a\nNA,1\nDE,2\n", labels="g", missing=("",))
    assert (dataset.label_names, codes) == (("DE", "NA"), [1, 0])


def test_several_columns_of_labels_are_refused(load):
    with pytest.raises(TypeError, match=r"labels= must be text, got \('g', 'h'\); write one name"):
        load("g,h,a\n1,2,3\n", labels=("g", "h"))


@pytest.mark.parametrize(
    ("first", "columns"),
    [
        ("N/A,2", 2),
        ("1,?x", 2),
        (",b", 2),
        ("2019,count", 2),
        ("n/a,N/A", 2),
        ("-,--", 2),
        ("0.5,n0,", 3),
        ("#N/A,1e5", 2),
    ],
)
def test_a_first_row_in_doubt_is_never_lost_without_a_word(load, first, columns):
    content = f"{first}\n" + "".join(",".join(str(i + j) for j in range(columns)) + "\n" for i in (3, 5))
    cells = first.split(",")
    if "" in cells:
        with pytest.raises(data.DataFileError, match=r"has no name in the header.*header=False reads the first row"):
            load(content)
    else:
        dataset, x, _, _, said = load(content)
        assert (dataset.columns, len(x), len(said)) == (tuple(cells), 2, 1)
        assert "line 1 was taken for the header" in said[0]
        # The row is shown, and what to do.
        assert all(repr(cell) in said[0] for cell in cells)
        assert "header=False reads it as an example" in said[0]
    text = tuple(cell for cell in cells if not cell.replace(".", "").replace("e", "").isdigit())
    dataset, x, mask, _, said = load(content, header=False, missing=(*data.MISSING, *text), empty_rows="drop")
    empty = len(text) == len(cells)  # a row without any value
    assert dataset.columns is None
    assert len(x) == (2 if empty else 3)
    assert (mask is None) == empty
    if all(cells):
        dataset, x, _, _, said = load(content, header=True)
        assert (dataset.columns, len(x), said) == (tuple(cells), 2, [])


def test_a_header_of_numbers(load):
    content = "2019,2020,2021\n1.5,2.5,3.5\n4.5,5.5,6.5\n"
    dataset, x, _, _, said = load(content)
    assert len(x) == 3
    assert "may hold names of columns: '2019', '2020', '2021'; header=True reads it as names" in said[0]
    dataset, x, _, _, said = load(content, header=True)
    assert (dataset.columns, x.tolist(), said) == (("2019", "2020", "2021"), [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]], [])
    # As data frames without names are written.
    assert len(load("0,1,2\n7,8,9\n")[4]) == 1
    # Nothing is in doubt here.
    assert (
        load("0,1\n7,8\n")[4]
        == load("1,2,3\n7,8,9\n")[4]
        == load("3,1,2\n7,8,9\n")[4]
        == load("a,b,c\n7,8,9\n")[4]
        == []
    )
    assert load(content, header=False)[4] == []


def test_a_header_that_is_declared_absent(load):
    with pytest.raises(data.DataFileError, match="line 1, column 1 is no number: 'a'"):
        load("a,b\n1,2\n", header=False)
    dataset, x, _, codes, _ = load("north,1,0.5\nsouth,2,0.25\n", header=False, labels="x_0")
    assert (dataset.columns, dataset.label_names, codes) == (("x_1", "x_2"), ("north", "south"), [0, 1])
    assert x.tolist() == [[1, 0.5], [2, 0.25]]
    with pytest.raises(
        data.DataFileError, match="labels='g' names no column; put names in the first row, or name columns x_0"
    ):
        load("north,1\nsouth,2\n", header=False, labels="g")
    with pytest.raises(TypeError, match="header= must be one of None, False, True, got 0"):
        load("1,2\n", header=0)
    with pytest.raises(ValueError, match=r"header= does not apply to a \.npy file"):
        load(b"", name="x.npy", header=False)


def test_the_flags_of_the_command_line(tmp_path):
    assert file_options(Check("t.csv", no_header=True)) == {"header": False}
    assert file_options(Check("t.csv", header=True, numeric_labels=True)) == {"header": True, "numeric_labels": True}
    assert file_options(Check("t.csv", missing=("-9",), labels="g")) == {
        "labels": "g",
        "missing": (*data.MISSING, "-9"),
    }
    with pytest.raises(ValueError, match="--header and --no-header exclude each other"):
        file_options(Check("t.csv", header=True, no_header=True))


@pytest.mark.parametrize("token", ["-9", "-9.0", "-9.00", " -9", "-9e0", "-009"])
def test_numbers_for_missing_match_in_every_spelling(load, token):
    cells = ("-9", "-9.0", "-9.00", " -9", "-9e0", "-0.9e1", "-09")
    content = "a,b\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)) + "7,-90\n8,9\n9,-9.5\n"
    _, x, mask, _, said = load(content, missing=(*data.MISSING, token))
    assert mask[:, 1].tolist() == [False] * len(cells) + [True] * 3
    assert x[:, 1].tolist() == [0] * len(cells) + [-90, 9, -9.5]
    assert mask[:, 0].all()
    assert said == []
    # Also where other cells are text for missing values, which are read one by one.
    _, _, mask, _, _ = load(content + "-9.000,NA\n", missing=("NA", token), empty_rows="drop")
    assert (~mask).sum() == len(cells)
    _, _, mask, _, _ = load(content + "7,NA\n", missing=("NA", token))
    assert (~mask).sum() == len(cells) + 1


@pytest.mark.parametrize(("token", "cell"), [("inf", "Infinity"), ("NaN", "NAN"), ("nan", "-nan"), ("1e999", "inf")])
def test_other_spellings_of_what_is_no_finite_number(load, token, cell):
    _, x, mask, _, said = load(f"a,b\n1,{cell}\n2,3\n", missing=("", token))
    assert (x.tolist(), mask.tolist(), said) == ([[1, 0], [2, 3]], [[True, False], [True, True]], [])


@pytest.mark.parametrize(
    ("content", "name", "advice"),
    [
        ('a,b\n"1,234",2\n', "t.csv", "remove the thousands separators, or write decimals with a point if the comma"),
        ('a,b\n"1,234,567",2\n', "t.csv", "remove the thousands separators$"),
        ('a,b\n"1,234.5",2\n', "t.csv", "remove the thousands separators$"),
        ("a;b\n1.234,5;2\n", "t.csv", "write decimals with a point and remove the thousands separators$"),
        ("a;b\n1.234.567;2\n", "t.csv", "remove the thousands separators$"),
        ("a;b\n1'234;2\n", "t.csv", "remove the thousands separators$"),
        ("a;b\n1\u202f234;2\n", "t.csv", "remove the thousands separators$"),
        ("a\n1 234\n", "t.csv", "remove the thousands separators, or say delimiter=' '"),
        ("a;b\n2,5;1\n", "t.csv", "write decimals with a point$"),
        ("1,5;2,5\n3,5;4,5\n", "t.csv", "write decimals with a point$|'1,5'"),
        ("a\n2,5\n", "t.tsv", "write decimals with a point$"),
        (
            "a,b\n1,2\n",
            "t.tsv",
            r"ends in .tsv, and its first row has no tab; say delimiter=','.*or write decimals with a point",
        ),
        ("a;b\n1;2\n", "t.tsv", r"say delimiter=';' if that separates the cells$"),
        ("a\n1:2\n", "t.csv", "say delimiter=':'"),
        ("a b\n1 2\n", "t.csv", "say delimiter=' '"),
        ("a,b\n1,50%\n", "t.csv", "write the number alone, without a unit"),
        ("a,b\n1,$5\n", "t.csv", "write the number alone, without a unit"),
        ("a,b\n1,True\n", "t.csv", "write 1 and 0 for true and false"),
        ("a,b\n1,n/a\n", "t.csv", "list it in missing='n/a' if it stands for a missing value"),
        ("a,b\n1,tall\n", "t.csv", "name a column of text as labels=, leave it out"),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv", "is UTF-16 text; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "t.csv", "is UTF-16 text; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-be"), "t.csv", "is UTF-16 text; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-32"), "t.csv", "is UTF-32 text; save it as UTF-8"),
        ("größe,b\n1,2\n".encode("latin-1"), "t.csv", "line 1: a byte that is not UTF-8 text.*Latin-1 or Windows-1252"),
        (b"PK\x03\x04rest", "t.csv", "a spreadsheet's own format; save it as CSV"),
        (b"\x1f\x8brest", "t.csv", "compressed by gzip; unpack it"),
    ],
)
def test_advice_fits_the_defect(load, content, name, advice):
    with pytest.raises(data.DataFileError, match=advice):
        load(content, name)


@pytest.mark.parametrize(
    ("content", "name", "columns", "x"),
    [
        ("sep=;\na;b\n1;2\n3;4\n", "t.csv", ("a", "b"), [[1, 2], [3, 4]]),
        ("\ufeffsep=\t\r\na\tb\r\n1\t2\r\n", "t.csv", ("a", "b"), [[1, 2]]),
        ('"sep=|"\na|b\n1|2\n', "t.csv", ("a", "b"), [[1, 2]]),
        ("SEP=,\n1,2\n", "t.csv", None, [[1, 2]]),
        ("a|b\n1|2\n", "t.csv", ("a", "b"), [[1, 2]]),
        ("a|b\n1|2\n", "t.txt", ("a", "b"), [[1, 2]]),
        ("a\tb\n1\t2\n", "t.csv", ("a", "b"), [[1, 2]]),
        ("weight, kg;height, cm\n1;2\n3;4\n", "t.csv", ("weight, kg", "height, cm"), [[1, 2], [3, 4]]),
        ("weight, kg\theight, cm\n1\t2\n", "t.tsv", ("weight, kg", "height, cm"), [[1, 2]]),
        ("weight, kg\n1\n2\n", "t.tsv", ("weight, kg",), [[1], [2]]),
        ('"a;b","c|d"\n1,2\n', "t.csv", ("a;b", "c|d"), [[1, 2]]),
        ("a;1,b\n1,2\n3,4\n", "t.csv", ("a;1", "b"), [[1, 2], [3, 4]]),
    ],
)
def test_delimiters(load, content, name, columns, x):
    dataset, values, _, _, said = load(content, name)
    assert (dataset.columns, values.tolist(), said) == (columns, x, [])


def test_lines_are_counted_with_the_line_that_names_the_delimiter(load):
    with pytest.raises(data.DataFileError, match="line 4, column 'b' is no number: 'x'"):
        load("sep=;\na;b\n1;2\n3;x\n")
    # The argument wins.
    assert load("sep=;\na,b\n1,2\n", delimiter=",")[1].tolist() == [[1, 2]]


def test_the_delimiter_with_most_numbers(tmp_path):
    path = tmp_path / "t.csv"
    assert find_delimiter("1,5;2,5\n3,5;4,5\n", path) == ";"
    assert find_delimiter("1,2,a;b\n3,4,c;d\n", path) == ","
    assert find_delimiter("1\n2\n", path) == find_delimiter("", path) == ","
