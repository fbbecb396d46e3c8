"""The part that the envs on robosuite share: observing and freeing a running simulation.

In: a simulation with robosuite's `sim.model._model` and `sim.data._data`. Out: the fields of an `Observation`.
Read next: `envs/robosuite/env.py` and `envs/robocasa/env.py`, which build and step one; `views.py`, which renders it.

It imports neither simulator, and runs in the interpreter of either, Python 3.10 or 3.11.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from importlib import metadata
from typing import Any

import numpy as np

from envs.mujoco.views import ViewRenderer
from evalkit.contracts import geometry
from evalkit.contracts.spec import EnvSpec

DRAWN_FIELDS = (
    *("body_pos", "body_quat", "body_mass", "body_inertia", "body_ipos", "body_iquat"),
    *("geom_type", "geom_pos", "geom_quat", "geom_size", "geom_rgba", "geom_friction", "geom_matid"),
    *("site_pos", "site_quat", "site_size"),
    *("cam_pos", "cam_quat", "cam_fovy"),
    *("light_pos", "light_dir", "light_diffuse"),
    *("mat_rgba", "mat_texid", "dof_damping", "dof_armature", "jnt_range"),
)
"""What a seed can draw into a compiled `MjModel`. Vertices are not among them, because heavy meshes are thinned out."""


PACKAGES = ("robosuite", "mujoco", "numpy")
"""Packages that decide scenes and physics; their versions are read without importing them."""


class ObservedEnv(ABC):
    """The observing part of `evalkit.contracts.env.Env`; there is one per process.

    Args:
        spec: What the env gives; names its cameras.
        renderer: Renders them.
    """

    def __init__(self, spec: EnvSpec, renderer: ViewRenderer) -> None:
        self.spec, self._renderer = spec, renderer
        self.about = {"renderer": renderer.describe(), **_versions()}
        self._camera_names = [camera.name for camera in spec.cameras]
        self._sim: Any = None
        self._instruction = ""
        self._T_base_world = np.eye(4)

    def observe(self, *, render: bool) -> dict[str, Any]:
        """Return the fields of an `Observation`; with `render=False` V is 0."""
        self._update_kinematics()
        views = self._renderer.capture(self._model, self._data, self._camera_names if render else [])
        return {
            "rgb": views.rgb,
            "depth": views.depth,
            "intrinsics": views.intrinsics,
            "T_base_cam": self._T_base_world @ views.T_world_cam,
            "proprio": self._proprio(),
            "instruction": self._instruction,
            "privileged": self._privileged(),
        }

    def state(self) -> dict[str, np.ndarray]:
        """Return MuJoCo's integration state, and what the seed drew into the model; see `contracts.env.SceneEnv`."""
        import mujoco

        model, data = self._model, self._data
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        integration = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, integration, kind)
        drawn = {name: np.asarray(getattr(model, name)) for name in DRAWN_FIELDS}
        headlight = {"headlight_diffuse": np.asarray(model.vis.headlight.diffuse)}
        return {"integration": integration, **drawn, **headlight}

    def close(self) -> None:
        """Free the simulator and the GL context; calling it twice is fine."""
        self._drop_simulation()
        self._renderer.close()

    @abstractmethod
    def _proprio(self) -> np.ndarray:
        """Return the 16 numbers of the state."""

    @abstractmethod
    def _privileged(self) -> dict[str, np.ndarray]:
        """Return the simulator's state that oracles may read."""

    @property
    def _model(self) -> Any:
        return self._sim.sim.model._model

    @property
    def _data(self) -> Any:
        return self._sim.sim.data._data

    def _drop_simulation(self) -> None:
        self._renderer.forget()
        if self._sim is not None:
            self._sim.close()
            self._sim = None
            gc.collect()  # robosuite's objects refer to each other; without this, two models are in memory

    def _update_kinematics(self) -> None:
        import mujoco

        # robosuite leaves positions one 2 ms substep behind; the next step recomputes all of this anyway
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def _site_pose(self, name: str) -> np.ndarray:
        """Return 4,4 `T_world_site`."""
        site = self._data.site(name)
        return geometry.transform(site.xmat.reshape(3, 3), site.xpos)


def _versions() -> dict[str, str]:
    """Return the versions of `PACKAGES` in this interpreter, which may not be the one that runs evalkit."""
    return {name: metadata.version(name) for name in PACKAGES}
