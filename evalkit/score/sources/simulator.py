"""The simulator of a recording: its bench with the settings under which it was recorded.

In: the name of a bench, settings. Out: envs in processes of their own.
Read next: `evalkit/score/controls/branches.py`, which executes other actions in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from evalkit.contracts import plugins
from evalkit.contracts.env import Bench, Env
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.remote_env import RemoteEnv


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """A bench with its settings.

    Attributes:
        bench: The plugin.
        config: An instance of its `config_type`.
    """

    bench: Bench
    config: Any

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any]) -> Simulator:
        """Return a bench with settings as a plan or an episode states them.

        Raises:
            BadConfig: If the bench has no such settings any more.
            EvalkitError: If it is not installed.
        """
        bench = plugins.load_bench(name)
        known = {entry.name for entry in fields(bench.config_type)}
        if unknown := sorted(settings.keys() - known):
            raise BadConfig(f"Bench '{name}' has no setting {', '.join(unknown)}, under which the recording was made.")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        try:
            return cls(bench=bench, config=bench.config_type(**values))
        except (TypeError, ValueError) as error:
            raise BadConfig(f"Bench '{name}' cannot take the settings of the recording: {error}.") from error

    def start(self, episode: Episode) -> Env:
        """Return the env of an episode's task in a process of its own; the caller closes it.

        Raises:
            EvalkitError: If it cannot be built.
        """
        launch = self.bench.launch(self.config, task=episode.task, setting=episode.setting)
        return RemoteEnv(launch, self.bench.env_spec(self.config, task=episode.task, setting=episode.setting))
