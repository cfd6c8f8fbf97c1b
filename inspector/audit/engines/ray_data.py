"""Engine of an audit on a Ray cluster: the same batches, through Ray Data.

Each actor has a core (and a GPU, where the cluster has any) and keeps one process with the opened
model, as the local engine does: a photo that takes that process down is one row, and an actor or a
node that is lost costs its batches a retry.  Rows come back as JSON, and the journal of the run is
what an interrupted one goes on from: Ray Data's own checkpoints are of data sets that end in files.

Source: Ray Data, ``map_batches`` with a pool of actors (Ray 2.60).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inspector.audit.engines.local import Batch, Processes
from inspector.audit.rows import Asked, Row
from inspector.errors import ExplainedError, InspectorError, ModelRefused
from inspector.errors import require as require_extra

__all__ = ["AuditActor", "ray_rows", "require_ray"]

_BLOCKS = 4096
"""Most tasks of a run; each holds a batch or more, and is what is tried again together."""

_SAME = "every node needs the model and the photos under the same paths"


def require_ray() -> None:
    """Refuse to begin where Ray is not installed.

    Raises:
        MissingExtra: It is not.
    """
    require_extra("ray.data", "an audit on a Ray cluster", "ray")


def ray_rows(
    asked: Asked, batches: Sequence[Batch], workers: int
) -> Iterator[tuple[int, list[Row]]]:
    """Rows with the place of the first, batch by batch in the order in which they are done.

    Connects to the cluster that ``RAY_ADDRESS`` names, or starts one on this machine.

    Args:
        asked: What each actor opens.
        batches: The photos; each node finds them, and the model, under the same paths.
        workers: Actors; 0 for one per core of the cluster.

    Raises:
        MissingExtra: Ray is not installed.
        ModelRefused: A node has no such model, or cannot open it; the node is named.
        InspectorError: A node has no such photos, or Ray itself gives up.
    """
    if not batches:
        return
    require_ray()
    import ray

    begun = not ray.is_initialized()
    if begun:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        yield from _through(ray, asked, batches, workers)
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InspectorError(
            f"Ray gave up: {said[-1]}",
            hint="the same command goes on where it was; `ray status` shows the cluster",
        ) from None
    finally:
        if begun:
            ray.shutdown()


def _through(
    ray: Any, asked: Asked, batches: Sequence[Batch], workers: int
) -> Iterator[tuple[int, list[Row]]]:
    """The batches through a pool of actors."""
    resources = ray.cluster_resources()
    cores, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0)
    given = asked.opening.device
    on_gpu = given == "cuda" or (given == "auto" and gpus >= 1)
    actors = min(workers or max(1, int(gpus) if on_gpu else cores), len(batches))
    data = ray.data.from_items(
        [{"place": place} for place in range(len(batches))],
        override_num_blocks=min(len(batches), _BLOCKS),
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = data.map_batches(
        AuditActor,
        fn_constructor_args=(asked, ray.put(list(batches)), str(Path.cwd()), _counter(ray)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
    )
    for row in found.iter_rows():
        if row["error"]:
            kind = ModelRefused if row["of_model"] else InspectorError
            raise kind(row["error"], where=f"node {row['node']}", hint=row["hint"])
        yield int(row["start"]), json.loads(row["rows"])


def _counter(ray: Any) -> Any:
    """An actor that counts the others of each node."""

    class Counter:
        def __init__(self) -> None:
            self.found: dict[str, int] = {}

        def next(self, node: str) -> int:
            self.found[node] = self.found.get(node, -1) + 1
            return self.found[node]

    return ray.remote(num_cpus=0)(Counter).remote()


class AuditActor:
    """An actor of Ray Data: one process with the opened model.

    Args:
        asked: What it opens.
        batches: A reference to all batches.
        folder: The driver's working folder, from which relative paths lead.
        counter: Tells the actors of a node apart, so that each takes another core.
    """

    def __init__(self, asked: Asked, batches: Any, folder: str, counter: Any) -> None:
        import ray

        self.batches: Sequence[Batch] = ray.get(batches)
        self.folder, self.node = Path(folder), str(ray.util.get_node_ip_address())
        node = ray.get_runtime_context().get_node_id()
        _take_core(ray.get(counter.next.remote(node)))
        self.model = self.folder / asked.opening.path
        thumbnails = None if asked.thumbnails is None else self.folder / asked.thumbnails
        opening = replace(asked.opening, path=self.model)
        if self.folder.is_dir():
            os.chdir(self.folder)  # labels and preprocessing may be files, too
        self.processes = Processes(replace(asked, opening=opening, thumbnails=thumbnails), 1)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Rows of one batch; or what is wrong with this node."""
        start, own = self.batches[int(batch["place"][0])]
        entries = tuple(replace(entry, path=self.folder / entry.path) for entry in own)
        made: dict[str, Any] = {"start": start, "node": self.node, "rows": ""}
        made |= {"error": "", "hint": "", "of_model": False}
        missing = next((entry.path for entry in entries if not entry.path.exists()), None)
        if not self.model.exists():
            made |= {"error": f"the worker has no model file {self.model}", "of_model": True}
            made["hint"] = _SAME
        elif missing is not None:
            made |= {"error": f"the worker has no photo {missing}", "hint": _SAME}
        else:
            try:
                made["rows"] = json.dumps(self.processes.batch(entries), allow_nan=False)
            except ExplainedError as error:
                made |= {"error": error.what, "hint": error.hint or "", "of_model": True}
        return {name: [value] for name, value in made.items()}


def _take_core(number: int) -> None:
    """Bind this actor, and the process that it begins, to a core."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
