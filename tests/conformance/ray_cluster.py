"""An audit on a Ray cluster of two nodes on this machine, of which one worker is killed.

python tests/conformance/ray_cluster.py FOLDER: with ``cheating.onnx`` and ``data`` in it; prints
one line of JSON.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address on every system
    "RAY_raylet_start_wait_time_s": "300",  # on a machine that is busy
    "AUDITED_BY": str(os.getpid()),  # by which its own workers are told
}


def own_actors():
    """Process ids of the actors of this run."""
    mark = f"AUDITED_BY={os.getpid()}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            named = b"AuditActor" in (entry / "cmdline").read_bytes()
            if named and mark in (entry / "environ").read_bytes():
                yield int(entry.name)
        except OSError:
            continue  # it ended meanwhile


def kill_one(journal, killed):
    """Kill an actor when the first rows are kept."""
    while not journal.exists() or journal.read_bytes().count(b"\n") < 10:
        time.sleep(0.05)
    actors = sorted(own_actors())
    os.kill(actors[0], signal.SIGKILL)
    killed += actors[:1]


def main():
    import ray
    from ray.cluster_utils import Cluster

    from inspector.audit.run import AuditOptions, audit
    from inspector.opening import Opening

    os.chdir(sys.argv[1])
    node = {
        "num_cpus": 1,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": 100 * 2**20,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False)
        killed = []
        journal = Path("on-ray") / "audit.partial.jsonl"
        threading.Thread(target=kill_one, args=(journal, killed), daemon=True).start()
        opening = Opening(Path("cheating.onnx"), overrides=("mean=0", "std=1"))
        options = AuditOptions(engine="ray", thumbnails=False)
        report = audit(opening, Path("data"), Path("on-ray"), options)
        nodes = len(ray.nodes())
    finally:
        ray.shutdown()
        cluster.shutdown()
    refused = len(report.contents["data"]["refused"])
    sys.stdout.write(json.dumps({"nodes": nodes, "killed": len(killed), "refused": refused}) + "\n")


if __name__ == "__main__":
    main()
