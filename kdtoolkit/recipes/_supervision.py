"""Flags for what a teacher's logits teach besides their temperature: a `Supervision`."""

from kdtoolkit.losses.strengths import NORMALIZATIONS
from kdtoolkit.recipes._command import UsageError
from kdtoolkit.training.supervision import ADJUSTMENTS, DYNAMIC_TEMPERATURES, Supervision

# Flag -> argument of `Supervision`.
_NUMBERS = {"label_smooth_p": "p", "temperature_slope": "slope", "focal_gamma": "gamma"}
_ARGUMENTS = {
    "adjustment": "adjustment",
    "dynamic_temperature": "dynamic_temperature",
    **_NUMBERS,
    "focal_normalization": "normalization",
}
_GROUP = "Supervision"


def define(flags):
    """Adds the flags: an adjustment, a dynamic temperature, and their numbers."""
    flags.add(
        "string",
        _GROUP,
        "adjustment",
        None,
        f"Correct the teacher where it is wrong: {' or '.join(ADJUSTMENTS)} (default: no).",
    )
    flags.add(
        "string",
        _GROUP,
        "dynamic_temperature",
        None,
        f"A temperature for each sample: {' or '.join(DYNAMIC_TEMPERATURES)} (default: no).",
    )
    define_numbers(flags)


def define_numbers(flags):
    """Adds the flags of the numbers alone. None of their defaults is the paper's."""
    usual = Supervision()
    texts = {
        "label_smooth_p": "Probability of the true class where label_smooth replaces a wrong "
        "teacher, in (1/classes, 1).",
        "temperature_slope": "Change of a dynamic temperature per unit of a sample's weight.",
        "focal_gamma": "Exponent of the focal weight.",
    }
    for flag, argument in _NUMBERS.items():
        flags.add("float", _GROUP, flag, getattr(usual, argument), texts[flag])
    flags.add(
        "string",
        _GROUP,
        "focal_normalization",
        usual.normalization,
        f"Of the logits in the focal weight: {' or '.join(NORMALIZATIONS)}.",
    )


def options(flags, **names):
    """Returns the arguments of `Student` and `SelfDistillation` that the flags say.

    Args:
        flags: of the run.
        **names: `adjustment` and `dynamic_temperature` where no flag says them.
    """
    said = {argument: flags[flag].value for flag, argument in _ARGUMENTS.items() if flag in flags}
    return {**said, **names}


def check(flags, temperature, classes=None, **names):
    """Checks the flags together with a temperature and, where it is known, the class count.

    Raises:
        UsageError: a value is outside its range, or two contradict each other.
    """
    arguments = options(flags, **names)
    try:
        Supervision(temperature, **arguments)
    except ValueError as error:
        flag = next((f for f, a in _ARGUMENTS.items() if f"`{a}`" in str(error)), "temperature")
        raise UsageError(f"--{flag}: {error}") from error
    if classes is not None and arguments["adjustment"] == "label_smooth":
        in_range = 1 / classes < arguments["p"] < 1
        flags.require("label_smooth_p", in_range, f"in (1/{classes}, 1)")
