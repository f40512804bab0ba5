"""Values are equal when they are mathematically equal; only a long decimal may be rounded."""

from grading_table import assert_judged, cases


@cases(r"""
0.5 ~ \frac12
1/2 ~ 0.5
.5 ~ 1/2
0.50 ~ 1/2
2/4 ~ 1/2
\frac{2}{4} ~ 0.5
5.0 ~ 5
5. ~ 5
+5 ~ 5
-0 ~ 0
5e0 ~ 5
\sqrt{8} ~ 2\sqrt2
\frac{1}{\sqrt2} ~ \frac{\sqrt2}{2}
2^3 ~ 8
8 ~ 2^{3}
e^{i\pi} ~ -1
\sin\frac{\pi}{6} ~ 0.5
\cos(60^\circ) ~ 1/2
\log 1000 ~ 3
\log_{10}100 ~ 2
\ln e ~ 1
\log_2 8 ~ 3
\lg 100 ~ 2
\log_e 2 ~ \ln 2
\frac{\pi}{2} ~ \pi/2
0.5\pi ~ \frac{\pi}{2}
x^2-1 ~ (x-1)(x+1)
(x+1)^2 ~ x^2+2x+1
\frac{x^2-1}{x-1} ~ x+1
2\sin x\cos x ~ \sin 2x
10^{-3} ~ 0.001
1.5\times10^{3} ~ 1500
1.5e3 ~ 1500
3 \cdot 10^8 ~ 300000000
0.333333 ~ 1/3
0.3333333333 ~ 1/3
0.666667 ~ 2/3
0.666666 ~ 2/3
3.141593 ~ \pi
3.141592 ~ \pi
-0.333333 ~ -1/3
1.414214 ~ \sqrt2
2.718282 ~ e
33.3333333 ~ 100/3
0.\overline{3} ~ 1/3
0.\bar{3} ~ \frac13
0.1\overline{6} ~ 1/6
1/3 ~ 0.\overline{3}
0.\dot{3} ~ 1/3
0.(3) ~ 1/3
2.\overline{36} ~ 26/11
.\overline{3} ~ 1/3
0.\overline{9} ~ 1
\frac13 \approx 0.333 ~ 1/3
\sqrt2 \approx 1.414 ~ \sqrt2
x = \sqrt2 \approx 1.414 ~ \sqrt2
\sqrt2≈1.41 ~ \sqrt2
1.414\approx\sqrt2 ~ \sqrt2
\sqrt2 ~ \sqrt2 \approx 1.414
\approx 3.14 ~ 3.14
x \approx 3.14 ~ 3.14
10! ~ 3628800
\binom{5}{2} ~ 10
|{-3}| ~ 3
|-3| ~ 3
\lfloor 2.7\rfloor ~ 2
i^2 ~ -1
1+2i ~ 2i+1
\frac{1+2i}{5} ~ \frac15+\frac25i
i(2-i) ~ 1+2i
-\frac{1}{2} ~ \frac{-1}{2}
\frac{1}{-2} ~ -0.5
2(3) ~ 6
(2)(3) ~ 6
x(x+1) ~ x^2+x
\frac{4}{2}(3) ~ 6
\sin^2 x+\cos^2 x ~ 1
\arcsin(1) ~ \pi/2
e^{\ln 5} ~ 5
|x-1| ~ |1-x|
0.1+0.2 ~ 0.3
--5 ~ 5
\tan 15^\circ ~ 2-\sqrt3
\cos x ~ \sin(90^\circ-x)
\sqrt{5+2\sqrt6} ~ \sqrt2+\sqrt3
\cos(\pi/7)\cos(2\pi/7)\cos(4\pi/7) ~ -1/8
\sqrt{x^2} ~ |x|
\sum_{k=1}^{10} k ~ 55
\int_0^1 x dx ~ 1/2
\lim_{x\to 0}\frac{\sin x}{x} ~ 1
2^{100} ~ 1267650600228229401496703205376
0.142857142857... ~ \frac{1}{7}
0.000067 ~ .0000672
n+1 ~ N+1
\sec^2(y) ~ \tan^2(y)+1
a^ma^n ~ a^{m+n}
""")
def test_equal_values_are_correct(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
0.333 !~ 1/3
0.33333 !~ 1/3
0.333334 !~ 1/3
0.33 !~ 1/3
355/113 !~ \pi
3.14 !~ \pi
3.14159 !~ \pi
3.141591 !~ \pi
22/7 !~ \pi
10^{20} !~ 10^{20}+1
10^{20}+1 !~ 10^{20}
100000000000000000001 !~ 100000000000000000000
3^{-40} !~ 3^{-41}
\frac{1}{2^{98}} !~ \frac1{2^{99}}
1.0000001 !~ 1
0.9999999 !~ 1
0.999999 !~ 1
1.000001 !~ 1
1.414 !~ \sqrt2
1.41421 !~ \sqrt{2}
\frac13\approx 0.333 !~ 0.333
3.14 \approx \pi !~ 3.14
0.5 !~ 0.5000001
5.001 !~ 5
1e-7 !~ 0
0.0000001 !~ 0
x^2 !~ x^3
x !~ y
2x !~ x
a+b !~ a-b
9 !~ -9
1/3 !~ 0.333333333
1/3 !~ 0.333
\log 8 !~ \ln 8
R^2-r^2 !~ 0
0 !~ \pi(R^2-r^2)
5 6 !~ 56
5 6 !~ 30
5\quad 6 !~ 56
3d !~ 3
5m !~ 5
2t !~ 2
7h !~ 7
f'(x) !~ f(x)
A^T !~ A
\gamma+1 !~ 1
3! !~ 3
2 !~ 2!+1
0 !~ 0.000001
2.236 !~ \sqrt5
1/0 !~ 5
3..5 !~ 3.5
90^\circ !~ \frac{\pi}{2}
2^{1/2^{1000}} !~ 1
e^{-5000} !~ 0
\sqrt{x^2} !~ x
2^{100} !~ 1267650600228229401496703205377
""")
def test_values_that_are_only_close_or_look_alike_are_wrong(
    answer: str, gold: str, equal: bool
) -> None:
    assert_judged(answer, gold, equal)


@cases(r"""
2\frac12 ~ 5/2
5/2 ~ 2\frac12
2.5 ~ 2\frac{1}{2}
2 \frac{1}{2} ~ 2.5
2 1/2 ~ 2.5
1.5 ~ 1 1/2
-2\frac12 ~ -2.5
1\frac{1}{4} ~ 1 \frac{1}{4}
137\tfrac12 ~ 137.5
2\frac12\text{ feet} ~ 2.5
1011_2 ~ 1011_2
1011_{2} ~ 1011_2
1011_2 ~ 11
11 ~ 1011_2
1011_{\text{two}} ~ 1011_2
(1011)_2 ~ 11
54 ~ 204_5
204_5 ~ 204_5
24_{10} ~ 24
-37_8 ~ -31
\text{A5}_{11} ~ 115
FF_{16} ~ FF_{16}
FF_16 ~ 255
\sqrt[3]{-8} ~ -2
-2 ~ \sqrt[5]{-32}
2^3^2 !~ 64
2^3^2 !~ 512
F_{16} !~ 15
2\frac12 !~ 1
2\cdot\frac12 !~ 5/2
1011 !~ 1011_2
1011_2 !~ 1011
204 !~ 204_5
1112122_3 !~ 1112112_3
204_5 !~ 204_6
12_2 !~ 12
""")
def test_mixed_numbers_and_number_bases_count_by_value(answer: str, gold: str, equal: bool) -> None:
    assert_judged(answer, gold, equal)
