"""What the source never does: load pickles, run text, unpack archives, lift limits on pictures."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "fromnoise"
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal", "imp",
}  # fmt: skip
CALLS = {
    "torch.load", "torch.hub.load", "torch.package.PackageImporter", "torch.jit.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "numpy.fromfile",
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "shutil.unpack_archive",
}  # fmt: skip
METHODS = {"extractall", "read_pickle", "trust_remote_code"}
ATTRIBUTES = {"MAX_IMAGE_PIXELS", "LOAD_TRUNCATED_IMAGES"}
NETWORK = {"requests", "urllib.request", "http.client", "socket", "ftplib"}
# Each finding that is meant, and why.
ALLOWED = {
    ("app/verbs.py", "import_module of a variable"),  # a name from the table of verbs
    ("__init__.py", "import_module of a variable"),  # a name from the package's own table
    ("training/__init__.py", "import_module of a variable"),  # the same
    ("interop/onnx_export.py", "import_module of a variable"),  # one of two constants
}


def findings(text: str) -> list[str]:
    """What a source text does that is forbidden."""
    return [fault for node in ast.walk(ast.parse(text)) for fault in _faults(node)]


def _faults(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [f"import {a.name}" for a in names if _forbidden(a.name)]
        case ast.ImportFrom(module=str(module), names=names):
            whole = [f"{module}.{a.name}" for a in names]
            return [f"import {n}" for n in (module, *whole) if _forbidden(n) or n in CALLS]
        case ast.Call():
            return _call(node)
        case ast.Assign(targets=targets):
            return [f"sets {t.attr}" for t in targets if _is_limit(t)]
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            return [f"sets {target.attr}"] if _is_limit(target) else []
    return []


def _forbidden(module: str) -> bool:
    return module.split(".")[0] in MODULES or module in NETWORK


def _is_limit(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and target.attr in ATTRIBUTES


def _dotted(node: ast.expr) -> str:
    """The name that is called; of what no name stands before, the last part."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _call(node: ast.Call) -> list[str]:
    name = _dotted(node.func)
    last = name.split(".")[-1]
    faults = [f"calls {name}"] if name in CALLS or last in METHODS else []
    if last == "import_module" and not isinstance(node.args[0], ast.Constant):
        faults.append("import_module of a variable")
    for keyword in node.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if (keyword.arg, value) in (
            ("shell", True),
            ("allow_pickle", True),
            ("weights_only", False),
        ):
            faults.append(f"{keyword.arg}={value}")
        if keyword.arg == "trust_remote_code" and value is not False:
            faults.append("trust_remote_code")
    return faults


def test_the_source_does_none_of_it() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    found = {
        (path.relative_to(SOURCE).as_posix(), fault)
        for path in files
        for fault in findings(path.read_text("utf-8"))
    }
    assert found <= ALLOWED, sorted(found - ALLOWED)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import torch\ntorch.load('x.pt')", "calls torch.load"),
        ("import torch\ntorch.load('x.pt', weights_only=True)", "calls torch.load"),
        ("from torch import load", "import torch.load"),
        ("import pickle", "import pickle"),
        ("from pickle import loads", "import pickle"),
        ("import joblib.numpy_pickle", "import joblib.numpy_pickle"),
        ("import yaml\nyaml.load(t, yaml.SafeLoader)", "calls yaml.load"),
        ("eval('1')", "calls eval"),
        ("exec(text)", "calls exec"),
        ("archive.extractall(folder)", "calls archive.extractall"),
        ("subprocess.run('ls', shell=True)", "shell=True"),
        ("np.load(p, allow_pickle=True)", "allow_pickle=True"),
        ("Image.MAX_IMAGE_PIXELS = None", "sets MAX_IMAGE_PIXELS"),
        ("ImageFile.LOAD_TRUNCATED_IMAGES = True", "sets LOAD_TRUNCATED_IMAGES"),
        ("import_module(name)", "import_module of a variable"),
        ("import urllib.request", "import urllib.request"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "trust_remote_code"),
    ],
)
def test_each_of_it_is_found(text: str, fault: str) -> None:
    """The control: a rule that finds nothing would pass on anything."""
    assert fault in findings(text)


@pytest.mark.parametrize(
    "text", ["yaml.safe_load(t)", "import_module('torch')", "model.evaluate(x)", "np.load(p)"]
)
def test_what_is_allowed_is_not_found(text: str) -> None:
    assert findings(text) == []
