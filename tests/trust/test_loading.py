"""What comes with a model is data: no code of it runs, nothing is read or written elsewhere, and damage is named."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers.base.modules import Router

from st_vi.hub import import_viclsr, load
from tests.conftest import SENTENCES

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
HEAD = "2_MLPHead"


@pytest.fixture
def saved(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    return tmp_path / "saved"


@pytest.fixture
def routed(tiny_model, tmp_path):
    """The head inside of a Router."""
    tiny_model[2] = Router({"text": [tiny_model[2]]})
    tiny_model.save_pretrained(str(tmp_path / "routed"), create_model_card=False)
    return tmp_path / "routed"


@pytest.fixture
def exploit(tmp_path, monkeypatch):
    """Something whose unpickling leaves a trace, and a module whose import does. In the end there is none."""
    trace = tmp_path / "exploited"

    class Exploit:
        source = f"open({str(trace)!r}, 'w')\nfrom transformers import *\n"

        def __reduce__(self):
            return Path.touch, (trace,)

    monkeypatch.setattr(builtins, "input", lambda *args: pytest.fail("asked whether to run code"))
    yield Exploit()
    assert not trace.exists()


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_module(folder, index, **changes):
    file = folder / "modules.json"
    modules = json.loads(file.read_text())
    modules[index] |= changes
    file.write_text(json.dumps(modules))


def pickled(folder, exploit, **settings):
    """The weights in `folder` as a pickle, with code in it."""
    torch.save(load_file(folder / SAFETENSORS) | {"extra": exploit}, folder / BIN, **settings)
    (folder / SAFETENSORS).unlink()
    return folder / BIN


# --- code


@pytest.mark.parametrize("part", ["", HEAD])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_does_not_run(saved, exploit, part, zipped):
    file = pickled(saved / part, exploit, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f"{file} is not a file of plain weights.*or it would run code"):
        load(saved, local_files_only=True)


def test_pickled_code_in_a_router_does_not_run(routed, exploit):
    (file,) = routed.glob("2_Router/*/model.safetensors")
    with pytest.raises(ValueError, match=f"{pickled(file.parent, exploit)} is not a file of plain weights"):
        load(routed, local_files_only=True)


@pytest.mark.parametrize("key", ["model_kwargs", "model_args"])
def test_a_model_does_not_decide_how_it_is_unpickled(saved, exploit, key):
    """With these files a plain `SentenceTransformer(path)` of 6.2 runs the code: it looks for the dtype."""
    file = pickled(saved, exploit)
    config = json.loads((saved / "config.json").read_text())
    config.pop("dtype")
    (saved / "config.json").write_text(json.dumps(config))
    edit(saved / "sentence_bert_config.json", **{key: {"weights_only": False}})
    for mine in ({}, {"model_kwargs": {"weights_only": False}}):
        with pytest.raises(ValueError, match=f"{file} is not a file of plain weights"):
            load(saved, local_files_only=True, **mine)


def test_a_model_does_not_decide_where_it_is_written(saved, tmp_path):
    offload = {"device_map": {"": "disk"}, "offload_folder": str(tmp_path / "offload")}
    edit(saved / "sentence_bert_config.json", model_kwargs=offload)
    with suppress(NotImplementedError):  # transformers 5.5 leaves the weights on the disk, and none can be moved
        load(saved, local_files_only=True)
    assert not (tmp_path / "offload").exists()


AUTO_MAP = {"AutoConfig": "evil.XLMRobertaConfig", "AutoModel": "evil.XLMRobertaModel"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "changes", "refused"),
    [
        ("config.json", {"auto_map": AUTO_MAP}, False),
        ("config.json", {"auto_map": AUTO_MAP, "model_type": "unheard-of"}, True),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.XLMRobertaTokenizer"] * 2}}, False),
        ("sentence_bert_config.json", {"model_kwargs": {}, "config_kwargs": {}, "processor_kwargs": {}}, False),
    ],
    ids=["model", "unknown model", "tokenizer", "module"],
)
def test_code_in_the_folder_does_not_run(saved, exploit, file, changes, refused):
    """`auto_map` names it, and `trust_remote_code` asks for it, in every place there is."""
    (saved / "evil.py").write_text(exploit.source)
    changes |= {key: {"trust_remote_code": True} for key in changes if key.endswith("_kwargs")}
    if file != "sentence_bert_config.json":
        changes |= {"trust_remote_code": True}
    else:
        edit(saved / "config.json", auto_map=AUTO_MAP)
    edit(saved / file, **changes)
    if refused:
        with pytest.raises(ValueError, match="custom code"):
            load(saved, local_files_only=True)
    else:
        assert load(saved, local_files_only=True).encode(SENTENCES).shape == (8, 32)


NO_MODULES = [
    "sentence_transformers.base.modules.module.torch",  # it has a method `load`
    "sentence_transformers.util.file_io.load_dir_path",
    "sentence_transformers.SentenceTransformer",
    "sentence_transformers.nothing.Module",
    "sentence_transformers.",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NO_MODULES)
@pytest.mark.parametrize("nested", [False, True])
def test_not_everything_of_stock_is_a_module(saved, routed, name, nested):
    edit_module(saved, 2, type=name)
    config = routed / "2_Router" / "router_config.json"
    config.write_text(config.read_text().replace("st_vi.modules.mlp_head.MLPHead", name))
    with pytest.raises(ValueError, match=f"names (the class )?'{name}'"):
        load(routed if nested else saved, local_files_only=True)


def test_names_of_older_releases_are_known(saved):
    edit_module(saved, 0, type="sentence_transformers.models.Transformer")
    edit_module(saved, 1, type="sentence_transformers.models.Pooling")
    assert load(saved, local_files_only=True).encode(SENTENCES).shape == (8, 32)


# --- places


@pytest.fixture
def elsewhere(saved, tmp_path):
    """The head, in a folder of its own outside of the model."""
    return shutil.move(saved / HEAD, tmp_path / "elsewhere")


@pytest.mark.parametrize("way", ["up", "up and down", "absolute", "link"])
def test_a_module_elsewhere_is_not_read(saved, elsewhere, way):
    path = {"up": "../elsewhere", "up and down": f"{HEAD}/../../elsewhere", "absolute": str(elsewhere)}.get(way, HEAD)
    if way == "link":
        (saved / HEAD).symlink_to(elsewhere)
    edit_module(saved, 2, path=path)
    with pytest.raises(ValueError, match=f"{path}', which lies outside of it, in {elsewhere}"):
        load(saved, local_files_only=True)


@pytest.mark.parametrize("path", ["../../elsewhere", "/elsewhere", ""])
def test_a_router_reaches_nowhere_else(routed, path):
    config = json.loads((routed / "2_Router" / "router_config.json").read_text())
    (inner,) = config["types"]
    edit(routed / "2_Router" / "router_config.json", types={path: config["types"][inner]}, structure={"text": [path]})
    with pytest.raises(ValueError, match="itself for a module" if path == "" else "elsewhere', which lies outside"):
        load(routed, local_files_only=True)


def test_shards_elsewhere_are_not_read(saved, tmp_path):
    names = load_file(saved / SAFETENSORS)
    shutil.move(saved / SAFETENSORS, tmp_path / "a.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../a.safetensors")}
    (saved / f"{SAFETENSORS}.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json names the weights '\.\./a\.safetensors', outside"):
        load(saved, local_files_only=True)


@pytest.fixture
def cached(saved, tmp_path):
    """The model as the hub's cache keeps it: every file a link to a blob."""
    repository = tmp_path / "cache" / "models--owner--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    for number, file in enumerate(sorted(file for file in saved.rglob("*") if file.is_file())):
        (repository / "blobs").mkdir(parents=True, exist_ok=True)
        link = snapshot / file.relative_to(saved)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, repository / "blobs" / str(number))
        link.symlink_to(os.path.relpath(repository / "blobs" / str(number), link.parent))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return snapshot


def test_links_of_the_cache_are_followed(cached, saved, tmp_path):
    expected = load(saved, local_files_only=True).encode(SENTENCES)
    from_hub = load("owner/name", cache_folder=str(tmp_path / "cache"), local_files_only=True)
    assert (from_hub.encode(SENTENCES) == expected).all()
    assert (load(cached, local_files_only=True).encode(SENTENCES) == expected).all()


def test_what_is_refused_in_a_folder_is_refused_in_the_cache(cached, tmp_path):
    hub = {"cache_folder": str(tmp_path / "cache"), "local_files_only": True}
    weights = (cached / HEAD / SAFETENSORS).resolve()
    whole = weights.read_bytes()
    weights.write_bytes(b"short")
    with pytest.raises(ValueError, match=f"{HEAD}/{SAFETENSORS} is not a file of plain weights"):
        load("owner/name", **hub)
    weights.write_bytes(whole)
    edit_module(cached, 2, path="../../elsewhere")
    with pytest.raises(ValueError, match=r"Invalid model path '\.\./\.\./elsewhere'"):
        load("owner/name", **hub)


WRITES = """
import json, os, sys, tempfile

events = []
OPENED_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TELLTALE = {"os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate", "os.system", "os.exec",
            "os.posix_spawn", "subprocess.Popen", "socket.connect", "shutil.copyfile", "os.chmod"}

def hook(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & OPENED_TO_WRITE or event in TELLTALE:
        events.append([event, str(args[0])])

from st_vi import import_viclsr, load
import transformers.models.xlm_roberta.modeling_xlm_roberta
sys.addaudithook(hook)
open(os.devnull, "w").close()
seen, events = len(events), []
load(sys.argv[1], device="cpu").encode(["Trời mưa to."])
import_viclsr(sys.argv[2]).encode(["Trời mưa to."])
print(json.dumps({"hook_works": bool(seen), "events": events}))
"""


def tree(*folders):
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for folder in folders
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.slow
def test_loading_writes_nothing(saved, tiny_base, tmp_path):
    """Neither Python (its audit hook sees all of it) nor the libraries beneath it (the folders stay as they were)."""
    released, home, here = tmp_path / "released", tmp_path / "home", tmp_path / "here"
    shutil.copytree(tiny_base, released)
    backbone = {f"roberta.{name}": value for name, value in load_file(released / SAFETENSORS).items()}
    torch.save(backbone | {"mlp.dense.weight": torch.eye(32), "mlp.dense.bias": torch.zeros(32)}, released / BIN)
    (released / SAFETENSORS).unlink()
    home.mkdir()
    here.mkdir()
    before = tree(saved, released, home, here)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "ST_VI_"))}
    done = subprocess.run(
        [sys.executable, "-c", WRITES, saved, released],
        cwd=here,
        env=own | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"hook_works": True, "events": []}
    assert tree(saved, released, home, here) == before


# --- damage


def with_header(size):
    return lambda content: size.to_bytes(8, "little") + content[8:]


def with_longer_tensor(content):
    """A header that promises more bytes than the file has."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    header[last]["data_offsets"][1] *= 2
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-100],
    "cut in the header": lambda content: content[:50],
    "header longer than the file": with_header(10**7),
    "header of a gigabyte": with_header(10**9),
    "absurd header": with_header(2**64 - 1),
    "tensor longer than the file": with_longer_tensor,
    "garbage": lambda content: bytes(range(256)) * 10,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["", HEAD])
def test_damaged_weights_are_named(saved, part, damage):
    file = saved / part / SAFETENSORS
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(ValueError, match=f"{file} is not a file of plain weights: it is damaged or cut short"):
        load(saved, local_files_only=True)
    if not part:
        edit(saved / "config.json", model_type="xlm-roberta")
        with pytest.raises(ValueError, match=f"{file} is not a file of plain weights"):
            import_viclsr(saved, local_files_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is damaged or cut short, it is not JSON"),
        ("\x00", "is damaged or cut short, it is not JSON"),
        ("null", "must be a list of modules"),
        ("{}", "must be a list of modules"),
        ("[]", "must be a list of modules"),
        ("[1]", "must be a list of modules"),
        ('[{"name": "0", "path": ""}]', "module 0: 'type' must be a string, got None"),
        ('[{"name": "0", "path": 1, "type": "a.B"}]', "module 0: 'path' must be a string, got 1"),
        ('[{"name": "0", "path": "", "type": "a.B"}, {"path": "", "type": "a.B"}]', "module 1: 'name' must be a"),
        ('[{"name": "0", "path": "", "type": "a.B"}, {"name": "0", "path": "", "type": "a.B"}]', "the same name"),
    ],
)
def test_a_bad_list_of_modules_is_named(saved, content, message):
    (saved / "modules.json").write_text(content)
    with pytest.raises(ValueError, match=f"{saved}/modules.json.*{message}"):
        load(saved, local_files_only=True)


@pytest.mark.parametrize("content", ["{}", '{"types": []}', '{"types": {"a": 1}}'])
def test_a_bad_router_is_named(routed, content):
    (routed / "2_Router" / "router_config.json").write_text(content)
    with pytest.raises(ValueError, match="the Router in '2_Router' must say the 'types' of its modules"):
        load(routed, local_files_only=True)


@pytest.mark.parametrize("name", ["tokenizer.json", "sentence_bert_config.json", "1_Pooling/config.json"])
def test_other_damaged_files_are_named(saved, name):
    (saved / name).write_bytes((saved / name).read_bytes()[:-3])
    (saved / "checkpoint-3").mkdir()  # not the model's: a training left it there
    (saved / "checkpoint-3" / "config.json").write_text("[")
    with pytest.raises(ValueError, match=f"{saved / name} is damaged or cut short"):
        load(saved, local_files_only=True)


def test_a_missing_configuration_is_named(saved):
    shutil.rmtree(saved / HEAD)
    with pytest.raises(ValueError, match=f"no configuration of the MLPHead in '{HEAD}'"):
        load(saved, local_files_only=True)
