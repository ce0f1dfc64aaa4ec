"""Draw samples and write them, each with its recipe; draw a written one again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fromnoise import guidance
from fromnoise.app import prior, provenance, shares
from fromnoise.app.opening import about, as_asked, opened
from fromnoise.app.preview import Preview
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import ExplainRequest, ModelsInfoRequest, SampleRequest, Sampling
from fromnoise.core import strictjson
from fromnoise.core.atomic import disk_errors, make_folder, try_writing
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import check_folder
from fromnoise.core.images import to_pil, write_png
from fromnoise.data.embedded import EMBEDDING
from fromnoise.explain import film
from fromnoise.interop import builtin, hub
from fromnoise.interop.loading import load
from fromnoise.model import Hires, Model, Previews, Samples, sheet
from fromnoise.training.ranks import join

_DIGITS = 18
_SHOWN = 60


def sample(request: SampleRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise sample`."""
    if request.as_dataset is not None:
        from fromnoise.app.dataset import as_dataset

        return as_dataset(request, reporter)
    for name in ("classes", "balance", "keep", "formats"):
        if name in request.model_fields_set:
            raise UsageError(f"--{name} is of data sets; give --as-dataset DIR, or leave it out")
    if request.replay is not None:
        return replay(request, reporter)
    if request.model is None:
        raise UsageError("name a run or model to sample, e.g. `fromnoise sample runs/digits`")
    ranks = join()
    with ranks.together():
        out = check_folder(request.out or "samples")
        if ranks.first:
            try_writing(out)
        model = opened(request)
        arguments = draw_arguments(model, request)
    preview = None
    if request.preview is not None and ranks.first:
        previews = Previews(model, arguments["dtype"])
        preview = Preview(previews, out / "preview.png", request.preview)
    made, recipe, steps = shares.draw(model, arguments, request.film, ranks, reporter, preview)
    drawn = Samples(made, recipe)
    with ranks.together():
        if ranks.first:
            write(drawn, model, out)
        if ranks.first and request.film:
            decode = partial(model.decode, dtype=recipe["dtype"], tile=recipe["tile"])
            strip = film(iter(steps), decode)
            write_png(out / "film.png", strip, {})
            reporter.say(f"film strip: {out / 'film.png'}")
    reporter.say(f"{len(drawn)} samples in {out}, together in {out / 'sheet.png'}")
    return 0


def write(drawn: Samples, model: Model, out: Path) -> None:
    """Each picture as a PNG with its recipe, and one sheet; points as one table and a scatter."""
    told = about(model)
    with disk_errors(out):
        make_folder(out)
    if drawn.tensor.ndim == 2:
        buffer = np.ascontiguousarray(drawn.tensor.numpy())
        _write_array(out / "samples.npy", buffer)
    else:
        for index in range(len(drawn)):
            name = f"{drawn.recipe['seeds'][index]:06d}.png"
            write_png(out / name, drawn[index], provenance.texts(drawn.recipe, index, told))
    write_png(out / "sheet.png", sheet(drawn.tensor), {})


@dataclass(frozen=True)
class Replayed:
    """A picture drawn again: the new one, and what differs from the old."""

    picture: Image.Image
    recipe: dict[str, Any]
    same: bool
    largest: int
    notes: list[str]


def again(path: Path, source: str | None) -> tuple[Replayed, Model]:
    """Draw the picture in a file again by its recipe, with its model or the one at `source`."""
    if not path.exists():
        raise FileError(f"{path}: no such file")
    recipe = provenance.read(path)
    told = recipe.draw
    lost = provenance.unrepeatable(told)
    if lost is not None:
        raise UsageError(f"{path} was drawn with {lost}, which it cannot carry; not repeatable")
    origin = source or recipe.model.source
    if origin is None or not _is_here(origin):
        where = "does not say where its model is" if origin is None else f"was drawn by {origin}"
        raise FileError(
            f"{path} {where}, which is not here; name the model first: "
            f"`fromnoise sample MODEL --replay {path.name}`"
        )
    model = as_asked(load(origin), recipe.model.vae, recipe.model.compiled)
    arguments = told.model_dump(exclude={"seeds", "start", "guide", "used"})
    arguments["hires"] = told.hires
    guides = [guidance.named(text, load) for text in told.guide]
    drawn = model.stream(1, seed=told.seeds, guide=guides, **arguments).samples()
    with Image.open(path) as old:
        before = np.asarray(old.convert(to_pil(drawn.tensor[0]).mode)).astype(int)
    picture = drawn[0]
    after = np.asarray(picture).astype(int)
    if before.shape != after.shape:
        raise UsageError(f"{path} is {before.shape} but its recipe draws {after.shape}")
    largest = int(np.abs(before - after).max())
    notes = provenance.differences(recipe, about(model), drawn.recipe["used"])
    return Replayed(picture, dict(drawn.recipe), largest == 0, largest, notes), model


def _is_here(origin: str) -> bool:
    return Path(origin).exists() or hub.is_id(origin) or builtin.is_builtin(origin)


def replay(request: SampleRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise sample --replay FILE`."""
    others = request.model_fields_set - {"replay", "model", "out"}
    if others:
        flag = sorted(others)[0].replace("_", "-")
        raise UsageError(f"--replay draws by the picture's own recipe; leave out --{flag}")
    path = Path(request.replay or "")
    folder = check_folder(request.out or "samples")
    try_writing(folder)
    done, model = again(path, request.model)
    out = folder / f"replay-{path.name}"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, done.picture, provenance.texts(done.recipe, 0, about(model)))
    if done.same:
        reporter.say(f"{out}: the same picture, bit for bit")
        return 0
    reporter.warn(f"{out} differs from {path} by up to {done.largest} of 255")
    for line in done.notes or ["nothing recorded differs; the file may have been edited"]:
        reporter.warn(line)
    return 1


def draw_arguments(
    model: Model, request: Sampling, opener: guidance.Load | None = None
) -> dict[str, Any]:
    """What a request asks of `model.stream`.

    opener: opens what guides and the prior are made of; one that remembers spares who asks often.
    """
    opener = opener or load
    label, prompt = labels(request.label, request.count, model), request.prompt
    inputs = told_inputs(request.input)
    if request.prior is not None:
        if EMBEDDING in inputs:
            raise UsageError(f"--prior draws the {EMBEDDING}; leave out --input, or --prior")
        inputs |= prior.drawn(model, request, label, opener)
        label = prompt = None
    return {
        "count": request.count,
        "label": label,
        "prompt": prompt,
        "inputs": inputs,
        "negative": negative(request.negative),
        "sampler": request.sampler,
        "steps": request.steps,
        "grid": request.grid,
        "guidance": request.guidance,
        "interval": interval(request.interval),
        "rescale": request.rescale,
        "guide": [guidance.named(text, opener) for text in request.guide],
        "threshold": request.threshold,
        "eta": request.eta,
        "seed": request.seed,
        "batch_size": request.batch_size,
        "shape": shape_of(model, request),
        "image": request.image,
        "strength": request.strength,
        "hires": second_pass(request),
        "clip_skip": request.clip_skip,
        "tile": request.tile,
        "dtype": precision(request),
    }


def precision(request: Sampling) -> str:
    """The type the network is run in, by its name. UsageError for two of them."""
    if request.exact and request.half:
        raise UsageError("--exact is float32 and --half is bfloat16; leave out one")
    return "float32" if request.exact else "bfloat16" if request.half else "auto"


def second_pass(request: Sampling) -> Hires | None:
    """What is asked of a second pass. UsageError for settings of one that is not asked for."""
    given = {
        name: getattr(request, f"hires_{name}")
        for name in ("strength", "steps", "upscaler")
        if getattr(request, f"hires_{name}") is not None
    }
    if request.hires is None:
        if given:
            raise UsageError(f"--hires-{next(iter(given))} is of a second pass; give --hires 2")
        return None
    return Hires(request.hires, **given)


def shape_of(
    model: Model, request: Sampling | ModelsInfoRequest | ExplainRequest
) -> tuple[int, ...] | None:
    """The shape of a sample where a width or a height is asked for; None for the model's own."""
    if request.width is None and request.height is None:
        return None
    if len(model.shape) != 3:
        raise UsageError(
            f"{model.card.name} draws no pictures, so --width and --height mean nothing"
        )
    channels, height, width = model.shape
    return channels, request.height or height, request.width or width


def labels(text: str | None, count: int, model: Model) -> Any:
    """`3`, `cat`, `3:0.5+8:0.5`, `3,4,5` or `all` as one label or one for each sample, in turn."""
    if text is None:
        return None
    names: list[Any] = [part.strip() for part in text.split(",") if part.strip()]
    if text.strip() == "all":
        names = list(range(len(model.card.classes)))
        if not names:
            raise UsageError("this model knows no classes, so `--label all` means nothing")
    names = [weighed(str(name), model.card.classes) for name in names]
    if not names:
        raise UsageError(f"label {text!r} names no class")
    return names[0] if len(names) == 1 else [names[i % len(names)] for i in range(count)]


def weighed(text: str, classes: Sequence[str]) -> Any:
    """`3:0.5+8:0.5` as weights by class name; `3` as a number, and any other text as it is.

    Raises UsageError for weights that are no numbers.
    """
    if ":" not in text or text in classes:
        number = number_of(text)
        return text if number is None else number
    weights: dict[str, float] = {}
    for part in text.split("+"):
        name, _, weight = (piece.strip() for piece in part.rpartition(":"))
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise UsageError(f"label {text!r}: {part.strip()!r} is no weight; write 3:0.5+8:0.5")
        # By name: a picture's recipe is JSON, where every key is a text.
        place = number_of(name)
        if place is not None and name not in classes and place < len(classes):
            name = classes[place]
        weights[name] = weights.get(name, 0.0) + value
    return weights


def told_inputs(texts: Sequence[str]) -> dict[str, Any]:
    """`depth=room.png` as a path, `attributes={"size": 0.3}` as the values, by encoder name."""
    told: dict[str, Any] = {}
    for text in texts:
        name, found, value = text.partition("=")
        if not found or not name.strip() or not value.strip():
            raise UsageError(f"input {text!r} is not NAME=VALUE; write e.g. depth=room.png")
        if name.strip() in told:
            raise UsageError(f"input {name.strip()!r} is given twice")
        told[name.strip()] = _value(value.strip())
    return told


def _value(text: str) -> Any:
    if text[0] not in "[{-+.0123456789":
        return text
    try:
        return strictjson.loads(text.encode("utf-8", "surrogateescape"), "it")
    except FileError as error:
        if text[0] in "[{":
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            raise UsageError(
                f"{shown!r} begins as JSON and is none; check its quotes ({error})"
            ) from None
        # A file whose name begins with a digit.
        return text


def negative(text: str | None) -> Any:
    """A prompt as it is, `3` as the class."""
    number = None if text is None else number_of(text.strip())
    return text if number is None else number


def number_of(text: str) -> int | None:
    """The number a text of ASCII digits is; None for any other, such as ², and for endless ones."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def interval(text: str | None) -> tuple[float, float] | None:
    """`0.2,0.8` as two times."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"interval {text!r} is not two times; write e.g. 0.2,0.8") from None
    return low, high


def _write_array(path: Path, values: "np.ndarray[Any, Any]") -> None:
    import io

    from fromnoise.core.files import write_bytes

    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
