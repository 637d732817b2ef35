"""Command lines with bad inputs: every option of every command, every field of a definition, broken files.

Each case is refused, or the input is legal after all. `cases` mixes the kinds, so that a part is a sample of all.
"""

import codecs
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import click

from mhist_tune.cli import COMMANDS, cli
from mhist_tune.definition.hyperparameters import FIELDS

DIGITS = "9" * 5000
"""A number with more digits than Python turns into text."""

NUMBERS = (
    *("-1", "0", "1e400", "nan", "inf", "-inf", "1.5", "", " ", "x", "0x10", "1_000", "\uff11", "\u00b2", "--", "true"),
    *("9" * 30, f"-{'9' * 30}", DIGITS, "9223372036854775808", "4294967296", "1e-400", "1,5", "1 2", "1\n2", "\udcff"),
)
TEXTS = (
    *("", " ", "x", "\n", "a\nb", "\x1b[31mred", "\x00", "a\x00b", "\udcff", "\U0001f642" * 300, "x" * 300, "x" * 5000),
    *(
        "..",
        "../../x",
        "/",
        "~",
        "-",
        "%00",
        "%s%n",
        "{0}",
        "$(id)",
        "'; DROP TABLE mhist_studies; --",
        "a/b",
        "\u202etxt",
    ),
    *("nul", "con", ".", "a.toml", "a=b", "=", "=1", "learning_rate=", "learning_rate=1..", "learning_rate=nan..inf"),
    *(f"learning_rate=0..{DIGITS}", "epochs=1..2", "hf-hub:", "hf-hub:..", "file:///etc/passwd", "0,,1", "-1", "0,0"),
)
PATHS = (
    *("", " ", "missing", "missing/deeper", "file", "file/below", "empty", "loop", "fifo", "/dev/null", "/dev/null/x"),
    *("/proc/x", "/proc/self/mem", "/dev/full", "x" * 300, "x/" * 3000, "a\x00b", "\udcff", "a\nb", "~", "~nobody/x"),
    *("unreadable.toml", "http://x/y", "s3://", "s3://u:p@b/x", "-x"),
)
URLS = (
    *(
        "",
        "x",
        "sqlite://",
        "sqlite:///",
        "sqlite:////dev/null",
        "sqlite:///file/x.db",
        "sqlite:///file",
        "sqlite:///fifo",
    ),
    *(
        "sqlite:///loop",
        "sqlite:///x.db?a=b",
        "sqlite:///:memory:",
        f"sqlite:///{'x' * 300}",
        "sqlite:///a\x00b",
        "sqlite:///\udcff",
    ),
    *("postgres://u:SECRET@h/d", "postgresql+psycopg2://u:SECRET@h/d", "mysql://u:SECRET@h/d", "http://u:SECRET@h"),
    *(
        "postgresql://u:SECRET@h:x/d",
        "postgresql://u:a@SECRET@h/d",
        "postgresql://u:SECRET@h/d?x=y",
        f"{'x' * 5000}://y",
    ),
    *("postgresql://u:SECRET@127.0.0.1:1/d", "postgresql://u:a/SECRET@h/d", "postgresql://u:SECRET@[::1/d", "a\nb://c"),
)
VALUES = (
    *(
        '""',
        '" "',
        '"x"',
        '"\\u0000"',
        '"a\\nb"',
        '"\\u001b[31m"',
        "true",
        "-1",
        "0",
        "1",
        "0.5",
        "1.5",
        "nan",
        "inf",
        "-inf",
    ),
    *(
        "1e308",
        "1e-320",
        "9" * 30,
        f"-{'9' * 30}",
        "9223372036854775808",
        f"0x{'f' * 5000}",
        DIGITS,
        "[]",
        "[1]",
        "[[]]",
    ),
    *(
        '["a", 1]',
        "{}",
        "{ a = 1 }",
        "{ low = 1 }",
        "{ low = 2, high = 1 }",
        "{ low = 0, high = nan }",
        "{ choices = [] }",
    ),
    *(
        "{ choices = [1, 1] }",
        "{ choices = [nan] }",
        "{ choices = [[]] }",
        "{ choices = 1 }",
        "{ low = 0, high = 1, log = true }",
    ),
    *("{ low = 1, high = 2, log = 1 }", "{ low = 1, high = 2, step = 1 }", f"{{ low = 1, high = 0x{'f' * 500} }}"),
    *(
        "1979-05-27",
        "1979-05-27T07:32:00Z",
        "07:32:00",
        f'"{"x" * 5000}"',
        f'"{"head+last" + "9" * 5000}"',
        '"\U0001f642"',
    ),
    *(
        f'"{"a" * 255}.safetensors"',
        '"/dev/zero.safetensors"',
        '"a\\u0000.safetensors"',
        '"hf-hub:x"',
        '"hf-hub:../../x"',
    ),
    *('"local-dir:/etc"', '"resnet18.x"', '"resnet18.a\\u0000"', '"first99999999999999999999"', '"firstx"'),
    *(f"[{', '.join(str(n) for n in range(5000))}]", f"{{ choices = [{', '.join(str(n) for n in range(10_000))}] }}"),
    *(
        f"{'[' * 100}{']' * 100}",
        f"{'{a=' * 60}1{'}' * 60}",
        f"{{ low = {DIGITS}, high = 1 }}",
        "{ low = -1e308, high = 1e308 }",
    ),
)
OPTIONS = (
    *("{ pretrained = true }", "{ num_classes = 7 }", "{ in_chans = 1 }", "{ drop_rate = 0.5 }"),
    *('{ model_name = "x" }', '{ checkpoint_path = "/etc/passwd" }', '{ checkpoint_path = "missing" }'),
    *("{ exportable = true }", "{ scriptable = true }", '{ cache_dir = "/proc/x" }', "{ pretrained_cfg = {} }"),
    *('{ pretrained_cfg = "x" }', "{ pretrained_cfg_overlay = { file = 1 } }", "{ nonsense = 1 }"),
    *("{ img_size = -1 }", "{ img_size = 99999999 }", '{ img_size = "x" }', "{ features_only = true }"),
    *('{ global_pool = "nonsense" }', "{ stem_width = 0 }", "{ stem_width = -1 }", "{ block = 1 }"),
    *("{ layers = [] }", "{ layers = [999999999] }", '{ act_layer = "nonsense" }', "{ num_classes = -1 }"),
    *("{ drop_path_rate = nan }", "{ drop_path_rate = 7.0 }", '{ "" = 1 }', '{ "a b" = 1 }', "{ self = 1 }"),
    *(
        "{ depth = 999 }",
        "{ depths = [400, 400] }",
        "{ output_stride = 3 }",
        "{ cardinality = 0 }",
        "{ base_width = 0 }",
    ),
    *("{ a = 1979-05-27 }", "{ kernel_size = [] }", '{ norm_layer = "x" }'),
)
DEFINITION = """[study]
name = "bad"
n_trials = 2
sampler = { name = "random" }
pruner = { name = "none" }
[fixed]
model = "test_resnet"
weights = "random"
image_size = 32
epochs = 1
micro_batch_size = 16
[space]
learning_rate = { low = 1e-3, high = 3e-2, log = true }
"""


@dataclass(frozen=True)
class Case:
    """A command line and the files that it reads.

    Attributes:
        kind: the kind of bad input, for messages.
        arguments: the command line. `{data}` stands for a good data set.
        files: contents by name, written into the working directory.
        may_work: whether the input may be legal after all.
    """

    kind: str
    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    may_work: bool = True


def cases(seed: int, n: int) -> list[Case]:
    """Return `n` cases: the same for the same seed."""
    rng = random.Random(seed)
    found = [*_options(), *_definitions(), *_files(), *_overrides()]
    rng.shuffle(found)
    while len(found) < n:
        found.append(_mutated(rng))
    return found[:n]


def _options() -> Iterator[Case]:
    """Yield every option and argument of every command with every bad value; none of them trains or serves."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        commands = {(name,): command}
        if isinstance(command, click.Group):
            commands = {(name, sub): command.get_command(context, sub) for sub in command.list_commands(context)}
        for path, one in commands.items():
            assert one is not None
            for param in one.params:
                for value in _values(param):
                    yield Case(f"{' '.join(path)} {param.name}", _line(path, one, param, value))


def _values(param: click.Parameter) -> tuple[str, ...]:
    if isinstance(param, click.Option) and param.is_flag:
        return ()
    if param.name == "storage_url":
        return URLS
    if isinstance(param.type, click.Path):
        return PATHS
    if param.name == "checkpoints":
        return (*PATHS, *URLS)
    return NUMBERS if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType) else TEXTS


def _line(path: tuple[str, ...], command: click.Command, bad: click.Parameter, value: str) -> tuple[str, ...]:
    """Return a command line that is right but for one value. What would train, serve or ask names no study."""
    words: list[str] = []
    for param in command.params:
        if param is bad:
            words += [param.opts[0], value] if isinstance(param, click.Option) else [value]
        elif isinstance(param, click.Argument) and param.required:
            words += [_RIGHT.get(param.name or "", "nothing")] * (2 if param.name == "names" else 1)
        elif param.name == "data_root":
            words += ["--data", "{data}"]
        elif param.name == "yes":
            words.append("--yes")
        elif param.name == "n_trials" and path == ("extend",):
            words += ["--n-trials", "1"]
        elif path == ("data", "synthesize") and param.name in ("n_images", "image_size"):
            words += [param.opts[0], "32"]
    return (*path, *words)


_RIGHT = {"root": "{data}", "trial": "0", "folder": "out", "images": "x.png"}


def _definitions() -> Iterator[Case]:
    """Yield definitions in which one value is another one."""
    for value in VALUES:
        for name in FIELDS:
            for table in ("fixed", "space"):
                yield _definition(f"[{table}] {name}", _with(table, name, value))
        for table, names in {
            "study": (
                "name",
                "n_trials",
                "split_seed",
                "val_fraction",
                "smoothing",
                "lease_s",
                "sampler",
                "pruner",
                "x",
            ),
            "confirm": ("top", "n_folds"),
            "start": ("learning_rate", "epochs"),
            "row": ("learning_rate", "label", "reported", "exclude_votes"),
        }.items():
            for name in names:
                yield _definition(f"[{table}] {name}", _with(table, name, value))
        for name in ("study", "fixed", "space", "start", "row", "confirm", "x"):
            yield _definition(f"table {name}", f"{name} = {value}\n{'' if name == 'x' else DEFINITION}")
        for name in ("sampler", "pruner"):
            for option in ("name", "seed", "n_startup_trials", "percentile", "min_resource", "audit", "x"):
                other = "median" if name == "pruner" else "tpe"
                entry = f'{{ name = "{other}", {option} = {value} }}' if option != "name" else f"{{ name = {value} }}"
                yield _definition(f"[study] {name} {option}", _with("study", name, entry))
    for options in OPTIONS:
        for model in ("test_resnet", "resnet18", "test_vit"):
            text = _with("fixed", "model_options", options).replace('"test_resnet"', f'"{model}"')
            yield _definition(f"model_options {options}", text)
    for votes in ("[0, 1, 2, 3]", "[4, 5, 6, 7]", "[0, 1, 2, 3, 4, 5, 6, 7]", "[8]", "[-1]"):
        yield _definition(f"exclude_votes {votes}", _with("fixed", "exclude_votes", votes))


def _with(table: str, name: str, value: str) -> str:
    """Return the definition with one more or another value in a table."""
    lines = [line for line in DEFINITION.splitlines() if not line.startswith(f"{name} =")]
    head = {"start": "[[start]]", "row": "[[row]]"}.get(table, f"[{table}]")
    if head in lines:
        lines.insert(lines.index(head) + 1, f"{name} = {value}")
    else:
        lines += [head, f"{name} = {value}"]
    return "\n".join(lines)


def _definition(kind: str, text: str) -> Case:
    return Case(kind, ("create-study", "bad.toml", "--data", "{data}"), {"bad.toml": text.encode()})


def _files() -> Iterator[Case]:
    """Yield files that are no definitions, or in an encoding that editors choose."""
    text = DEFINITION
    contents = {
        "empty": b"",
        "BOM": codecs.BOM_UTF8 + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "UTF-16 without BOM": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "Latin-1": text.replace("bad", "b\u00e4d").encode("latin-1"),
        "NUL": text.encode() + b"\x00",
        "ESC": text.encode() + b"\x1b[31m = 1",
        "old Mac": text.replace("\n", "\r").encode(),
        "Windows": text.replace("\n", "\r\n").encode(),
        "deep list": b"a = " + b"[" * 5000,
        "deep table": b"a" + b".a" * 20_000 + b" = 1",
        "deep inline": b"a = " + b"{a=" * 5000,
        "deep options": text.encode().replace(b"epochs = 1", b"model_options = " + b"{a=" * 200 + b"1" + b"}" * 200),
        "huge number": text.encode().replace(b"epochs = 1", b"epochs = " + DIGITS.encode()),
        "long line": b"x" * 1_000_000,
        "large": text.encode() + b"# comment\n" * 500_000,
        "many problems": b"[fixed]\n" + b"".join(b"x%d = 1\n" % n for n in range(20_000)),
        "many starts": text.encode() + b"[[start]]\nlearning_rate = 0.002\n" * 3000,
        "many rows": text.encode().partition(b"[space]")[0]
        + b"".join(b"[[row]]\nepochs = %d\n" % n for n in range(1, 300)),
        "JSON": b'{"study": {"name": "bad"}}',
        "binary": bytes(range(256)) * 10,
        "twice": text.encode() * 2,
        "escape in key": b'[fixed]\n"a\\u001b[31m\\n" = 1\n',
    }
    for kind, content in contents.items():
        yield Case(f"file {kind}", ("create-study", "bad.toml", "--data", "{data}"), {"bad.toml": content})
    for path in PATHS:
        for command in ("create-study", "run"):
            yield Case(
                f"{command} {path[:20]!r}",
                (command, path, "--data", "{data}", *(("--devices", "7") * (command == "run"))),
            )
            yield Case(
                f"{command} {path[:20]!r}.toml",
                (command, f"{path}.toml", "--data", "{data}", "--devices", "7")
                if command == "run"
                else (command, f"{path}.toml", "--data", "{data}"),
            )


def _overrides() -> Iterator[Case]:
    for name in FIELDS:
        for value in (*NUMBERS, *TEXTS[:12]):
            yield Case(f"--set {name}", ("create-study", "demo", "--set", f"{name}={value}", "--data", "{data}"))


def _mutated(rng: random.Random) -> Case:
    """Return a definition in which some bytes were changed, removed, repeated or replaced."""
    content = bytearray(DEFINITION.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        length = rng.choice((1, 1, 1, 2, 5, 20))
        how = rng.randrange(5)
        if how == 0:
            content[at : at + length] = rng.randbytes(length)
        elif how == 1:
            del content[at : at + length]
        elif how == 2:
            content[at:at] = content[at : at + length] * rng.choice((1, 2, 50))
        elif how == 3:
            content[at:at] = rng.choice(VALUES).encode("utf-8", "surrogatepass")
        else:
            content[at : at + length] = rng.choice(
                (b'"', b"[", b"]", b"{", b"}", b"=", b"\n", b".", b"#", b"'''", b"-", b"9" * 40)
            )
    return Case("mutated", ("create-study", "bad.toml", "--data", "{data}"), {"bad.toml": bytes(content)})
