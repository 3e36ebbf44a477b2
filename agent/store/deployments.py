"""Which version of which service went live when, as it was told to us."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime

from agent.core.investigation import Deployment
from agent.store.columns import stamp
from agent.store.database import Transaction


def record(transaction: Transaction, deployments: Sequence[Deployment]) -> int:
    """Keeps records, each once however often it is sent; what a later copy adds replaces the earlier. The number of new ones."""
    new = 0
    for deployment in deployments:
        id = _id(deployment)
        data = deployment.model_dump_json()
        at = stamp(deployment.timestamp)
        added = transaction.run(
            """
            INSERT INTO deployments (id, service, timestamp, data) VALUES (:id, :service, :at, :data)
            ON CONFLICT (id) DO NOTHING""",
            id=id,
            service=deployment.service,
            at=at,
            data=data,
        )
        if not added:
            transaction.run("UPDATE deployments SET data = :data WHERE id = :id", id=id, data=data)
        new += added
    return new


def between(transaction: Transaction, services: Sequence[str], start: datetime, end: datetime) -> list[Deployment]:
    """Records of these services (all of them where none is named) from start to end, both included, oldest first."""
    names = {f"service{index}": name for index, name in enumerate(services)}
    only = f"AND service IN ({', '.join(f':{name}' for name in names)})" if names else ""
    rows = transaction.rows(
        f"SELECT data FROM deployments WHERE timestamp BETWEEN :start AND :end {only} ORDER BY timestamp, id",
        start=stamp(start),
        end=stamp(end),
        **names,
    )
    return [Deployment.model_validate_json(row["data"]) for row in rows]


def _id(deployment: Deployment) -> str:
    """The same for the same version of the same service at the same moment."""
    what = (deployment.service, stamp(deployment.timestamp), deployment.version, deployment.commit)
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
