"""`python -m rlpf_pipeline.cli`, which is `rlpf`."""

from rlpf_pipeline.cli import main

main()
