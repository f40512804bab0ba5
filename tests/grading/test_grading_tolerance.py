"""What both sides may have: units, words, signs, names, separators, typography, Unicode."""

# ruff: noqa: RUF001  (answers in Unicode are what some cases are about)

from grading_table import assert_judged, cases


@cases(r"""
5\text{ cm} ~ 5
5 ~ 5\text{ cm}
5 cm ~ 5
5 ~ 5 cm
5cm ~ 5
5 ~ 5\,\mathrm{cm}
5~\mathrm{cm} ~ 5
5\mbox{ inches} ~ 5
15\mbox{ cm}^2 ~ 15
15 ~ 15\mbox{ cm}^2
15\text{ cm}^{2} ~ 15
864 \mbox{ inches}^2 ~ 864
5 cm^2 ~ 5
60 km/h ~ 60
60 \text{ km/h} ~ 60
60\frac{\text{km}}{\text{h}} ~ 60
9.8\,\mathrm{m/s^2} ~ 9.8
9.8\ \text{m}/\text{s}^2 ~ 9.8
5 m ~ 5
5\text{ m} ~ 5
5\text{m} ~ 5
12 ways ~ 12
500 yen ~ 500
5 apples ~ 5
5\text{ apples} ~ 5
17\text{ any text} ~ 17
\text{Area} = 25 ~ 25
\text{Answer: }5 ~ 5
\text{The answer is }5 ~ 5
\text{about } 5 ~ 5
5\text{厘米} ~ 5
""")
def test_units_and_words_do_not_matter(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
\$10 ~ 10
10 ~ \$10
$10$ ~ 10
10\$ ~ 10
€10 ~ 10
£10 ~ 10
\pounds 10 ~ 10
10 dollars ~ 10
10\text{ dollars} ~ \$10
\$1{,}000 ~ 1000
\$32,\!348 ~ 32348
$18.90 ~ \$18.90
18.9 ~ \$18.90
90^\circ ~ 90
90 ~ 90^\circ
90° ~ 90
90^{\circ} ~ 90
90\text{ degrees} ~ 90^\circ
90 degrees ~ 90
90\degree ~ 90
100^\circ\text{C} ~ 100
100°C ~ 100
50\% ~ 50
50\% ~ 0.5
50 ~ 50\%
0.5 ~ 50\%
50% ~ 50
50 percent ~ 50
50\text{ percent} ~ 0.5
50\% ~ 1/2
\frac12 ~ 50\%
50\% ~ 50\%
50.0\% ~ 50\%
12.5\% ~ 1/8
5% ~ 0.05
""")
def test_currency_degree_and_percent_signs_do_not_matter(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
x=5 ~ 5
5 ~ x=5
x=5 ~ x=5
x = 5. ~ 5
f(3)=7 ~ 7
7 ~ f(3) = 7
x\in[1,2] ~ [1,2]
[1,2] ~ x\in[1,2]
x ∈ [1,2] ~ [1,2]
N=42 ~ 42
n = 42 ~ 42
\theta = 30^\circ ~ 30
a_5=3 ~ 3
a_{10} = 3 ~ 3
S_{10}=55 ~ 55
AB = 5 ~ 5
\angle ABC = 30 ~ 30
P(A)=0.3 ~ 0.3
(x,y)=(1,2) ~ (1,2)
(1,2) ~ (x,y)=(1,2)
y=2x+3 ~ 2x+3
2x+3 ~ y=2x+3
f(x)=2x+3 ~ y=2x+3
y = 2x+3 ~ f(x) = 2x + 3
m+n=113 ~ 113
x+y = 7 ~ 7
A = 3 \cdot 4 = 12 ~ 12
2^3=8 ~ 8
x = 5 + 6 = 11 ~ 11
V = \pi r^2 h = 12\pi ~ 12\pi
\frac{dy}{dx} = 2x ~ 2x
f(3)=5 ~ f(3)=5
f(2)=5 !~ f(3)=5
""")
def test_a_leading_name_does_not_matter(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
1,000 ~ 1000
1\,000 ~ 1000
1{,}000 ~ 1000
1000 ~ 1,000
1 000 ~ 1000
1,000,000 ~ 1000000
1{,}000{,}000 ~ 10^6
-1,000 ~ -1000
1,000.5 ~ 1000.5
x=1,000 ~ 1000
1,000\text{ cm} ~ 1000
\frac{1,000}{3} ~ \frac{1000}{3}
11,\! 111,\! 111,\! 100 ~ 11111111100
11111111100 ~ 11,\! 111,\! 111,\! 100
10{,}000 ~ 10,000
025 ~ 25
25 ~ 025
007 ~ 7
004 ~ 4
000 ~ 0
""")
def test_thousands_separators_and_leading_zeros_do_not_matter(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
5 . ~ 5
5\text{.} ~ 5
$5$ ~ 5
\(5\) ~ 5
5 ~ $5$
5 ~ \(5\)
5 ~ \boxed{5}
5 ~ \[5\]
5 ~ $$5$$
5 ~ The answer is $\boxed{5}$.
\boxed{5} ~ 5
\dfrac12 ~ \frac12
\tfrac{1}{2} ~ 0.5
\frac12 ~ 0.5
\frac1{2} ~ 0.5
\frac 1 2 ~ 0.5
\left(1,2\right) ~ (1,2)
\displaystyle\frac12 ~ 0.5
\sqrt 2 ~ \sqrt{2}
\sqrt[3]2 ~ \sqrt[3]{2}
x^{10} ~ x^10
2\,\pi ~ 2\pi
\mathbf{5} ~ 5
\text{13} ~ 13
13 ~ \text{13}
{5} ~ 5
\mathrm{e}^2 ~ e^2
\{1,2\} ~ \lbrace 1,2\rbrace
x\le 3 ~ x\leqslant 3
\boldsymbol{x} ~ x
5\, ~ 5
5\\ ~ 5
\;5\; ~ 5
12{:}30 ~ 12:30
{5 \choose 2} ~ \binom{5}{2}
{5 \choose 2} ~ 10
{5 \choose 2} !~ 20
10^{th} ~ 10
10^{\text{th}} ~ 10
3^\text{rd} ~ 3
2^{n} !~ 2
""")
def test_typography_does_not_matter(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
−5 ~ -5
–5 ~ -5
√2 ~ \sqrt{2}
2√3 ~ 2\sqrt3
√(x+1) ~ \sqrt{x+1}
√12 ~ 2\sqrt3
½ ~ 1/2
2½ ~ 5/2
¾ ~ 0.75
x² ~ x^2
x² + y² ~ x^2+y^2
10⁻³ ~ 0.001
2ⁿ ~ 2^n
∞ ~ \infty
π ~ \pi
2π ~ 2\pi
2·3 ~ 6
2×3 ~ 6
6÷2 ~ 3
(−∞, 3] ~ (-\infty,3]
x ≥ 3 ~ x\geq 3
1 ± √2 ~ 1\pm\sqrt2
x₁ = 5 ~ 5
θ ~ \theta
5 ° ~ 5
∅ ~ \emptyset
ℝ ~ \mathbb{R}
５ ~ 5
（1，2） ~ (1,2)
""")
def test_unicode_mathematics_is_read(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
5\text{ million} !~ 5
\text{not } 5 !~ 5
\text{minus }5 !~ 5
3\text{ feet }4\text{ inches} !~ 34
3\text{ feet }4\text{ inches} !~ 3
10\text{ a.m.} !~ 10\text{ p.m.}
4:30 pm !~ 4:30 am
50\% !~ 5
0.5\% !~ 50\%
50 !~ 0.5\%
0.5 !~ 50
28 !~ 28/100
3=5 !~ 5
5=3 !~ 5
x=3=5 !~ 5
x=5 !~ y=5
2x=6 !~ 6
2x=6 !~ 3.5
x^2-5x+6=0 !~ 0
x-3=0 !~ 0
1 !~ 2x+z=1
0 !~ a^2+b=0
0 !~ a+z=0
11a+c !~ 7=11a+c
x=y !~ 5
f(x)=3 !~ f(x)=4
x\in(1,2) !~ [1,2]
32, 349 !~ 32349
1, 000 !~ 1000
0,1 !~ 01
12,34 !~ 1234
1,00 !~ 100
250 !~ 25
-5 !~ 5
\sqrt{-2} !~ \sqrt2
2½ !~ 1
\text{five} !~ 5
five !~ 5
forty-two !~ 42
\text{twelve} !~ 12
5 !~ five
5\text{ less than } !~ 5
\text{more than }5 !~ 5
5x !~ 5
5x cm !~ 5
x cm !~ x+1
""")
def test_what_changes_the_value_is_not_tolerated(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)
