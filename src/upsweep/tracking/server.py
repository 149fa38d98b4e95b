"""What runs and dashboards share at W&B: the axis, and whether the server can be reached. Knows no torch."""

import os
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

STEP = "trainer/global_step"
"""The x-axis of every metric; Lightning's own name for it, which its W&B users know."""

PATIENCE = 6.0  # seconds for each of the two waits of an online start: together below the promised 15


@contextmanager
def asking() -> Iterator[None]:
    """For questions to the server outside of a run: the client leaves nothing behind, in the home folder or elsewhere.

    Its service ends with the block, so that a run which comes later has one of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = {f"WANDB_{kind}_DIR": folder for kind in ("CACHE", "DATA")}
        before = {key: os.environ.get(key) for key in (*places, "WANDB_ERROR_REPORTING")}
        os.environ.update(places, WANDB_ERROR_REPORTING="false")
        try:
            yield
        finally:
            if "wandb" in sys.modules:
                sys.modules["wandb"].teardown()
            for key, value in before.items():
                os.environ.pop(key, None)
                os.environ.update({} if value is None else {key: value})


def no_way_online() -> str | None:
    """Why W&B's server cannot be used, in words (no key, no answer), or None if it can."""
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = wandb.setup().settings
    url = settings.base_url
    if not (settings.api_key or settings.identity_token_file or read_netrc_auth(host=url)):
        return "there is no API key; run `wandb login` once, or set WANDB_API_KEY"
    return obstacle(url)


def obstacle(url: str) -> str | None:
    """Why the W&B server at `url` cannot take a run, in words, or None if it can; within `PATIENCE` seconds.

    Asks what the client will ask, through the proxies of the environment; a refusal (4xx) is an answer too.
    """
    request = urllib.request.Request(
        f"{url}/graphql", data=b'{"query": "{__typename}"}', headers={"Content-Type": "application/json"}
    )
    answer: list[str | None] = []

    def ask() -> None:
        try:
            # The socket waits longer than the caller, so that silence has one sentence and not two.
            urllib.request.urlopen(request, timeout=2 * PATIENCE).close()
            answer.append(None)
        except urllib.error.HTTPError as error:
            answer.append(None if error.code < 500 else f"it answers {error.code}")
        except OSError as error:
            answer.append(str(getattr(error, "reason", error)))

    # In a thread, since a name server that is silent holds the caller far longer than the socket's timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    reason = answer[0] if answer else f"no answer in {PATIENCE:g} s"
    return reason and f"{url} cannot be reached ({reason}): check the network or WANDB_BASE_URL"
