"""Names that others chose cannot do harm where they are written."""

import csv
import html.parser
import io

import pytest

from kdjax.results import text

ORDINARY = (
    "dense residential",
    "Wald & Flur",
    "été/forêt",
    "森林",
    "كرم",
    "क्षेत्र",
    "👩‍🌾",
    "a < b",
    "kl_cosine",
    "AT&T",
    "3*",
)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay(name):
    assert text.printable(name) == name and text.cell(name) == name


@pytest.mark.parametrize(
    "name", ["AnnualCrop", "kl_cosine", "a < b", "Wald & Flur", "80.00 ± 2.65", "(n - 1)", "<0.001"]
)
def test_ordinary_text_stays_in_markdown(name):
    assert text.markdown(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\tc\rd\0e\x7f\x9b", "a\\nb\\tc\\rd\\x00e\\x7f\\x9b"),
        ("png\u202egnp.exe", "png\\u202egnp.exe"),
        ("a\u2028b\u2069", "a\\u2028b\\u2069"),
        ("\udcff.png", "\\udcff.png"),
        ("a\uffffb\ufffe\ufdd0\U0010ffff", "a\\uffffb\\ufffe\\ufdd0\\U0010ffff"),
        ("\ufeff\u0378\ufffd\ue000 stay", "\ufeff\u0378\ufffd\ue000 stay"),
    ],
)
def test_what_cannot_be_seen_is_shown(name, shown):
    assert text.printable(name) == shown
    assert shown.encode("utf-8")
    assert text.markdown(name).replace("\\\\", "\\").replace("\\[", "[") == shown.replace("\\[", "[")


def test_line_breaks_stay_where_they_are_wanted():
    assert text.printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
def test_no_field_of_a_csv_is_a_formula(name):
    buffer = io.StringIO()
    csv.writer(buffer).writerow([text.cell(name), text.cell(-0.5), text.cell(None), text.cell(3)])
    buffer.seek(0)
    (row,) = csv.reader(buffer)
    assert row[0][0] == "'" and row[0][1:] == text.printable(name)
    assert row[1:] == ["-0.5", "", "3"]  # numbers are numbers


class Tags(html.parser.HTMLParser):
    def __init__(self, content):
        super().__init__()
        self.found = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)

    def handle_comment(self, data):
        self.found.append("comment")

    def handle_decl(self, data):
        self.found.append("declaration")

    def handle_pi(self, data):
        self.found.append("instruction")

    def handle_entityref(self, name):
        self.found.append(name)


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "</td><b>", "<!-- x -->", "<?php ?>", "<!DOCTYPE x>"],
)
def test_markdown_holds_no_html(name):
    assert Tags(name).found or "</" in name
    written = text.markdown(name)
    assert not Tags(written).found and "<" not in written.replace("&lt;", "").replace("\\<", "")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("[a](http://b)", "\\[a\\](http://b)"),
        ("![a](b)", "!\\[a\\](b)"),
        ("a|b", "a\\|b"),
        ("`x`", "\\`x\\`"),
        ("**x** _y_ a_b", "\\*\\*x\\*\\* \\_y\\_ a_b"),
        ("&lt;b&gt; & &#60;", "&amp;lt;b&amp;gt; & &amp;#60;"),
        ("a\\", "a\\\\"),
        ("a\n# b", "a\\\\n# b"),
    ],
)
def test_markdown_holds_no_markup(name, written):
    assert text.markdown(name) == written
