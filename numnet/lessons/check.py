"""Exercises that say "right" or "not yet".

An exercise is a function of a lesson's module that takes the reader's answer and returns the verdict::

    def exercise_1(answer):
        return check(answer, lambda a: a == 9, "count the places where a 2×2 window fits into a 4×4 image")

In the notebook it has its own cell, to be filled in; the solution is in a folded block below it::

    answer = ...
    convolution.exercise_1(answer);

    <details><summary>Solution</summary>

    ```python
    answer = 3 * 3
    convolution.exercise_1(answer);
    ```

    </details>

``tests/test_notebooks.py`` runs every folded solution in its place and expects "right"; ``tests/test_lessons_*.py``
give each exercise plausible wrong answers and expect them to be rejected.
"""

RIGHT, WRONG, OPEN = "right", "not yet", "no answer yet"


def check(answer, condition, hint) -> bool:
    """Print the verdict on an answer and return it.

    answer: the reader's; ``...`` or None means that the exercise is still open. condition: a function of the answer,
    or its result. hint: what is printed after a wrong answer; it should help, and not give the answer away. An answer
    that makes the condition raise an error (a wrong type or shape) is a wrong answer, and the error is printed.
    """
    if answer is ... or answer is None:
        print(f"{OPEN}: put yours in place of the dots and run this cell again")
        return False
    try:
        right = bool(condition(answer)) if callable(condition) else bool(condition)
    except Exception as error:
        print(f"{WRONG}: {hint}\n    (looking at your answer gave {type(error).__name__}: {error})")
        return False
    print(RIGHT if right else f"{WRONG}: {hint}")
    return right


def close(a, b, tolerance=1e-6) -> bool:
    """True if two arrays or numbers have one shape and differ by at most ``tolerance`` times the largest entry of b."""
    import numpy as np

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"shape {a.shape}, expected {b.shape}")
    scale = np.abs(b).max() if b.size else 0.0
    return bool(np.abs(a - b).max() <= tolerance * (scale if scale > 0 else 1.0)) if b.size else True


def agrees(function, cases, tolerance=1e-9) -> bool:
    """True if a reader's function gives what it should in every case.

    cases: pairs (arguments, expected); expected is an array or a number, or a tuple of them where the function is to
    return several. The function gets copies of the arrays, so that it may change them. Raises ValueError if the number or the
    shapes of what it returns are wrong.
    """
    import numpy as np

    for arguments, expected in cases:
        found = function(*(a.copy() if isinstance(a, np.ndarray) else a for a in arguments))
        if found is None:
            raise ValueError("your function returns nothing; it needs a return")
        wanted = expected if isinstance(expected, tuple) else (expected,)
        found = found if isinstance(expected, tuple) else (found,)
        if len(found) != len(wanted):
            raise ValueError(f"your function returns {len(found)} things, expected {len(wanted)}")
        if not all(close(a, b, tolerance) for a, b in zip(found, wanted)):
            return False
    return True
