r"""How people typeset one answer: Markdown, frames, Chinese marks, golds of data sets."""

# ruff: noqa: RUF001  (characters that look like others are what the tables are about)

import json
from pathlib import Path

import pytest
from grading_table import assert_judged, cases

from budgetrl.grading.extraction import find_answer
from budgetrl.grading.rules import judge
from budgetrl.rewards.shaping import think_format
from budgetrl.types import Verdict

FAILING = Path(__file__).resolve().parents[3] / "shared" / "data" / "grader" / "turn2_failing.jsonl"


@cases(r"""
**73** ~ 73
*73* ~ 73
***73*** ~ 73
__73__ ~ 73
_73_ ~ 73
__52_8__ ~ 42
**2*3** ~ 6
`73` ~ 73
**$73$** ~ 73
$**73**$ ~ 73
x = **73** ~ 73
**x = 73** ~ 73
**73** dollars ~ 73
**1**, **2** ~ 1, 2
**Tuesday** ~ \text{Tuesday}
\text{**Tuesday**} ~ Tuesday
**(C)** ~ C
2**3 ~ 8
2**3**4 !~ 24
2**3** 4 !~ 24
3*5*2 ~ 30
a_1 + a_2 ~ a_2 + a_1
\textcolor{blue}{73} ~ 73
\textcolor[rgb]{1,0,0}{73} ~ 73
\colorbox{yellow}{73} ~ 73
\fcolorbox{red}{white}{73} ~ 73
\underline{73} ~ 73
\large 73 ~ 73
\Huge{73} ~ 73
\pmb{73} ~ 73
\framebox{73} ~ 73
\framebox[2cm][c]{73} ~ 73
\bbox[red]{73} ~ 73
\smash[b]{73} ~ 73
\ensuremath{73} ~ 73
73\hfill ~ 73
73 \checkmark ~ 73
73 ✓ ~ 73
\textcolor{red}{\underline{\large{73}}} ~ 73
\textcolor{red}{\text{Tuesday}} ~ Tuesday
\underline{Tuesday} ~ Tuesday
x^\textcolor{red}{10} ~ x^{10}
2\textcolor{red}{x+1} ~ 2x+1
\textcolor{red}{1}2 !~ 2
12\large{5} !~ 60
\underline{73} !~ 74
\begin{aligned}73\end{aligned} ~ 73
\begin{align*}x&=70+3\\&=73\end{align*} ~ 73
\begin{aligned}x&=1\\y&=2\end{aligned} ~ x=1, y=2
\begin{split}\begin{pmatrix}1&2\end{pmatrix}\end{split} ~ \begin{pmatrix}1&2\end{pmatrix}
3 \& 5 ~ 3, 5
3 \& 5 !~ 3
""")
def test_markdown_colours_sizes_and_frames_mean_nothing(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)


@pytest.mark.parametrize("text", ["5\\ ", "5 \\ ", "5\\ \\ ", r"\frac{10}{2}\ ", "5\\ $"])
def test_a_control_space_at_the_end_is_space(text: str) -> None:
    answer = find_answer(rf"so \boxed{{{text}}}")
    assert answer is not None
    assert judge(answer, "5") is Verdict.CORRECT
    assert judge("5", text) is Verdict.CORRECT


@cases(r"""
12。 ~ 12
1、2 ~ 1, 2
1、2 !~ 12
12元 ~ 12
12个 ~ 12
12 厘米 ~ 12
12平方厘米 ~ 12
\text{12平方厘米} ~ 12
12\text{ 个} ~ 12
12千米 ~ 12
12个三角形 ~ 12
12時間 ~ 12
12㎡ ~ 12 \text{ m}^2
1⁄2 ~ 1/2
1和2 ~ 1, 2
1或2 ~ 1 \text{ or } 2
5万 !~ 5
5千 !~ 5
5\text{万} !~ 5
5以上 !~ 5
5个以上 !~ 5
3分之1 !~ 3
2024年5月 !~ 2024
12元 !~ 13
""")
def test_chinese_and_japanese_marks_and_units(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("He has 4 things.\nSo <<1+1=2>>2.\n#### 4", "4", "2"),
        ("#### 1,234", "1234", "234"),
        ("#### -5", "-5", "5"),
        ("['4']", "4", "5"),
        ('["4"]', "4", "5"),
        ('["[1, 2]"]', "[1,2]", "(1,2)"),
        ("['1', '2']", "2, 1", "1"),
        (r'["\frac{1}{2}", "0.5"]', "1/2", "1/2, 3"),
        ("4 or 4.0", "4", "5"),
        (r"n = 7 \text{ or } n = 7", "7", "8"),
        ("4 or 5", "5 or 4", "4"),
    ],
)
def test_golds_as_data_sets_write_them(gold: str, right: str, wrong: str) -> None:
    assert judge(right, gold) is Verdict.CORRECT
    assert judge(wrong, gold) is Verdict.WRONG


@pytest.mark.parametrize("gold", ["#### ", "['']", "['4', '(']", "text\n####"])
def test_such_a_gold_without_an_answer_is_an_error(gold: str) -> None:
    assert judge("4", gold) is Verdict.ERROR


@cases(r"""
0.333... ~ \frac13
1/3 ~ 0.333...
0.1666\ldots ~ 1/6
0.1212... ~ 4/33
2.718281828... ~ e
0.33... !~ 1/3
0.333 !~ 1/3
1.333... !~ 1/3
3\text{ to }2 ~ 3:2
3:2 ~ 3\text{ to }2
3 to 2 !~ 2:3
12 base 8 ~ 10
12_8 ~ \text{12 base 8}
\text{12 base 8} !~ 12
-2 ~ \begin{vmatrix}1&2\\3&4\end{vmatrix}
\begin{vmatrix}1&2&0\\3&4&1\\1&1&1\end{vmatrix} ~ -1
\begin{vmatrix}1&2\\3&4\end{vmatrix} !~ 2
[0,5]\cap(2,7) ~ (2,5]
(2,5] ~ [0,5] \cap (2,7)
[0,5]\cap(2,7) !~ [0,7)
A \cap B ~ B \cap A
A \cap B !~ A \cup B
""")
def test_endless_decimals_ratios_bases_determinants_and_intersections(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)


@pytest.mark.parametrize(
    "answer", [r"\boxed{}", "...", "?!", r"$\boxed{ }$.", r"So it is \boxed{\text{}}", "  。 "]
)
def test_a_blank_box_or_punctuation_is_no_answer(answer: str) -> None:
    assert think_format(f"<think>a</think>{answer}", prefilled=False) == 0.0


@pytest.mark.parametrize("answer", [r"\boxed{5}", "5", "∞", r"\boxed{\infty}", "It is five."])
def test_anything_said_is_an_answer(answer: str) -> None:
    assert think_format(f"<think>a</think>{answer}", prefilled=False) == 1.0


@pytest.mark.skipif(not FAILING.exists(), reason="needs the cases in ../shared/data")
def test_the_answers_that_an_earlier_grader_missed() -> None:
    rows = [json.loads(line) for line in FAILING.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        answer = find_answer(row["completion"])
        assert answer is not None
        assert judge(answer, row["gold"]).value == row["expect"], row
