"""Checkpoint folders: where they are, which tensors they hold, and writing changed ones. Safetensors only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from relisten.errors import InputError

ECHO_TINY = "echo-tiny"
"""Name of the checkpoint that comes with the package."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SMALL_FILES = ("*.json", "*.txt", "*.jinja")


@dataclass(frozen=True)
class Checkpoint:
    """A folder with `config.json` and safetensors weights.

    `files` maps every tensor name to the file that holds it; no tensor is read before it is asked for.
    """

    folder: Path
    config: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Raises InputError where `folder` is no checkpoint or has no safetensors weights."""
        return cls(folder, read_json(folder / "config.json"), _tensor_files(folder))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors as stored, on the CPU, one after the other; other files are not touched.

        Raises:
            InputError: a file is missing or no safetensors.
        """
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self.files[name], []).append(name)
        for file, held in by_file.items():
            try:
                with safe_open(self.folder / file, "pt", device="cpu") as handle:
                    for name in held:
                        yield name, handle.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"{self.folder / file}: cannot be read as safetensors ({_first_line(error)}); "
                    "copy or download it again"
                ) from error


def locate(name: str | Path) -> str | Path:
    """The folder of a shipped checkpoint for its name; anything else is what it is."""
    if name == ECHO_TINY and not Path(name).is_dir():
        return Path(__file__).parent / "checkpoints" / ECHO_TINY
    return name


def model_folder(name: str | Path) -> Path:
    """The checkpoint folder that `name` means, with all its weights; see `find_folder`."""
    return find_folder(name, lambda tensor: True)


def find_folder(name: str | Path, wanted: Callable[[str], bool] | None = None) -> Path:
    """The checkpoint folder that `name` means: a local folder, a shipped checkpoint, else a hub id like
    `Qwen/Qwen2.5-Omni-7B`.

    A hub id is downloaded to the hub's cache: configuration, tokenizer, and of the weights those files that hold
    a tensor whose name is `wanted` (None: no weights).

    Raises:
        InputError: neither a folder nor a hub id, a training run around its checkpoint, or the download failed.
    """
    name = locate(name)
    folder = Path(name)
    if folder.is_dir():
        trained = folder / "checkpoint"
        if not (folder / "config.json").exists() and (trained / "config.json").exists():
            raise InputError(f"{folder}: is no checkpoint, but there is a checkpoint in {trained}; give that")
        return folder
    if not isinstance(name, str) or folder.exists() or not _HUB_ID.fullmatch(name):
        raise InputError(f"model {str(name)!r} is no folder and no hub id; give a checkpoint folder or OWNER/NAME")
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(_SMALL_FILES)))
        if wanted is None:
            return folder
        if (folder / INDEX).is_file():
            shards = sorted({file for tensor, file in _index(folder).items() if wanted(tensor)})
        else:
            shards = [WEIGHTS]
        return Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, *shards]))
    except InputError:
        raise
    except Exception as error:  # every transport has its own errors
        raise InputError(
            f"model {name!r} is no local folder and could not be downloaded ({_first_line(error)}); "
            "check the name and the network, or give a checkpoint folder"
        ) from error


def weight_bytes(folder: Path) -> int:
    """Size of all weights of a checkpoint, as its index tells it where there is one."""
    if (folder / INDEX).is_file():
        told = read_json(folder / INDEX).get("metadata")
        return int(told.get("total_size", 0)) if isinstance(told, dict) else 0
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def read_json(path: Path) -> dict[str, Any]:
    """Raises InputError where there is no JSON object at `path`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent}: is no checkpoint folder (it has no {path.name}); check the path, or copy the file "
            "from the original"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as JSON ({_first_line(error)}); a checkpoint folder needs it, "
            "copy it from the original"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, not an object; copy it from the original")
    return content


def write_checkpoint(
    source: Checkpoint,
    folder: Path,
    config: Mapping[str, Any],
    rename: Callable[[str], str | None],
    changed: Mapping[str, Tensor],
    keep_file: Callable[[Path], bool],
    new_files: Mapping[str, bytes],
) -> None:
    """Write `source` with some tensors changed into `folder`, which must be new or empty.

    Files of tensors of which none is changed, renamed or dropped are copied as they are. The folder appears
    only once it is complete.

    Args:
        config: content of the new `config.json`.
        rename: new name of a tensor of `source`, or None to leave it out.
        changed: tensors by their name in `source`.
        keep_file: which other files of `source` to copy.
        new_files: content of other files by name, which take the place of those of `source`.

    Raises:
        InputError: `folder` holds something, or `source` is not there any more.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not empty; save a checkpoint into a new or an empty folder")
    if not source.folder.is_dir():
        raise InputError(f"{source.folder}: is gone, but what is saved unchanged comes from it; put it back")
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    size = 0
    for file in sorted(set(source.files.values())):
        names = [name for name, where in source.files.items() if where == file]
        renamed = {name: new for name in names if (new := rename(name)) is not None}
        if not renamed:
            continue
        if all(renamed.get(name) == name and name not in changed for name in names):
            shutil.copyfile(source.folder / file, partial / file)
            size += (partial / file).stat().st_size
        else:
            kept = dict(source.read(name for name in renamed if name not in changed))
            tensors = {
                new: (changed[name] if name in changed else kept[name]).detach().cpu().contiguous()
                for name, new in renamed.items()
            }
            save_file(tensors, partial / file, metadata={"format": "pt"})
            size += sum(tensor.nbytes for tensor in tensors.values())
        weight_map |= dict.fromkeys(renamed.values(), file)
    if set(weight_map.values()) != {WEIGHTS}:
        _write_json(partial / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
    _write_json(partial / "config.json", config)
    for name, content in new_files.items():
        (partial / name).write_bytes(content)
    own = {"config.json", INDEX, *source.files.values(), *new_files}
    for path in sorted(source.folder.iterdir()):
        if path.is_file() and path.name not in own and keep_file(path):
            shutil.copyfile(path, partial / path.name)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)


def stored_dtype(tensor: Tensor) -> torch.dtype:
    """float32 for full precision, bfloat16 for any half precision."""
    return torch.float32 if tensor.dtype in (torch.float32, torch.float64) else torch.bfloat16


def _tensor_files(folder: Path) -> dict[str, str]:
    if (folder / INDEX).is_file():
        return _index(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        found = f"only {pickled[0]}, which may run code when loaded" if pickled else "none"
        raise InputError(
            f"{folder}: needs weights in {WEIGHTS} or {INDEX}, found {found}; use a checkpoint saved as safetensors"
        )
    try:
        with safe_open(path, "pt") as handle:
            return dict.fromkeys(handle.keys(), WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); copy or download it again") from error


def _index(folder: Path) -> dict[str, str]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{folder / INDEX}: has no weight_map; copy it from the original")
    for file in weight_map.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise InputError(f"{folder / INDEX}: names the file {file!r}; only .safetensors beside it are read")
    return weight_map


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
