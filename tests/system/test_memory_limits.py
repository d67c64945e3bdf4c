"""Free memory ends where the container's does: the files of control groups as Linux writes them, version 1 and 2."""

from types import SimpleNamespace

import psutil
import pytest

from gpt2tui.system import host_memory

GB = 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes control groups of a machine with 64 GB, 50 of them free; without any there is no limit."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GB, available=50 * GB))
    monkeypatch.setattr(host_memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "MOUNTED", tmp_path / "mounted")

    def write(own, folders):
        (tmp_path / "cgroup").write_text(own)
        for folder, files in folders.items():
            (tmp_path / "mounted" / folder).mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (tmp_path / "mounted" / folder / name).write_text(f"{content}\n")

    return write


def version_2(limit, used, cache):
    stat = f"anon 1\nfile 2\ninactive_file {cache}\nactive_file 3"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


def version_1(limit, used, cache):
    stat = f"cache 1\ninactive_file 5\ntotal_inactive_file {cache}"
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}


def test_the_limit_of_the_process_counts_too(groups, monkeypatch):
    resource = pytest.importorskip("resource")
    groups("", {})
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2 * used, 2 * used) if kind == resource.RLIMIT_AS else ())
    assert host_memory.total_bytes() == 2 * used
    assert host_memory.free_bytes() == pytest.approx(used, rel=0.2)


def test_the_group_of_a_container_with_its_own_root(groups):
    groups("0::/\n", {"": version_2(4 * GB, 3 * GB, GB // 2)})
    assert host_memory.free_bytes() == 1.5 * GB
    assert host_memory.total_bytes() == 4 * GB


def test_the_narrowest_of_the_groups_above_counts(groups):
    groups(
        "0::/pod/job\n",
        {"": {}, "pod": version_2(8 * GB, 7 * GB, 0), "pod/job": version_2("max", 2 * GB, 0)},
    )
    assert host_memory.free_bytes() == GB
    assert host_memory.total_bytes() == 8 * GB


def test_a_group_without_a_limit_changes_nothing(groups):
    groups("0::/job\n", {"job": version_2("max", 2 * GB, 0)})
    assert host_memory.free_bytes() == 50 * GB
    assert host_memory.total_bytes() == 64 * GB


def test_version_1_inside_a_container_where_only_the_root_is_mounted(groups):
    groups("9:cpu,cpuacct:/docker/12ab\n8:memory:/docker/12ab\n", {"memory": version_1(3 * GB, 2 * GB, GB // 4)})
    assert host_memory.free_bytes() == 1.25 * GB
    assert host_memory.total_bytes() == 3 * GB


def test_a_group_that_uses_more_than_its_limit_has_nothing_free(groups):
    groups("0::/\n", {"": version_2(GB, 2 * GB, 0)})
    assert host_memory.free_bytes() == 0
