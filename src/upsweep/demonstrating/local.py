"""What the page takes of this machine: a folder, a port, and no word to any other machine."""

import socket
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from upsweep.common.errors import UserError

HOST = "127.0.0.1"
PORTS = range(7860, 7960)  # Gradio's own, so that bookmarks and tunnels fit


@contextmanager
def own_folder(cache_dir: str) -> Iterator[Path]:
    """Give a new folder in another one, which is made; it is removed at the end of the block with all that it holds.

    Raises:
        UserError: it cannot be made.
    """
    if not isinstance(cache_dir, str):
        raise UserError(f"cache_dir={cache_dir} must be a folder.")
    parent = Path(cache_dir).expanduser()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix="page-", dir=parent.resolve(), ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(f"cache_dir={parent} cannot be written to: {error.strerror}.") from error
    with made as folder:
        yield Path(folder)


def stay_here(environ: MutableMapping[str, str], folder: Path) -> None:
    """Tell Gradio, before it is imported, to keep its files in the folder and to ask no other machine for anything."""
    environ.update(
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    # Gradio asks its own server whether it is up; a proxy of the network would be asked instead.
    direct = [environ.get("no_proxy") or environ.get("NO_PROXY"), HOST, "localhost"]
    environ["no_proxy"] = environ["NO_PROXY"] = ",".join(filter(None, direct))


def port_of(said: int | None) -> int:
    """A free port: the one that was said (0: any), or the first of `PORTS`.

    Raises:
        UserError: it is no port, or taken; or all of them are.
    """
    if said is not None and (isinstance(said, bool) or not isinstance(said, int) or not 0 <= said < 2**16):
        raise UserError(f"port={said} must be a whole number from 0 to 65535, or null.")
    for port in PORTS if said is None else [said]:
        try:
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a page that has just ended is no bar
                listener.bind((HOST, port))
                free: int = listener.getsockname()[1]
                return free
        except OSError as error:
            reason = error.strerror
    if said is not None:
        raise UserError(f"port={said} cannot be used ({reason}): name another one, or leave port out.")
    raise UserError(f"All ports from {PORTS[0]} to {PORTS[-1]} are taken: name another one with port=.")
