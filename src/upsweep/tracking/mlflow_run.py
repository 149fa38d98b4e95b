"""A run of MLflow, by default in a file of SQLite: one for a run, or for all jobs of a sweep."""

import logging
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.logger import _convert_params, _flatten_dict
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.common.files import write_whole
from upsweep.common.locks import locked
from upsweep.runs.layout import MLFLOW, sweep_of
from upsweep.tracking.wandb_run import run_name as words_of

SQLITE = "sqlite:///"
PATIENCE = 60  # seconds for which a job waits until the others have written


class MLflowRun(MLFlowLogger):
    """Lightning's logger for MLflow, which refuses the plain folder that this would write by default.

    Without a server everything lies in `mlflow/` of the job's folder, or of its sweep's for all jobs: `mlflow.db` and
    `artifacts/`. A job that is resumed in the same folder continues the same run. Nothing is sent but what goes to
    `tracking_uri`.

    Args:
        folder: of the job; the run's id lies in `folder/mlflow/id`.
        experiment_name: of MLflow.
        run_name: None says the overrides.
        tracking_uri: of a server, or `sqlite:////path/to/file.db`; None is the file in `mlflow/`.
        tags: of the run.
        log_model: whether the best checkpoint is kept among the artifacts.
        overrides, choices: of the job, for its name.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        experiment_name: str = "upsweep",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        log_model: bool = True,
        overrides: Sequence[str] = (),
        choices: Mapping[str, str] | None = None,
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # half a minute; its own 7 are four
        import mlflow  # noqa: F401 - which sets the levels of its log

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        place = Path(folder).resolve()
        sweep = sweep_of(place)
        self._id = place / MLFLOW / "id"
        uri = tracking_uri or _uri((sweep or place) / MLFLOW / "mlflow.db")
        self._database = Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])) if uri.startswith(SQLITE) else None
        self.whereabouts = shlex.join(["mlflow", "ui", "--backend-store-uri", uri]) if self._database else uri
        with self._alone():  # the first one makes the file
            super().__init__(
                experiment_name=experiment_name,
                run_name=run_name or words_of(overrides, choices or {}),
                tracking_uri=f"{uri}?timeout={PATIENCE}" if self._database and "?" not in uri else uri,
                tags={**({"sweep": sweep.name} if sweep else {}), **(tags or {})},
                log_model=log_model,
            )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `MlflowClient`; the run is begun now if it is not yet (a dummy on all ranks but 0)."""
        if not self._initialized:
            self._run_id = self._earlier()
            with self._alone():
                self._make_experiment()
            with _kept("MLFLOW_TRACKING_URI"):  # which MLflow sets, and another run in this process would obey
                client = super().experiment
            self._id.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._id, str(self._run_id))
            return client
        return self._mlflow_client

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log what the run does not say yet: MLflow refuses another value, which a resumed run may have."""
        known = self.experiment.get_run(self.run_id).data.params
        flat = {re.sub(r"[^\w/. :-]+", "_", key): said for key, said in _flatten_dict(_convert_params(params)).items()}
        super().log_hyperparams({key: said for key, said in flat.items() if key not in known})

    def _alone(self) -> Any:
        """While this holds no other job makes the file or the experiment; a server sees to that itself."""
        return nullcontext() if self._database is None else locked(self._database.with_name(".lock"))

    def _earlier(self) -> str | None:
        """The run that this job has begun before, running again; None: it has not, or not in this place."""
        from mlflow.exceptions import MlflowException

        if not self._id.is_file():
            return None
        run = self._id.read_text(encoding="ascii")
        try:
            self._mlflow_client.update_run(run, status="RUNNING")
        except MlflowException:
            return None
        return run

    def _make_experiment(self) -> None:
        """Make the experiment if there is none; the artifacts of a file lie beside it."""
        if self._mlflow_client.get_experiment_by_name(self._experiment_name) is None:
            place = None if self._database is None else self._database.with_name("artifacts").as_uri()
            self._mlflow_client.create_experiment(self._experiment_name, artifact_location=place)


def _uri(database: Path) -> str:
    """A file as SQLAlchemy reads it, which decodes `%20` and ends at a `?`."""
    return SQLITE + str(database).replace("%", "%25").replace("?", "%3F")


@contextmanager
def _kept(variable: str) -> Iterator[None]:
    """Afterwards a variable of the environment is what it was."""
    before = os.environ.pop(variable, None)
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before
