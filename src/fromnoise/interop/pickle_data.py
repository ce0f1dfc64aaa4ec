"""The data of a pickle, read without the pickle machine: nothing in it is ever called.

A pickle is a program. This reader knows the instructions that build plain data, and a closed table
of what PyTorch writes: each name there stands for a few lines here, never for the thing itself. Any
other name or instruction is refused. No import is made and no attribute looked up on its behalf.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_STEPS = 1_000_000
"""Instructions that are followed; the largest published checkpoints have some 100,000."""

ELEMENTS = {
    "float32": ("F32", 4), "float64": ("F64", 8), "float16": ("F16", 2), "bfloat16": ("BF16", 2),
    "int64": ("I64", 8), "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1),
    "uint64": ("U64", 8), "uint32": ("U32", 4), "uint16": ("U16", 2), "uint8": ("U8", 1),
    "bool": ("BOOL", 1), "complex64": ("C64", 8),
    "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1),
}  # fmt: skip
"""Element type → its name in a safetensors file, and its bytes."""

_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "ComplexFloat": "complex64",
}  # fmt: skip
_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "u1": "<B", "b1": "<?"}


class RefusedError(Exception):
    """What a file holds is not plain weights; the message says what it is."""


@dataclass(frozen=True)
class Storage:
    """A run of bytes in the file: its key, its element type (None: raw bytes), its count."""

    key: str
    dtype: str | None
    count: int


@dataclass(frozen=True)
class TensorView:
    """A tensor as described: where in which storage, nothing of it read yet."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """A name from the closed table, standing for itself."""

    text: str


class _Mark:
    """Where the arguments of a later instruction begin."""


_MARK = _Mark()


def load(data: bytes) -> tuple[Any, int]:
    """The value of a pickle and where it ends.

    Dictionaries, lists, tuples, sets, texts, bytes, numbers, and `TensorView`s.
    Raises RefusedError for any instruction or name that is not in the tables here.
    """
    machine = _Machine(data)
    try:
        return machine.run(), machine.place
    except RefusedError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, struct.error, UnicodeError) as error:
        raise RefusedError(
            f"a pickle that is damaged at byte {machine.place}: {type(error).__name__}"
        ) from None


class _Machine:
    """The stack, the memo and the place in the bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            code = self.take(1)[0]
            if code == ord("."):
                (value,) = self.stack
                return value
            step = _STEPS.get(code)
            if step is None:
                raise RefusedError(
                    f"a pickle with instruction 0x{code:02x}, which is no plain data"
                )
            step(self)
        raise RefusedError(f"a pickle of more than {MAX_STEPS} instructions")

    def take(self, count: int) -> bytes:
        if count < 0 or self.place + count > len(self.data):
            raise RefusedError("a pickle that is cut short")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def line(self) -> str:
        end = self.data.index(b"\n", self.place)
        text = self.take(end - self.place).decode()
        self.place += 1
        return text

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken off with it."""
        for index in reversed(range(len(self.stack))):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise RefusedError("a pickle without a mark where one is needed")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]


def _constant(make: Callable[[], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.push(make())


def _counted(form: str, read: Callable[[bytes], Any]) -> Callable[[_Machine], None]:
    """A value of a stated number of bytes."""
    return lambda m: m.push(read(m.take(m.number(form))))


def _several(count: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        values = tuple(m.stack.pop() for _ in range(count))
        m.push(values[::-1])

    return step


def _top(m: _Machine, kind: type) -> Any:
    """The value on top, which must be just this: instructions on other things are refused."""
    if type(m.stack[-1]) is not kind:
        raise RefusedError(
            f"a pickle that uses a {type(m.stack[-1]).__name__} as a {kind.__name__}"
        )
    return m.stack[-1]


def _append(m: _Machine) -> None:
    value = m.stack.pop()
    _top(m, list).append(value)


def _extend(m: _Machine) -> None:
    values = m.marked()
    _top(m, list).extend(values)


def _key(value: Any) -> Any:
    """A key, which must be flat: the hash of a deep one is a deep recursion."""
    if type(value) not in (str, int, float, bool, type(None)):
        raise RefusedError(f"a pickle with a {type(value).__name__} as a key")
    return value


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return {_key(k): v for k, v in zip(values[::2], values[1::2], strict=True)}


def _set_item(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _top(m, dict)[_key(key)] = value


def _set_items(m: _Machine) -> None:
    values = m.marked()
    _top(m, dict).update(_pairs(values))


def _add_items(m: _Machine) -> None:
    values = m.marked()
    _top(m, set).update(_key(value) for value in values)


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.push(_named(f"{module} {name}"))


def _global(m: _Machine) -> None:
    module = m.line()
    m.push(_named(f"{module} {m.line()}"))


def _named(text: str) -> Name:
    text = text.replace("numpy._core.", "numpy.core.")
    known = text in _CALLS or text in _NEW or _element(text) is not None
    if not known and text != "torch.storage UntypedStorage":
        raise RefusedError(f"a pickle that names {text.replace(' ', '.')[:120]}; that is no weight")
    return Name(text)


def _element(name: str) -> str | None:
    """The element type that `torch.FloatStorage` or `torch.float32` stand for."""
    module, _, last = name.partition(" ")
    if module == "torch" and last in ELEMENTS:
        return last
    if module in ("torch", "torch.storage") and last.endswith("Storage"):
        return _STORAGES.get(last.removesuffix("Storage"))
    return None


def _reduce(m: _Machine) -> None:
    arguments, called = m.stack.pop(), m.stack.pop()
    if type(called) is not Name or type(arguments) is not tuple or called.text not in _CALLS:
        what = called.text.replace(" ", ".") if type(called) is Name else type(called).__name__
        raise RefusedError(f"a pickle that calls {what}; that is no weight")
    m.push(_CALLS[called.text](*arguments))


def _new(m: _Machine) -> None:
    arguments, called = m.stack.pop(), m.stack.pop()
    if type(called) is not Name or called.text not in _NEW or arguments != ():
        raise RefusedError("a pickle that makes an object; that is no weight")
    m.push({})


def _build(m: _Machine) -> None:
    """What follows an object: the `_metadata` of a state dict, the fields of a namespace."""
    state = m.stack.pop()
    target = m.stack[-1]
    if type(target) is dict and type(state) is dict:
        if "_metadata" not in state:
            target.update(state)
    elif type(target) is not tuple or type(state) is not tuple:
        raise RefusedError(f"a pickle that gives a {type(target).__name__} a state")


def _persistent(m: _Machine) -> None:
    """("storage", kind, key, device, count), and in older files a view of it."""
    given = m.stack.pop()
    if type(given) is not tuple or len(given) not in (5, 6) or given[0] != "storage":
        raise RefusedError("a pickle that refers to something that is no storage")
    kind, key, count = given[1], given[2], given[4]
    if type(kind) is not Name or type(key) is not str or type(count) is not int or count < 0:
        raise RefusedError("a pickle with a storage that makes no sense")
    if len(given) == 6 and given[5] is not None:
        raise RefusedError("a pickle with a view of a storage, a form that is not read")
    m.push(Storage(key, _element(kind.text), count))


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, *rest: Any
) -> TensorView:
    dtype = storage.dtype if type(storage) is Storage else None
    if rest and type(rest[0]) is Name:
        dtype = _element(rest[0].text)
    if type(storage) is not Storage or dtype is None:
        raise RefusedError("a tensor of an element type that is not read")
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or len(shape) != len(strides):
        raise RefusedError("a tensor whose shape makes no sense")
    return TensorView(storage, dtype, offset, tuple(shape), tuple(strides))


def _scalar(kind: Any, data: Any) -> Any:
    """A NumPy number, as trainers leave among their figures."""
    if type(kind) is not tuple or type(data) is not bytes or kind[0] not in _SCALARS:
        raise RefusedError("a NumPy value of a type that is not read")
    return struct.unpack(_SCALARS[kind[0]], data)[0]


def _kind(text: Any, *_: Any) -> Any:
    return (str(text).lstrip("<|="),)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": lambda pairs=(): {_key(k): v for k, v in pairs},
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch._utils _rebuild_parameter_with_state": lambda data, *_: data,
    "torch Size": lambda sides=(): tuple(sides),
    "torch device": lambda *parts: ":".join(map(str, parts)),
    "numpy.core.multiarray scalar": _scalar,
    "numpy dtype": _kind,
    "_codecs encode": lambda text, *_: text.encode("latin1"),
}
_NEW = {"argparse Namespace"}

_text = bytes.decode
_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: lambda m: _protocol(m.take(1)[0]),
    0x95: lambda m: _frame(m.take(8)),
    ord("("): lambda m: m.push(_MARK),
    ord("0"): lambda m: _drop(m.stack.pop()),
    ord("1"): lambda m: _drop(m.marked()),
    ord("N"): _constant(lambda: None),
    0x88: _constant(lambda: True),
    0x89: _constant(lambda: False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: _counted("<B", lambda b: int.from_bytes(b, "little", signed=True)),
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("X"): _counted("<I", _text),
    0x8C: _counted("<B", _text),
    0x8D: _counted("<Q", _text),
    ord("U"): _counted("<B", _text),
    ord("T"): _counted("<i", _text),
    ord("B"): _counted("<I", bytes),
    ord("C"): _counted("<B", bytes),
    0x8E: _counted("<Q", bytes),
    ord(")"): _constant(tuple),
    ord("t"): lambda m: m.push(tuple(m.marked())),
    0x85: _several(1),
    0x86: _several(2),
    0x87: _several(3),
    ord("]"): _constant(list),
    ord("l"): lambda m: m.push(m.marked()),
    ord("a"): _append,
    ord("e"): _extend,
    ord("}"): _constant(dict),
    ord("d"): lambda m: m.push(_pairs(m.marked())),
    ord("s"): _set_item,
    ord("u"): _set_items,
    0x8F: _constant(set),
    0x90: _add_items,
    0x91: lambda m: m.push({_key(value) for value in m.marked()}),
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _new,
    ord("b"): _build,
    ord("Q"): _persistent,
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.push(m.memo[m.number("<B")]),
    ord("j"): lambda m: m.push(m.memo[m.number("<I")]),
}


def _protocol(version: int) -> None:
    if not 2 <= version <= 5:
        raise RefusedError(f"a pickle of protocol {version}")


def _frame(length: bytes) -> None:
    """How much follows is a hint for readers of streams."""
    del length


def _drop(value: Any) -> None:
    del value
