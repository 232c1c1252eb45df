"""Definition folders to indexes: shipped, cached by content, or compiled now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from cpufw.definitions.compiled import CompiledArch
from cpufw.definitions.index import Index, dump, write_atomically
from cpufw.definitions.stamp import cache_folder
from cpufw.errors import CpufwError

# The name of an index that was compiled ahead and travels beside its definitions.
SHIPPED = "definitions.index"


def builtin_folder() -> Path:
    """The folder of the definitions that come with cpufw."""
    spec = find_spec("cpufw_cpudefs")
    if spec is None or not spec.submodule_search_locations:
        raise CpufwError("cpufw's own definitions are not installed; reinstall cpufw")
    return Path(next(iter(spec.submodule_search_locations)))


def schema_folders(folder: Path) -> list[Path]:
    """Where the schemas of the definitions in `folder` are looked for."""
    return [builtin_folder() / "schema", folder.parent / "schema", folder / "schema"]


def content_key(folder: Path, base_keys: Sequence[str] = ()) -> str:
    """A digest of all that the compiled form of `folder` depends on, the compiler included."""
    digest = hashlib.blake2b(digest_size=16)
    own = sorted(Path(__file__).parent.glob("*.py"))
    schemas = [path for place in schema_folders(folder) for path in sorted(place.glob("*.json"))]
    for path in [*own, *schemas, *sorted(folder.rglob("*.yaml"))]:
        if not path.is_file():  # a folder of that name, an editor's lock: no definition
            continue
        try:
            content = path.read_bytes()
        except OSError as error:  # compiling it will say so, with the file's name
            content = str(error).encode()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    digest.update("\0".join(base_keys).encode())
    return digest.hexdigest()


def compile_shipped(folder: Path) -> bytes:
    """The index file of a folder that stands by itself. Raises `DefinitionError`."""
    from cpufw.definitions.compile import compile_folder

    return dump(compile_folder(folder, schema_folders(folder)), content_key(folder))


def load_folder(
    folder: Path,
    base: Mapping[str, CompiledArch] | None = None,
    base_keys: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Index, Path | None]:
    """The index of `folder` and the file it is in (None if it could not be kept).

    Compiles what is not compiled yet. Raises `DefinitionError` with every problem; an index that
    was there before stays.
    """
    if not folder.is_dir():
        raise CpufwError(f"definition folder {folder} does not exist")
    key = content_key(folder, base_keys)
    cached = Path(cache_folder()) / "index" / f"{key}.index"
    for path in (folder / SHIPPED, cached):
        index = Index.load(path)
        if index is not None and index.key == key:
            return index, path
    from cpufw.definitions.compile import compile_folder  # imports the YAML and schema libraries

    content = dump(compile_folder(folder, schema_folders(folder), base, progress), key)
    index = Index.parse(content)
    assert index is not None
    if content_key(folder, base_keys) != key:
        return index, None  # a file changed meanwhile: this is not what the key stands for
    try:
        write_atomically(cached, content)
    except OSError:
        return index, None  # a read-only or full cache only costs time
    return index, cached
