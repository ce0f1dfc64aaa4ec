"""Files that mean harm: pickles that call, archives that lie, tensors larger than their file."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def call(name: str, *arguments: bytes) -> bytes:
    """GLOBAL module.name, its arguments, REDUCE."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def zipped(pkl: bytes, **entries: bytes) -> bytes:
    """An archive as torch.save lays it out, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pkl)
        archive.writestr("archive/byteorder", b"little")
        for name, data in entries.items():
            archive.writestr(f"archive/data/{name.removeprefix('k')}", data)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def saved(value: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


class Reduced:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.made


def runs(canary: Path) -> dict[str, bytes]:
    """Pickles that make the file `canary` when they are loaded in the usual way."""
    touch = f"open({str(canary)!r}, 'w').close()"
    shell = f"touch {canary}"
    imported = call("builtins.__import__", text("os"))
    inner = pickle.dumps(Reduced(exec, touch), 2)
    return {
        "os.system": program(call("os.system", text(shell))),
        "posix.system": program(call("posix.system", text(shell))),
        "os.mkdir": program(call("os.mkdir", text(str(canary)))),
        "io.open": program(call("io.open", text(str(canary)), text("w"))),
        "eval": program(call("builtins.eval", text(touch))),
        "exec": program(call("builtins.exec", text(touch))),
        "subprocess": program(
            call("subprocess.run", b"](" + text("touch") + text(str(canary)) + b"e")
        ),
        "getattr chain": program(
            b"(" + call("builtins.getattr", imported, text("system")) + b"0"
            + b"1" + call("builtins.getattr", imported, text("system"))
            + b"(" + text(shell) + b"tR"
        ),
        "nested pickle": program(
            call("pickle.loads", b"B" + struct.pack("<I", len(inner)) + inner)
        ),
        "reduce in a dict": pickle.dumps({"a": Reduced(exec, touch)}, 2),
        "protocol 4": pickle.dumps(Reduced(exec, touch), 4),
        "protocol 5": pickle.dumps(Reduced(exec, touch), 5),
        "protocol 0": pickle.dumps(Reduced(exec, touch), 0),
        "INST": b"(" + b"S'" + shell.encode() + b"'\n" + b"ios\nsystem\n.",
        "OBJ": program(b"(cos\nsystem\n" + text(shell) + b"o"),
        "runpy": program(call("runpy._run_code", text(touch), b"}")),
        "timeit": program(
            call("timeit.timeit", text(touch), text(touch), b"ctime\ntime\n", b"K\1")
        ),
        "numpy gadget": program(
            call("numpy.testing._private.utils.runstring", text(touch), b"}")
        ),
        "load_from_bytes": program(
            call(
                "torch.storage._load_from_bytes",
                b"B" + struct.pack("<I", len(evil := saved(Reduced(exec, touch)))) + evil,
            )
        ),
    }  # fmt: skip


def inert(canary: Path) -> dict[str, bytes]:
    """Pickles for other gadgets and instructions: to be refused, whatever they would do."""
    shell = text(f"touch {canary}")
    good = saved({"w": torch.ones(3)})
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        ordinary = archive.read("archive/data.pkl")[2:-1]
    return {
        "popen": program(call("os.popen", shell)),
        "webbrowser": program(call("webbrowser.open", shell)),
        "socket": program(call("socket.socket")),
        "ctypes": program(call("ctypes.CDLL", text("libc.so.6"))),
        "rmtree": program(call("shutil.rmtree", text("/nowhere"))),
        "import_module": program(call("importlib.import_module", text("antigravity"))),
        "compile": program(call("builtins.compile", text("1"), text("x"), text("eval"))),
        "methodcaller": program(call("operator.methodcaller", text("system"), shell)),
        "partial": program(call("functools.partial", b"cos\nsystem\n", shell)),
        "copyreg": program(call("copyreg._reconstructor", b"cos\nsystem\n", b"N", b"N")),
        "torch.load": program(call("torch.serialization.load", text("/x.pt"))),
        "torch.hub": program(call("torch.hub.load", text("a/b"), text("c"))),
        "hydra": program(call("hydra.utils.instantiate", b"}")),
        "dotted globals": b"\x80\x04" + b"\x8c\x0ctorch._utils" + b"\x8c\x24"
        + b"_rebuild_tensor_v2.__globals__.popen" + b"\x93.",
        "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + shell + b"\x85R.",
        "newobj of a call": program(b"cos\nsystem\n" + shell + b"\x85\x81"),
        "newobj_ex": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
        "extension": program(b"\x82\x01"),
        "build on a name": program(b"ccollections\nOrderedDict\n}" + text("x") + b"K\1sb"),
        "call of a list": program(b"])R"),
        "persistent text": program(text("/etc/passwd") + b"Q"),
        "persistent line": b"\x80\x02P/etc/passwd\n.",
        "next buffer": b"\x80\x05\x97.",
        "deep key": program(b")" + b"\x85" * 100_000 + b"q\0" + b"0}h\0Ns"),
        "beside good weights": program(ordinary + b"0" + call("os.system", shell)),
        "no stop": b"\x80\x02" + b"N" * 50,
        "no stack": b"\x80\x02R.",
        "many instructions": program(b"N0" * 600_000 + b"N"),
        "text of 4 GiB": program(b"X\xff\xff\xff\xff"),
        "memo of 4 billion": program(b"Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff"),
    }  # fmt: skip


def tensor(
    count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, key: str = "0"
) -> bytes:
    """The pickle of {"w": a float tensor}, which may say anything of itself."""
    number = lambda n: b"\x8a\x08" + struct.pack("<q", n)  # noqa: E731
    several = lambda ns: b"(" + b"".join(map(number, ns)) + b"t"  # noqa: E731
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
        + number(count) + b"tQ"
    )  # fmt: skip
    rebuilt = call(
        "torch._utils._rebuild_tensor_v2",
        storage, number(offset), several(shape), several(strides), b"\x89",
        call("collections.OrderedDict"),
    )  # fmt: skip
    return program(b"}" + text("w") + rebuilt + b"s")


def laughs() -> bytes:
    """Forty lists, each holding the one before twice."""
    body = b"]q\0" + b"0"
    for i in range(40):
        body += b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) + b"0"
    return program(body + b"}" + text("w") + b"h\x28" + b"s")


def nested_laughs() -> bytes:
    """Twelve dictionaries, each holding the one before ten times."""
    body = b"}q\0" + b"0"
    for i in range(12):
        pairs = b"".join(text(str(k)) + b"h" + bytes([i]) for k in range(10))
        body += b"}(" + pairs + b"uq" + bytes([i + 1]) + b"0"
    return program(b"h\x0c".join((body, b"")))


def bombs() -> dict[str, bytes]:
    """Small files that would ask for much memory or disk."""
    word = bytes(4)
    sparse = torch.sparse_coo_tensor(torch.zeros(1, 1).long(), torch.ones(1), (2**40,))
    deflated = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(4_000_000)}))) as plain,
        zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as squeezed,
    ):
        for name in plain.namelist():
            squeezed.writestr(name, plain.read(name))
    entry = b"PK\x01\x02" + struct.pack("<24xH16x1s", 1, b"x")
    many = b"PK\x03\x04" + bytes(26) + entry * 100_000
    many += b"PK\x05\x06" + struct.pack("<8xIIH", len(many) - 30, 30, 0)
    twice = zipped(
        program(
            b"}(" + b"".join(
                text(str(i)) + tensor(2**18, (2**18,), (1,))[3 + len(text("w")) : -2]
                for i in range(8)
            ) + b"u"
        ),
        k0=bytes(2**20),
    )  # fmt: skip
    return {
        "sparse": saved({"w": sparse}),
        "stride 0": saved({"w": torch.ones(1).expand(2**30)}),
        "deflated": deflated.getvalue(),
        "4 TiB": zipped(tensor(2**40, (2**40,), (1,)), k0=word),
        "overflowing": zipped(tensor(2**40, (2**40, 2**40), (2**40, 1)), k0=word),
        "out of bounds": zipped(tensor(1, (1,), (1,), offset=1), k0=word),
        "stride out of bounds": zipped(tensor(2, (2,), (2**40,)), k0=word * 2),
        "overlapping": zipped(tensor(3, (2, 2), (1, 1)), k0=word * 4),
        "negative": zipped(tensor(1, (-1,), (1,)), k0=word),
        "no storage": zipped(tensor(1, (1,), (1,), key="9"), k0=word),
        "one storage many times": twice,
        "quantised": saved({"w": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)}),
        "laughs": zipped(laughs()),
        "laughing dictionaries": zipped(nested_laughs()),
        "deep": zipped(program(b"}" + (text("a") + b"}") * 100 + b"s" * 100)),
        "many entries": many,
        "long pickle": zipped(b"\x80\x02" + b"N" * (17 * 2**20)),
        "cut": saved({"w": torch.ones(1000)})[:-100],
        "flipped": saved({"w": torch.ones(1000)}).replace(
            struct.pack("<2f", 1, 1), struct.pack("<2f", 1, 3), 1
        ),
    }


def archives(canary: Path) -> dict[str, bytes]:
    """Other containers: old, foreign, or with names that lead elsewhere."""
    evil = Reduced(exec, f"open({str(canary)!r}, 'w').close()")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    up = io.BytesIO()
    with zipfile.ZipFile(up, "w") as archive:
        archive.writestr("archive/data.pkl", program(b"}"))
        archive.writestr("archive/../../evil", b"x")
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("archive/data.pkl", program(b"}"))
        archive.writestr("archive/data.pkx", program(b"N"))
    return {
        "legacy": saved({"w": evil}, legacy=True),
        "zip": saved({"w": torch.ones(2), "optimizer": evil}),
        "rng": saved({"state_dict": {"w": torch.ones(2)}, "rng": evil}),
        "tar": tar.getvalue(),
        "bare pickle": pickle.dumps(evil),
        "names that lead up": up.getvalue(),
        "a name twice": twice.getvalue().replace(b"data.pkx", b"data.pkl"),
        "empty": b"",
        "text": b"hello",
        "no weights": saved({"step": 3}),
        "a list": saved([torch.ones(2)]),
        "module": saved(torch.nn.Linear(2, 2)),
    }
