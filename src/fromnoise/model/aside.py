"""A label that is told to guides alone, of a model whose network is not told one."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fromnoise.core.errors import UsageError
from fromnoise.encoders import Label
from fromnoise.guidance import Guide
from fromnoise.guidance.classifier import LABEL, NO_LABEL, asks_label
from fromnoise.layers.condition import Condition, merge

if TYPE_CHECKING:
    from fromnoise.model.model import Model


def aside(model: "Model", guides: Iterable[Guide], label: Any) -> Label | None:
    """The classes of a label that only guides hear; None where the network hears it, or nothing.

    Raises UsageError where a guide asks for a label and none is given, and where its classes are
    not those of the network.
    """
    asking = asks_label(guides)
    if not asking:
        return None
    if label is None:
        raise UsageError(NO_LABEL)
    known = [one.known for one in asking if one.known is not None]
    own = model.conditioning.encoders[LABEL] if LABEL in model.conditioning.names else None
    first = own if isinstance(own, Label) else next(iter(known), None)
    if first is None:
        if not model.card.classes:
            raise UsageError(
                f"{model.card.name} knows no classes, and neither does the guide; give the label "
                "to the guide itself: fn.guidance.classifier(by, label)"
            )
        first = Label(model.card.classes)
    for other in known:
        if other.names != first.names:
            raise UsageError(
                f"the classifier's classes are {_shown(other)}, and the label is one of "
                f"{_shown(first)}; use a classifier of the same"
            )
    return None if own is not None else first


def told_aside(condition: Condition | None, classes: Label, label: Any, count: int) -> Condition:
    """The condition with the label in it, and no label in its null."""
    own = replace(classes.encode(LABEL, label, count), null=classes.null(LABEL, count))
    return own if condition is None else merge(condition, own)


def _shown(classes: Label) -> str:
    return ", ".join(classes.names[:6]) + (", …" if classes.width > 6 else "")
