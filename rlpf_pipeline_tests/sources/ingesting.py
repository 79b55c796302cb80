"""A file that a test writes, as its rows after ingest."""

import pyarrow.parquet as pq

from rlpf_pipeline.settings import IngestSettings
from rlpf_pipeline.sources.ingest import ingest


def ingested(tmp_path, name, content, source, **settings):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    ingest([tmp_path / name], source, tmp_path, IngestSettings(**settings))
    accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
    rejects = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    return sorted(accepted, key=lambda row: (row["ad_id"], row["text"], row["period"] or "")), rejects
