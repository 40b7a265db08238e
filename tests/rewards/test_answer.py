r"""The letter grammar, option text and numbers, as tables of (answer, what it says)."""

import subprocess
import sys
import threading
import unicodedata
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from future_l1_verl.rewards.answer import LETTERS, Grade, answer_text, chosen_option, grade
from future_l1_verl.rewards.quantity import quantity

OPTIONS = ["the upper left wall", "left wall", "the right wall", "blue ball"]
RIGHT, WRONG, UNPARSED = Grade(True, True), Grade(False, True), Grade(False, False)

LETTER_ALONE = ["B", "b", "(b)", "[B]", "B.", "b)", "B!", '"B"', " B\n"]
LETTER_IN_MARKUP = ["**B**", "*B*", "`B`", "$B$", r"\(B\)", r"\boxed{B}", r"\text{B}", r"\boxed{\text{(B)}}", r"\mathbf{B}"]
LETTER_ANNOUNCED = [
    "Answer: B",
    "answer: b",
    "Answer B",
    "The answer is (B)",
    "the answer is b",
    "The correct answer is **B**.",
    r"so the answer is \boxed{B}",
    "Option B",
    "option b",
    "I choose option B.",
    "I think B",
    "It's B.",
]
LETTER_WITH_TEXT = [
    "B. the left wall",
    "b) left wall",
    "(B) Left wall.",
    "B: left wall",
    "B - left wall",
    "B left wall",
    "B\nleft wall",
    "left wall (B)",
]
LETTER_WITH_REASON = [
    "B, because the ball rolls on",
    "B because it rolls on",
    "B is right",
    "B, since it leaves the right wall",  # the right wall is C's text, but not what B is said to be
    "It passes the right wall and comes back, so B",
    "Dave opens the car door, so B",  # audit row 33: the published code takes the D of Dave
    "Dave opens the car door. B",
    "A car passes, so B",
    "A ball and I, so B",
    "not A but B",
    "B, not A",
]
TEXT = [
    "left wall",
    "The Left Wall.",
    "It hits the left wall",
    r"\boxed{\text{left wall}}",
    "the left wall, not the right wall",
    "No, the left wall",
]
SOMETHING_ELSE = [
    "A",
    "a.",
    "c",
    "A is right",
    "The answer is A because it rolls on",
    "the upper left wall",  # holds B's text
    "It hits the upper left wall",
    "It is not the left wall but the right wall",
    "blue ball",
]
NO_LETTER = [
    "Because it is near",
    "Dave opens the car door",  # row 33 again
    "a ball",
    "A ball",
    "the answer is a car",
    "A car passes",
    "I",
    "I think so",
    "Person B throws it",
    "It is B-shaped",
    "i.e. that one",
    "option a driver has",
    "b, because",  # a small letter in running text
]
SEVERAL = [
    "A or B",
    "A, B",
    "A and B",
    "B/C",
    "B or C",
    "(a) or (b)",
    "Both B and C",
    "A is wrong, so B",
    "left wall or right wall",
    "B. the right wall",  # letter and text contradict each other
    "The right wall (B)",
    "the answer is B, the right wall",
]
NOT_AN_OPTION = ["E", "(j)", "E. left wall", "bottom wall", "K", "left wallpaper", "left-wall", "1.5"]
# Chinese, Japanese and Korean; the half of Unicode that NFKC maps to plain letters; HTML.
LETTER_IN_CJK = [
    *("答案\uff1aB", "答案: b", "正确答案是B。", "答案應該是 B", "答案為「B」", "【答案】B", "答\uff1aB", "因此\uff0c答案是B"),
    *("选B", "我选择 B", "故选B。", "選\uff08B\uff09", "选项B", "選項 B", "选B选项", "B项", "B选项正确", "B是正确的"),
    *(
        "选B不选A",
        "答案是B\uff0c不是A",
        "答案是B而不是A",
        "选B因为球不会停",
        "答案是B\uff0c因为球会停",
        "B、左边的墙",
        "B\uff0e左边",
    ),
    *("答えはB", "答えはBです。", "正解はBです", "解答\uff1aB", "Bです", "Bを選びます", "Bが正解です", "選択肢B"),
    *("정답은 B", "정답: B", "답은 B입니다.", "B입니다", "선택지 B", "B번"),
]
LETTER_IN_UNICODE = [
    "\uff22",
    "\uff42",
    "\uff08\uff22\uff09",
    "\uff22\uff0e",
    "\u24b7",
    "\u249d",
    "\U0001d401",
    "\u200bB",
    "\u201cB\u201d",
]
LETTER_IN_HTML = [
    *("<b>B</b>", '<span class="x">B</span>', "<p><strong>(B)</strong></p>", "<B>", "<EM>b</EM>", "The answer is <b>B</b>."),
    *("<font color=red>B</font>", r"<div>\boxed{B}</div>", r"\boxed{<i>B</i>}", "选<b>B</b>", "\uff1cb\uff1eB\uff1c/b\uff1e"),
]
NO_LETTER_IN_CJK = [
    *("A汽车", "B汽车", "B超", "C罗", "B项目", "选A汽车", "选B站", "正解はBの汽車", "Bの汽車", "B보다"),
    *(
        "不选B",
        "别选B",
        "不能选B",
        "答案不是B",
        "我不认为答案是B",
        "选项B是错误的",
        "B选项不对",
        "选项B 不正确",
        "B不选",
        "非B",
    ),
    *("Bではない", "答えはBではない", "答えはBではありません", "Bが正しくない", "선택지 B가 아니다", "정답은 B가 아닙니다"),
    *("选A或B", "选A或者B", "选A 或 B", "选A、B", "选A还是B", "A和B", "A、B都对", "AかB", "A또는 B", "答案\uff1aA,B"),
    *("<s>B</s>", "<del>B</del>"),
]
NEGATED = [
    "not the left wall",
    "It isn't the left wall",
    "not B",
    "isn't (B)",
    "neither A nor B",
    "floor rather than left wall",
]
TAKEN_BACK = [
    *(
        "B is wrong",
        "(B) isn't right.",
        "**B** is not correct",
        "Option B is clearly false",
        "The answer B cannot be",
        "B can't be it",
    ),
    *(
        "B and C are wrong",
        "B was ruled out",
        "B would never happen",
        "the left wall is wrong",
        '"Left wall" is not the answer',
    ),
    *("Anything but B", "All but B", "B, or rather C", "B or maybe C", "B; actually C", "B no wait C", "B... sorry, C"),
    *("B 是错的", "B 不对", "<answer>B is impossible</answer>"),
]
STANDS = [
    *("B is right, A is wrong", "B, since A cannot be", "The answer is B. The others are not.", "B is the one", "not A but B"),
    *("B. The ball does not stop", "B is clearly right", "the left wall, as the ball isn't slow"),
]
EMPTY = ["", "  ", "...", "$$", "<answer></answer>"]

CHOICES = {
    "letter alone": (LETTER_ALONE, RIGHT),
    "letter in markup": (LETTER_IN_MARKUP, RIGHT),
    "letter announced": (LETTER_ANNOUNCED, RIGHT),
    "letter with its text": (LETTER_WITH_TEXT, RIGHT),
    "letter with a reason": (LETTER_WITH_REASON, RIGHT),
    "letter in Chinese, Japanese, Korean": (LETTER_IN_CJK, RIGHT),
    "letter in other characters": (LETTER_IN_UNICODE, RIGHT),
    "letter in HTML": (LETTER_IN_HTML, RIGHT),
    "no letter in Chinese, Japanese, Korean": (NO_LETTER_IN_CJK, UNPARSED),
    "text": (TEXT, RIGHT),
    "something else": (SOMETHING_ELSE, WRONG),
    "no letter": (NO_LETTER, UNPARSED),
    "several": (SEVERAL, UNPARSED),
    "not an option": (NOT_AN_OPTION, UNPARSED),
    "negated": (NEGATED, UNPARSED),
    "taken back": (TAKEN_BACK, UNPARSED),
    "not taken back": (STANDS, RIGHT),
    "empty": (EMPTY, UNPARSED),
}


def table(groups: dict[str, tuple[list[str], Grade]]) -> list:
    return [
        pytest.param(answer, expected, id=f"{reason}: {answer!r}")
        for reason, (answers, expected) in groups.items()
        for answer in answers
    ]


@pytest.mark.parametrize(("answer", "expected"), table(CHOICES))
def test_what_an_answer_chooses(answer: str, expected: Grade) -> None:
    assert grade(answer, "left wall", OPTIONS) == expected
    assert grade(answer, "B", OPTIONS) == expected


INLINE = {
    "letter": ([*LETTER_ALONE, *LETTER_IN_MARKUP, *LETTER_ANNOUNCED, *LETTER_WITH_TEXT, *LETTER_WITH_REASON], RIGHT),
    "letter of all kinds": ([*LETTER_IN_CJK, *LETTER_IN_UNICODE, *LETTER_IN_HTML], RIGHT),
    "none of all kinds": (NO_LETTER_IN_CJK, UNPARSED),
    "another letter": (["A", "(j)", "E. left wall", "选A", "答えはCです"], WRONG),
    "no letter": ([*NO_LETTER[:6], "left wall", *EMPTY], UNPARSED),
    "several letters": (["A or B", "B/C"], UNPARSED),
}


@pytest.mark.parametrize(("answer", "expected"), table(INLINE))
def test_a_letter_as_the_truth_means_that_the_options_stand_in_the_question(answer: str, expected: Grade) -> None:
    assert grade(answer, "B") == expected


@pytest.mark.parametrize(
    ("answer", "options", "index"),
    [
        ("C", ["B", "C", "A"], 1),  # the option that says C, not the third one
        ("The answer is C", ["B", "C", "A"], 1),
        ("A car passes, so B", ["A", "B"], 1),
        ("Team A and B tie", ["Team A wins", "Team A and B tie"], 1),
        ("It seems that team A and B tie", ["Team A wins", "Team A and B tie"], 1),
        ("right wall", ["A. left wall", "B. right wall"], 1),  # data sets that write the letter before the text
        ("B. right wall", ["A. left wall", "B. right wall"], 1),
        ("A. right wall", ["A. left wall", "B. right wall"], None),
        ("2", ["1", "2", "12"], 1),
        ("12 balls", ["1", "2", "12"], 2),
        ("1.2", ["1", "2", "12"], None),
        ("0.50", ["1/4", "1/2", "1"], 1),
        ("No", ["Yes", "No"], 1),
        ("K", ["wall"] * 10 + ["K"], 10),
        ("...", ["?", "wall"], None),
        ("答案是左墙。", ["右墙", "左墙"], 1),
        ("答案\uff1a左墙", ["右墙", "左墙"], 1),
        ("左墙", ["\uff21\uff0e 右墙", "\uff22\uff0e 左墙"], 1),
        ("cafe\u0301", ["bar", "caf\u00e9"], 1),
        ("10\u00b2", ["102", "100"], 1),
        ("\u00bd", ["1/4", "1/2"], 1),
        ("10\u00bd", ["10", "10.5", "1/2"], 1),
        ("10\u00bd m", ["10", "20"], None),
        ("10\u00bd m", ["1/2", "1/4"], None),
        ("In 2019 the left wall", ["left wall", "right wall"], 0),
    ],
)
def test_options_of_other_kinds(answer: str, options: list[str], index: int | None) -> None:
    assert chosen_option(answer, options) == index


words = st.text("klmnopqrstuvwxyz", min_size=3, max_size=8)
option_lists = st.lists(st.lists(words, min_size=1, max_size=3).map(" ".join), min_size=2, max_size=10, unique=True)
FORMS = ["{}", "({})", "{}.", "**{}**", "${}$", r"\boxed{{{}}}", r"\text{{{}}}", r"\boxed{{\text{{({})}}}}"]
FORMS += ["Answer: {}", "the answer is ({})", "Option {}"]
RUNNING_FORMS = ["{}, because it rolls", "Dave opens the car door, so {}", "A car passes, so {}"]


@given(option_lists, st.data())
def test_every_form_of_every_letter_names_its_option(options: list[str], data: st.DataObject) -> None:
    right, other = (data.draw(st.integers(0, len(options) - 1)) for _ in range(2))
    letter = LETTERS[other]
    forms = [*(form.format(case) for form in FORMS for case in (letter, letter.lower()))]
    forms += [form.format(letter) for form in RUNNING_FORMS]
    for answer in [*forms, f"{letter}. {options[other]}", options[other]]:
        assert grade(answer, options[right], options) == Grade(other == right, True), answer


@given(option_lists, st.lists(st.text("lmnorstu", min_size=9, max_size=12)).map(" ".join))
def test_a_text_without_letter_or_option_is_unparsed(options: list[str], text: str) -> None:
    assert grade(text, "A", options) == UNPARSED


@settings(deadline=None)
@given(st.text(), st.text(), st.none() | option_lists)
def test_any_text_gets_a_grade(answer: str, truth: str, options: list[str] | None) -> None:
    grade(answer, truth if options is None else "B", options)


def test_a_truth_that_is_no_option_is_an_error_of_the_data() -> None:
    for truth in ("floor", "E", ""):
        with pytest.raises(ValueError, match="not among the options"):
            grade("A", truth, OPTIONS)


@pytest.mark.parametrize("options", [{"A": "red", "B": "blue"}, MappingProxyType({"B": "blue", "A": "red", "C": None})])
def test_options_may_go_by_letter(options: dict[str, str]) -> None:
    for truth in ("B", "blue", "<answer>B</answer>"):
        assert grade("B", truth, options) == grade("blue", truth, options) == RIGHT
        assert grade("<answer>red</answer>", truth, options) == WRONG
        assert grade("C", truth, options) == UNPARSED


def test_options_that_no_letter_can_name_are_an_error_of_the_data() -> None:
    for options in ("AB", ["red", "red"], [str(n) for n in range(11)], {"A": "red", "C": "blue"}, [1, 2]):
        with pytest.raises(ValueError, match="option"):
            grade("B", "B", options)


FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
REPLIES = [reply for answers, _ in CHOICES.values() for reply in answers if "answer>" not in reply]
REPLIES += [
    "3.0",
    "1,000 m",
    "50%",
    "caf\u00e9",
    "\u00c5ngstr\u00f6m",
    "2\u00bd",
    "1.5e-3",
    "10\u00b2",
    r"\frac{1}{2}",
    "The answer is 3.",
]


@settings(deadline=None)
@given(
    st.sampled_from(REPLIES) | st.text().filter(lambda text: "answer" not in text),
    st.sampled_from(["B", "left wall", "3", "1/2", "caf\u00e9", "100", "\u00c5ngstr\u00f6m", "1000 m", "0.0015", "2.5"]),
    st.booleans(),
)
def test_full_width_and_decomposed_characters_change_no_grade(reply: str, truth: str, choice: bool) -> None:
    options = [truth, "right wall", "green"] if choice else None
    expected = grade(reply, truth, options)
    for changed in (reply.translate(FULL_WIDTH), unicodedata.normalize("NFD", reply), unicodedata.normalize("NFC", reply)):
        assert grade(changed, truth, options) == expected
        assert grade(reply, unicodedata.normalize("NFD", truth), options) == expected


def test_only_what_was_parsed_can_be_correct() -> None:
    with pytest.raises(ValueError, match="cannot be correct"):
        Grade(correct=True, parsed=False)


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("3", "3", RIGHT),
        ("3.0", "3", RIGHT),
        ("3.", "3", RIGHT),
        ("007", "7", RIGHT),
        ("1,000", "1000", RIGHT),
        ("1,234,567", "1234567", RIGHT),
        ("1/2", "0.5", RIGHT),
        (".5", "0.5", RIGHT),
        (".5", "5", WRONG),
        ("-3", "3", WRONG),
        ("\u22123", "-3", RIGHT),  # a typographic minus
        (r"$\frac{1}{2}$", "0.5", RIGHT),
        (r"\boxed{\frac{1}{2}}", "1/2", RIGHT),
        (r"\frac12", r"\dfrac{2}{4}", RIGHT),
        (r"\boxed{\frac{\sqrt{3}}{2}}", r"\sqrt{3}/2", RIGHT),
        (r"2\sqrt{3}", r"\sqrt{12}", RIGHT),
        (r"2\pi", "2π", RIGHT),
        (r"3 \times 10^{2}", "300", RIGHT),
        (r"\left(1+2\right)", "3", RIGHT),
        ("1/3", "0.333333", RIGHT),
        ("1/3", "0.33", WRONG),
        ("50%", "50", RIGHT),
        ("50%", "0.5", RIGHT),
        (r"$50\%$", "1/2", RIGHT),
        ("50 percent", "50%", RIGHT),
        ("50%", "5", WRONG),
        ("0.5%", "50%", WRONG),
        ("3 meters", "3", RIGHT),
        ("3", "3 meters", RIGHT),
        ("1 meter", "1 meters", RIGHT),
        ("5 m", "5 minutes", WRONG),
        (r"3\text{ meters}", "3 meters", RIGHT),
        ("3 meters", "3 feet", WRONG),
        ("2 red balls", "2 blue balls", WRONG),
        ("90°", "90 degrees", RIGHT),
        (r"90^\circ", "90", RIGHT),
        ("The answer is 3.", "3", RIGHT),
        ("Answer: $3$", "3", RIGHT),
        ("4", "3", WRONG),
        ("1, 2, 3", "3", WRONG),  # no picking the last of several
        ("3 and 4", "4", WRONG),
        ("3, 2, 1", "1, 2, 3", WRONG),  # an order of events is no set
        ("2-1", "3-2", WRONG),  # a score is no difference
        ("2-1", "2-1", RIGHT),
        ("10:30", "10:30", RIGHT),
        ("three", "3", WRONG),  # number words are text
        ("1/0", "2/0", WRONG),
        ("1.0/0", "1/0", WRONG),
        ("0/.0", "0", WRONG),
        ("\uff11\uff0c\uff10\uff10\uff10", "1000", RIGHT),
        ("1、000", "1000", WRONG),  # a list
        ("答案是3", "3", RIGHT),
        ("3个", "3", RIGHT),
        ("\u00bd", "0.5", RIGHT),
        ("1\u00bd", "1.5", RIGHT),
        ("1 \u00bd", "3/2", RIGHT),
        ("-1\u00bd", "-1.5", RIGHT),
        ("-1\u00bd", "-0.5", WRONG),
        ("1\u00bd", "0.5", WRONG),
        ("1\u00bd", "11/2", WRONG),
        ("2\u00be cups", "2.75 cups", RIGHT),
        ("1 1/2", "1.5", RIGHT),
        ("1e3", "1000", RIGHT),
        ("1E+3 m", "1000 m", RIGHT),
        ("1.5E-3", "0.0015", RIGHT),
        ("2/1e3", "0.002", RIGHT),
        ("1e3", "103", WRONG),
        ("1e-3", "1e-4", WRONG),
        ("10\u00b2", "100", RIGHT),
        ("10\u00b2", "102", WRONG),
        ("10\u207b\u00b2", "0.01", RIGHT),
        ("2\u00b9\u2070", "1024", RIGHT),
        ("10\u2082", "102", WRONG),
        ("10<sup>2</sup>", "100", RIGHT),
        ("10<sup>2</sup>", "102", WRONG),
        ("10<sub>2</sub>", "102", WRONG),
        ("10**2", "102", WRONG),
        ("<b>3</b>", "3", RIGHT),
        ("5 m\u00b2", "5 m2", WRONG),
        ("5.0000001", "5", RIGHT),
        ("5", "5.0000001", RIGHT),
        ("2.9999999", "3", RIGHT),
        ("5.00001", "5", WRONG),
        ("5.0000001 m", "5 s", WRONG),
        ("1e-7", "1e-9", WRONG),
        ("0.0000001", "0.000000001", WRONG),
        ("0.0000001", "0", WRONG),
        ("2.5e-8", "2.6e-8", WRONG),
        ("1.0e-7", "0.0000001", RIGHT),
        ("0.0", "0", RIGHT),
        ("", "3", UNPARSED),
        ("Answer:", "3", UNPARSED),
    ],
)
def test_numbers(answer: str, truth: str, expected: Grade) -> None:
    assert grade(answer, truth) == expected


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("two balls", "two balls", RIGHT),
        (" Two  Balls. ", "the two balls", RIGHT),
        (r"\boxed{\text{two balls}}", "two balls", RIGHT),
        ("The answer is two balls", "two balls", RIGHT),
        ("two ball s", "two balls", WRONG),
        ("balls two", "two balls", WRONG),
        ("Route 66", "Route 67", WRONG),
        ("The cup falls.", "cup falls", RIGHT),
        ("It\u2019s red", "it's red", RIGHT),
        ("and / or", "and/or", WRONG),  # text is not edited (audit row 19)
        ("$x + 1$", "x + 1", RIGHT),
        ("x + 1", "1 + x", WRONG),  # variables are text
        ("K", "K", RIGHT),  # no letter of an option
        ("cafe\u0301", "caf\u00e9", RIGHT),
        ("cafe", "caf\u00e9", WRONG),
        ("\uff32\uff45\uff44", "red", RIGHT),
        ("答案\uff1a红球。", "红球", RIGHT),
        ("答えは「赤い球」", "赤い球", RIGHT),
        ("정답은 빨간 공", "빨간 공", RIGHT),
        ("答案揭晓", "揭晓", WRONG),  # nothing was announced
        ("\u201cred\u201d", "red", RIGHT),
        ("<i>red</i><br>ball", "red ball", RIGHT),
        ("x\u00b2", "x2", WRONG),
        ("<red>", "red", WRONG),
        ("add \u00bd cup", "add 1/2 cup", RIGHT),
    ],
)
def test_open_text(answer: str, truth: str, expected: Grade) -> None:
    assert grade(answer, truth) == expected


@settings(deadline=None)  # the first comparison imports sympy
@given(st.fractions(-1000, 1000, max_denominator=1000), st.sampled_from(["{}", "${}$", r"\boxed{{{}}}", "the answer is {}"]))
def test_a_fraction_equals_itself_in_latex_and_no_neighbour(value, form: str) -> None:
    sign = "-" if value < 0 else ""
    latex = rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert grade(form.format(value), latex) == grade(form.format(latex), str(value)) == RIGHT
    assert grade(form.format(value + 1), latex) == WRONG


@pytest.mark.timeout(10)
@pytest.mark.parametrize("truth", ["7.5", r"\sqrt{2}", "B"])
@pytest.mark.parametrize("options", [None, ["7.5", r"\sqrt{2}"]])
def test_hostile_answers_take_no_time(truth: str, options: list[str] | None) -> None:
    n = 20_000
    powers = ["9^{9^{9^{9}}}", "9^9^9^9", "9**9**9**9", "(9^99)^99", r"(\sqrt{2}+\pi)^{999}", "99999999!", "9^{99}" * 6]
    brackets = [("{{{", "}}}"), ("(((", ")))"), (r"\sqrt{", "}"), (r"\frac1{", "}")]
    nested = [opening * 8 + "3" + closing * 8 for opening, closing in brackets]
    long = [piece * n for piece in (r"\text{", r"\text{x}", "B,", "so ", "not ", "7.5 ", "A ", "is,", "1+", "9", " ", "$", "(")]
    long += [
        piece * n for piece in ("<b>", "<b ", "</b>", "<sup>", "选", "选(", "答案是", "A或", "不", "1e", "\u00b2", "1\u00bd")
    ]
    long += [r"\boxed{" * n + "B" + "}" * n, "." * n + "x", "<answer>" * n]
    flat = ["1+" * 31 + "1", "(3)" * 21, "+".join(rf"\sqrt{{{i}}}" for i in (2, 3, 5, 7, 11, 13)), r"\sum_{i=1}^{99999999}i"]
    for answer in [*powers, *nested, *long, *flat]:
        grade(answer, truth, options)


def test_numbers_are_compared_outside_the_main_thread_too() -> None:
    grades = []
    thread = threading.Thread(target=lambda: grades.append(grade("1/2", "0.5")))
    thread.start()
    thread.join()
    assert grades == [RIGHT]


def test_units_and_percent_are_told_from_the_number() -> None:
    assert quantity("1,000 m/s") == ("1000", False, "m/s")
    assert quantity(r"50\% of the balls") == ("50", True, "of the balls")
    assert quantity("two balls") is None


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("<reason>A</reason><answer>B</answer>", "B"),
        ("<answer>\n and / or \n</answer>", "and / or"),  # audit row 19
        ("<answer>**B**, 1/2 </answer> tail", "**B**, 1/2"),
        ("B", None),
        ("<answer>B", None),
        ("B</answer>", None),
        ("</answer>B<answer>", None),
        ("<answer></answer>", None),
        ("<answer> \n </answer>", None),
        ("<answer>B</answer><answer>B</answer>", None),
        ("<answer>B</answer><answer>", None),
        ("<answer><answer>B</answer></answer>", None),
    ],
)
def test_the_text_of_the_only_answer(reply: str, text: str | None) -> None:
    assert answer_text(reply) == text
    if "<" in reply:
        assert grade(reply, "and / or").parsed is (text is not None)
        assert grade(reply, "B", OPTIONS) == (UNPARSED if text is None else grade(text, "B", OPTIONS))


@given(st.text().filter(lambda text: "answer>" not in text and text.strip()))
def test_answer_text_leaves_the_text_alone(text: str) -> None:
    assert answer_text(f"<reason>x</reason><answer>{text}</answer>") == text.strip()


def test_neither_torch_nor_sympy_is_imported_for_a_choice() -> None:
    code = "import sys; from future_l1_verl.rewards.answer import grade; grade('B', 'B', ['x', 'y'])"
    code += "; sys.exit(' '.join({'torch', 'verl', 'vllm', 'sympy', 'math_verify'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


@pytest.mark.parametrize("answer", ["B is wrong", "It cannot be B", "Anything but B", "B and C are not right", "B, wait, C"])
def test_a_letter_of_options_in_the_question_that_is_taken_back(answer: str) -> None:
    assert grade(answer, "B") == UNPARSED
