"""The form of an answer: order, sets, intervals, words, choices, equations, several candidates."""

# ruff: noqa: RUF001  (answers in Unicode are what some cases are about)

from grading_table import assert_judged, cases


@cases(r"""
\{2,1\} ~ \{1,2\}
\{1,1,2\} ~ \{1,2\}
\{1,2\} ~ \{2,1,1\}
\{5\} ~ 5
5 ~ \{5\}
2,1 ~ 1,2
1, 2 ~ 2,1
1 and 2 ~ 2, 1
1\text{ and }2 ~ 1,2
1\text{ or }2 ~ 1,2
x=1 or x=2 ~ 1,2
x=1,x=2 ~ x=2,x=1
x = 2, x = -3 ~ -3, 2
\{1,2\} ~ 1,2
1,2 ~ \{2,1\}
\pm 3 ~ 3,-3
3,-3 ~ \pm3
\{-3,3\} ~ \pm 3
x=\pm3 ~ -3,3
1\pm\sqrt2 ~ 1+\sqrt2,1-\sqrt2
1-\sqrt2, 1+\sqrt2 ~ 1\pm\sqrt2
\pm1,\pm2 ~ 1,-1,2,-2
1\mp\sqrt2 ~ 1\pm\sqrt2
\{1\pm\sqrt5,-2\} ~ -2,1+\sqrt5,1-\sqrt5
\frac{1\pm\sqrt5}{2} ~ \frac{1+\sqrt5}{2},\frac{1-\sqrt5}{2}
(3,4)\cup(1,2) ~ (1,2)\cup(3,4)
[0,2]\cup[1,3] ~ [0,3]
\{1\}\cup\{2\} ~ \{1,2\}
(-\infty,2)\cup(2,\infty) ~ \mathbb{R}\setminus\{2\}
\mathbb{R}\setminus\{2\} ~ (-\infty,2)\cup(2,\infty)
x\neq 2 ~ (-\infty,2)\cup(2,\infty)
(1,2)∪(3,4) ~ (1,2) \cup (3,4)
(-\infty,2) or (3,\infty) ~ (-\infty,2)\cup(3,\infty)
(-\infty,\infty) ~ \mathbb{R}
(1,2) ~ (1, 2)
(0.5,2) ~ (\frac12,2)
(1,2),(3,4) ~ (3,4),(1,2)
\langle 1,2\rangle ~ (1,2)
\begin{pmatrix}1\\2\end{pmatrix} ~ \begin{bmatrix}1\\2\end{bmatrix}
\begin{pmatrix}1&0.5\\1/3&4\end{pmatrix} ~ \begin{pmatrix}1&\frac12\\\frac13&4\end{pmatrix}
(1,2) ~ \begin{pmatrix}1\\2\end{pmatrix}
6:8 ~ 3:4
3:4 ~ 6:8
1:2:3 ~ 2:4:6
3 : 4 ~ 3:4
1:\sqrt2 ~ \sqrt2:2
3:4 ~ 3/4
(1,2] ~ (1, 2]
[1,\infty) ~ [1,+\infty)
\left[\frac12,3\right) ~ [0.5,3)
1,2 ~ 1\text{ and }2
1, 2, and 3 ~ 1,2,3
1;2 ~ 1,2
AB=4,CD=5 ~ 4,5
4,5 ~ AB=4,CD=5
x=1,y=2 ~ y=2,x=1
x=1, y=2 ~ (1,2)
(x,y)=(1,2) ~ x=1,y=2
""")
def test_sets_unions_pairs_and_lists_are_unordered_and_ratios_scale(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
1,2 !~ (1,2)
(1,2) !~ 1,2
(2,1) !~ (1,2)
[1,2] !~ (1,2)
(1,2] !~ [1,2)
(1,2) !~ [1,2)
(1,2) !~ 1,2,3
1,2 !~ 1,2,3
1,2,3 !~ 1,2
\{1,2\} !~ (1,2)
2,1 !~ (1,2)
4:3 !~ 3:4
3:4:5 !~ 3:4
1:00 !~ 12:00
12:00 !~ 1:00
1:2:3 !~ 1:2
3 !~ \pm3
\pm 3 !~ 3
-3 !~ \pm3
1+\sqrt2 !~ 1\pm\sqrt2
x=1,y=2 !~ x=2,y=1
5,4 !~ AB=4,CD=5
2,2,3 !~ 2,3
1,1 !~ 1
(3,4)\cup(1,2) !~ (1,4)
(1,2)\cup(3,4) !~ (1,2)\cup(3,4]
\begin{pmatrix}1\\2\end{pmatrix} !~ \begin{pmatrix}2\\1\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} !~ \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} !~ \begin{pmatrix}1&3\\2&4\end{pmatrix}
(1,2),(3,4) !~ (2,1),(3,4)
\{(1,2)\} !~ \{(2,1)\}
\{1,2\} !~ \{1,3\}
\emptyset !~ 0
0 !~ \emptyset
(1,2,3) !~ (1,3,2)
(y,x)=(1,2) !~ (x,y)=(1,2)
(a,b)=(1,2) !~ (x,y)=(1,2)
(y,x)=(2,1) ~ (x,y)=(1,2)
(x,y)=(1,2) ~ (x, y) = (1, 2)
x\neq 2 !~ x=2
\mathbb{R} !~ \mathbb{Z}
""")
def test_tuples_matrices_ratios_and_interval_ends_are_ordered(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
\text{Evelyn} ~ evelyn
Evelyn ~ \text{Evelyn}
EVELYN ~ \text{Evelyn}
even ~ \text{even}
Yes ~ yes
no ~ No
\text{(C)} ~ C
C ~ \text{(C)}
(C) ~ C
c ~ C
\textbf{(C)} ~ C
\textbf{C} ~ C
(C) 12 ~ C
\textbf{(C)}\ 12 ~ C
\text{(C) }12 ~ C
(C) 12 ~ \text{(C)}
C ~ (C) 12
(C)\ \frac12 ~ C
C. ~ C
C) 12 ~ C
C) ~ C
(A)(B) !~ A
\textbf{(A)} \textbf{(B)} !~ A
(C)(D) 5 !~ C
D) !~ C
"yes" ~ yes
``Yes'' ~ yes
(C)12 ~ C
(c) ~ C
\mathrm{C} ~ C
B, C ~ C,B
\text{A, B} ~ B,A
no solution ~ \text{no solution}
\text{No solution}. ~ no solution
True ~ true
CBAD ~ \text{CBAD}
\text{October 30} ~ October 30
e ~ \text{e}
odd ~ \text{odd}
D !~ C
(D) 12 !~ C
(D) 12 !~ (C) 12
A, C !~ C
A or C !~ C
(A) and (C) !~ C
(C) 12 !~ D
oddd !~ odd
dog !~ god
no !~ on
Alice !~ Bob
even !~ odd
yes !~ no
5 !~ even
yes or no !~ yes
\text{east} !~ \text{west}
ABDC !~ \text{CBAD}
(C) 12 !~ 13
12 !~ C
(C) 13 !~ (C) 12
not even !~ even
5\text{ or maybe 6} !~ 5
5\text{ or six} !~ 5
2nm !~ 2
\text{Either }5\text{ or }6 !~ 5
9.8\text{ m/s2} ~ 9.8
5\text{ cm3} ~ 5
5 ~ 5
1011\text{ (base 2)} ~ 11
90^\degree ~ 90
10:15 ~ 2:3
2:3 ~ 10:15
9:24 ~ 9:24
4:30 pm ~ 4:30
4:30 p.m. ~ 4:30\text{ p.m.}
05:00 ~ 5:00
4:30 pm !~ 2:15 pm
B: 5 ~ B
12:30 PM ~ 12:30
""")
def test_words_and_choices_are_text_without_case(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
x>3 ~ (3,\infty)
(3,\infty) ~ x>3
3<x ~ x>3
x>3 ~ 3<x
1<x\le2 ~ (1,2]
(1,2] ~ 1<x\leq 2
x\ge3 ~ [3,\infty)
x<1 or x>3 ~ (-\infty,1)\cup(3,\infty)
(-\infty,1)\cup(3,\infty) ~ x<1\text{ or }x>3
|x|<2 ~ (-2,2)
x^2<4 ~ (-2,2)
2x<6 ~ x<3
-x>=-1 ~ x<=1
x > 1 and x < 3 ~ (1,3)
\{x \mid x > 3\} ~ (3,\infty)
\{x : x>3\} ~ x>3
-2\le x\le7 ~ x\in[-2,7]
[-2,7] ~ -2\leq x\leq 7
k\ge 2 ~ k \geq 2
x!=5 ~ x\neq5
s^2\le 8r^2 ~ s^2 \le 8r^2
a<b ~ b>a
0<x<12.5 ~ (0,12.5)
m\in[\sqrt2,+\infty) ~ m\geq\sqrt2
-80\le g(x)\le 82 ~ [-80,82]
x>3 !~ [3,\infty)
x>=3 !~ x>3
x>3 !~ x<3
x<5 !~ x>5
x\leq5 !~ x\geq5
x<1 or x>3 !~ (1,3)
x<1 and x>3 !~ (-\infty,1)\cup(3,\infty)
1<x<2 !~ [1,2]
a<b !~ a>b
x>3 !~ 3
3 !~ x>3
x>3 !~ x=3
\{x \in \mathbb{R} : x > 3\} ~ x>3
x \geq 3 \text{ and } x \leq 5 ~ [3,5]
|x|>2 ~ (-\infty,-2)\cup(2,\infty)
""")
def test_an_inequality_is_the_interval_it_describes(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
2 or 3 !~ 2
2, 3 !~ 2
2 and 3 !~ 3
2\text{ or }3 !~ 2
\{2,3\} !~ 2
x=2 or x=3 !~ 2
2; 3 !~ 2
2 \text{ (or } 3) !~ 2
2/3 or 3 !~ 2/3
5, 5 !~ 6
2\pm1 !~ 3
5=6 !~ 5
5\approx 6 !~ 6
5 \text{ or } 6 !~ 5
5, 5 !~ 5
7 (seven) !~ 7
""")
def test_several_candidates_for_one_value_are_wrong(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
-34x-45y+20z-100=0 ~ 34x+45y-20z+100=0
y=-\frac12x+\frac34 ~ 2x+4y-3=0
2x+4y-3=0 ~ y=-\frac12x+\frac34
x=-y/2 ~ y=-2x
x^2+y^2=1 ~ 1-y^2=x^2
x+y-z+1=0 ~ x + y - z + 1 = 0
x + y - z + 2 = 0 !~ 5x - 7y + 11z + 4 = 0
3x + 4y + 14=0 !~ 3*x-1*y+13=0
x+y=1 !~ x+y=2
y=2x !~ y=3x
x=2y !~ y=2x
""")
def test_equations_are_equal_up_to_a_factor(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
x \equiv 3 \pmod{7} ~ x\equiv 3\pmod{7}
\frac{1}{7}\triangle ABC ~ \frac17 \triangle ABC
1,2,\ldots,n ~ 1, 2, \dots, n
\pi k, k\in\mathbb{Z} ~ k\pi, k \in \mathbb{Z}
$1, 3, 5, \ldots, 2n-1$ !~ $1, 2, \ldots, n$
$1:4:9:\ldots$ !~ $1:2:3:\ldots$
""")
def test_what_no_parser_reads_is_compared_by_its_letters(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)
