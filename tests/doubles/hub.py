"""huggingface_hub with one repository.

In: the files of the repository. Out: what was fetched, and copies of it in a folder.
Read next: `xwam/checkpoints/hub.py`.
"""

import fnmatch
from pathlib import Path
from typing import Any


class Hub:
    """huggingface_hub with one repository; notes what is fetched."""

    def __init__(self, folder: Path, files: Any) -> None:
        self.folder, self.files = folder, files
        self.fetched: list[Any] = []

    def list_repo_files(self, repo: Any) -> Any:
        self.repo = repo
        return list(self.files)

    def snapshot_download(self, repo: Any, allow_patterns: Any = None, local_files_only: Any = False) -> Any:
        assert repo == self.repo
        for file in self.files:
            if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns):
                self.fetched.append(file)
                (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
                content = self.files[file]
                (self.folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(self.folder)
