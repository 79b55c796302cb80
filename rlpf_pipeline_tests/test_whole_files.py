import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.whole_files import require_replaceable, write_atomically


def test_what_is_written_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from rlpf_pipeline.whole_files import write_atomically as write; "
    variables = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code + "write(Path(sys.argv[1]), '\\u2026')", str(tmp_path / "run.json")]
    subprocess.run(command, env=variables, check=True)
    assert (tmp_path / "run.json").read_bytes() == "…".encode()


def test_a_file_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long") as told:
        write_atomically(tmp_path / ("x" * 253), "")  # 255 bytes are the most, and the name before renaming has more
    assert told.value.filename == str(tmp_path / ("x" * 253))


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout"])
def test_what_is_under_dev_is_replaced_by_no_file(device: str) -> None:
    """Root could. Asked of what looks alone: a test that fails must not have replaced a device."""
    with pytest.raises(UserError, match="is no file that can be replaced"):
        require_replaceable(Path(device))
