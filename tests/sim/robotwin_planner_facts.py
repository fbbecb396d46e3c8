"""Planners next to SAPIEN's kinematics, RoboTwin's poses and mplib; a script for RoboTwin's interpreter.

In: the name of a function, a root of RoboTwin, further arguments as JSON. Out: one JSON object of measurements as the
last line of stdout, for `test_robotwin_planner.py` to judge.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.sim.robotwin_facts import SEED, hold, make

REACHABLE_PER_ARM = 100


def arms_of(root: Any) -> Any:
    """Return a scene's articulation, SAPIEN's own model of it, and each arm's planner and tool link."""
    env = make(root, "click_bell")
    env.begin(seed=SEED, max_steps=10)
    robot = env._current.robot
    entity = robot.left_entity
    links = [link.get_name() for link in entity.get_links()]
    tools = ((robot.left_planner, "fl_link6"), (robot.right_planner, "fr_link6"))
    return entity, entity.create_pinocchio_model(), [(planner, links.index(tool)) for planner, tool in tools], env


def sapiens_pose(entity: Any, model: Any, link: Any, planner: Any, q: Any) -> Any:
    """Return the tool's pose in the world at joint positions of one arm, by SAPIEN."""
    joints = np.zeros(len(entity.get_active_joints()))
    joints[planner._indices] = q
    model.compute_forward_kinematics(joints)
    return entity.get_root_pose() * model.get_link_pose(link)


def angle(one: Any, two: Any) -> Any:
    """Return radians between two SAPIEN poses."""
    return 2 * float(np.linalg.norm((one.inv() * two).q[1:]))


def reach(root: Any) -> Any:
    """Return errors of plans to random reachable poses, as SAPIEN sees them, and how many were found."""
    entity, model, arms, _env = arms_of(root)
    random, metres, radians, found, kept = np.random.RandomState(7), [0.0], [0.0], 0, True
    for planner, link in arms:
        chain = planner._inverse.chain
        for _ in range(REACHABLE_PER_ARM):
            goal = sapiens_pose(entity, model, link, planner, random.uniform(chain.lower_rad, chain.upper_rad))
            plan = planner.plan_path(entity.get_qpos(), goal)
            found += plan["status"] == "Success"
            if plan["status"] != "Success":
                continue
            end = sapiens_pose(entity, model, link, planner, plan["position"][-1])
            metres.append(float(np.linalg.norm(end.p - goal.p)))
            radians.append(angle(end, goal))
            position = plan["position"]
            kept &= bool((position[-1] >= chain.lower_rad).all() and (position[-1] <= chain.upper_rad).all())
    far = SimpleNamespace(p=goal.p + np.array([0, 0, 2]), q=goal.q)
    return {
        "asked": 2 * REACHABLE_PER_ARM,
        "found": found,
        "metres": max(metres),
        "radians": max(radians),
        "limits_kept": kept,
        "far": planner.plan_path(entity.get_qpos(), far)["status"],
        "range": [chain.lower_rad.tolist(), chain.upper_rad.tolist()],
        "urdf_range": entity.get_active_joints()[planner._indices[0]].get_limits()[0].tolist(),
    }


def straight(root: Any) -> Any:
    """Return how far SAPIEN's tool strays from the line of a move of 10 cm, over all samples."""
    entity, model, arms, _env = arms_of(root)
    planner, link = arms[0]
    q = np.array([-0.34, 2.37, 2.15, -1.36, 0.0, 0.11])
    joints = entity.get_qpos().copy()
    joints[planner._indices] = q
    start = sapiens_pose(entity, model, link, planner, q)
    way = np.array([0.0, -0.06, -0.08])
    plan = planner.plan_path(joints, SimpleNamespace(p=start.p + way, q=start.q), constraint_pose=[1, 1, 1, 0, 0, 0])
    poses = [sapiens_pose(entity, model, link, planner, sample) for sample in plan["position"]]
    offsets = np.array([pose.p - start.p for pose in poses])
    strays = offsets - np.outer(offsets @ way, way) / (way @ way)
    return {
        "mm": 1000 * float(np.linalg.norm(strays, axis=1).max()),
        "turn_rad": max(angle(start, pose) for pose in poses),
        "samples": len(poses),
    }


def expert(root: Any, task: Any, seeds: Any) -> Any:
    """Return what the expert does on seeds: verdict, steps, and the bits of its motion."""
    env = make(root, task)
    from evalkit_envs.robotwin.expert import run_expert

    runs = [run_expert(env._scenes, seed) for seed in seeds]
    return [
        {"reason": run.reason, "steps": run.steps, "rows": len(run.ee_world), "motion": run.ee_world.tobytes().hex()}
        for run in runs
    ]


def joint_timing(root: Any) -> Any:
    """Return the largest difference between our timing of joint actions and mplib's own."""
    import mplib

    make(root, "click_bell")
    from evalkit_envs.robotwin.planners.shared import PathTiming

    random, largest, lengths = np.random.RandomState(3), 0.0, []
    limits = SimpleNamespace(joint_vel_limits=np.ones(6), joint_acc_limits=np.ones(6))
    for size in (0.0, 0.001, 0.1, 1.0):
        path = np.cumsum(random.uniform(-size, size, (2, 6)), axis=0)
        path = np.repeat(path[:1], 2, axis=0) if size == 0 else path
        theirs = mplib.Planner.TOPP(limits, path, 1 / 250)
        ours = PathTiming().TOPP(path, 1 / 250)
        lengths.append([len(theirs[0]), len(ours[0])])
        if len(theirs[0]) == len(ours[0]) > 0:
            largest = max([largest, *(float(np.abs(a - b).max()) for a, b in zip(theirs[:4], ours[:4], strict=True))])
    return {"largest": largest, "lengths": lengths, "mplib": mplib.__version__}


def mplib_plans(root: Any) -> Any:
    """Return whether mplib's plans repeat, how far their ends are from the pose, and which were sampled."""
    env = make(root, "click_bell", planner="mplib")
    env.begin(seed=SEED, max_steps=10)
    robot, scene = env._current.robot, env._current
    goal = np.array([-0.156, 0.025, 0.975, 0.593, -0.386, 0.593, 0.386])
    near = np.array(scene.get_arm_pose("left")) + 0.02 * np.eye(7)[1]
    answers = []
    for pose in (goal, near, np.array(scene.get_arm_pose("left"))):
        plans = [robot.left_plan_path(pose) for _ in range(2)]
        world = robot.left_planner._world
        q = world.start(robot.left_entity.get_qpos())
        q[world.arm] = plans[0]["position"][-1]
        import mplib

        target = robot._trans_from_gripper_to_endlink(pose, "left")
        answers.append(
            {
                "same": bool(plans[0]["position"].tobytes() == plans[1]["position"].tobytes()),
                "samples": len(plans[0]["position"]),
                "off": world.distance(q, mplib.Pose(target.p, target.q)),
            }
        )
    far = robot.left_plan_path([3.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0])["status"]
    return {"plans": answers, "far": far}


def out_of_time(root: Any) -> Any:
    """Return what vetting and a run say where every plan is sampled and the sampler has no time."""
    env = make(root, "click_bell", planner="mplib")
    from evalkit_envs.robotwin.planners import mplib as ours

    ours.Planner._screw = lambda *_: None
    ours.SAMPLING_LIMIT_S = 1e-6
    try:
        verdict = env.vet(SEED)
    except RuntimeError as error:
        verdict = str(error)
    env.begin(seed=SEED, max_steps=10)
    env.advance(hold(env.observe(render=False), (0.0, 0.05, 0.05)))
    return {"verdict": verdict, "counters": env.counters()}


def range_end(root: Any, joint: int, angles_rad: Any) -> Any:
    """Return how far a joint of the left arm is from each angle, a second after the arm was sent there."""
    env, off = make(root, "click_bell"), []
    for angle_rad in angles_rad:
        env.begin(seed=SEED, max_steps=10)
        robot, goal = env._current.robot, np.eye(6)[joint - 1] * angle_rad
        for step in range(400):
            robot.set_arm_joints(goal * min(1, step / 150), np.zeros(6), "left")
            env._current.scene.step()
        off.append(abs(float(robot.get_left_arm_real_jointState()[joint - 1]) - angle_rad))
    return off


if __name__ == "__main__":
    print()
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
