"""The tree keeps the house rules, and each rule catches a planted violation."""

from __future__ import annotations

from pathlib import Path

import pytest

import headers
import tidy

ROOT = Path(__file__).resolve().parents[2]


def test_tree_is_tidy() -> None:
    assert tidy.findings(ROOT) == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (tidy.rule_includes, "proto/types/x.h", '#include "proto/wire/convert.h"\n'),
        (tidy.rule_includes, "kernels/checksum/x.h", '#include "absl/status/status.h"\n'),
        (tidy.rule_includes, "kernels/checksum/x.cu", "#include <absl/status/status.h>\n"),
        (tidy.rule_includes, "service/index/x.cc", '#include "cluster/lanes/lane.h"\n'),
        (tidy.rule_includes, "service/router/x.cc", '#include "service/shard/shard_engine.h"\n'),
        (tidy.rule_includes, "cluster/peer/x.cc", '#include "service/shard/shard_engine.h"\n'),
        (tidy.rule_includes, "client/cpp/x.cc", '#include "service/pool/pool.h"\n'),
        (tidy.rule_includes, "service/shard/x.cc", '#include "reprise/disk/v1/journal.pb.h"\n'),
        (tidy.rule_includes, "service/shard/shard_engine.cc", "#include <grpcpp/grpcpp.h>\n"),
        (tidy.rule_includes, "service/pool/dram_pool.cc", "#include <cuda_runtime.h>\n"),
        (tidy.rule_includes, "cluster/lanes/view/x.cc", "#include <nccl.h>\n"),
        (tidy.rule_includes, "client/cpp/x.h", '#include "tests/support/manual_clock.h"\n'),
        (tidy.rule_columns, "proto/types/x.h", "// " + "x" * 100 + "\n"),
        (tidy.rule_lines, "service/index/x.cc", "\n" * 501),
        (tidy.rule_banned, "client/python/x.py", "import pick" + "le\n"),
        (tidy.rule_banned, "client/python/x.py", "value = ev" + "al(text)\n"),
        (tidy.rule_banned, "service/index/x.cc", "// TO" + "DO: later\n"),
        (tidy.rule_channels, "client/cpp/x.cc", "  auto c = grpc::CreateChannel(address, none);\n"),
        (tidy.rule_channels, "service/router/x.cc", "return grpc::CreateCustomChannel(a, b, c);\n"),
        (tidy.rule_channels, "tests/cluster/x.cc", "server->InProcessChannel({})\n"),
        (tidy.rule_header_guard, "proto/types/x.h", "int x;\n"),
        (tidy.rule_unset, "proto/reprise/v1/x.proto",
         "message XRequest {\n  message Part {\n    bytes keys = 1;  // 32 bytes\n  }\n}\n"),
    ],
)
def test_planted_violation_is_found(rule: tidy.Rule, path: str, text: str) -> None:
    assert list(rule(path, text)), f"{rule.__name__} misses {text!r} in {path}"


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (tidy.rule_includes, "kernels/runtime/x.cc", '#include "absl/status/status.h"\n'),
        (tidy.rule_includes, "service/shard/main.cc", "#include <grpcpp/grpcpp.h>\n"),
        (tidy.rule_includes, "cluster/lanes/nccl/x.cc", "#include <nccl.h>\n"),
        (tidy.rule_banned, "client/python/x.py", "model.eval()\n"),
        (tidy.rule_unset, "proto/reprise/v1/x.proto",
         "message XRequest {\n  bytes keys = 1;  // unset: refused\n}\n"
         "message XResponse {\n  uint32 blocks = 1;\n}\n"),
        (tidy.rule_channels, "proto/wire/channel.cc", "return grpc::CreateChannel(a, b);\n"),
        (tidy.rule_channels, "client/cpp/x.cc", "auto channel = wire::MakeChannel(address);\n"),
    ],
)
def test_permitted_form_passes(rule: tidy.Rule, path: str, text: str) -> None:
    assert list(rule(path, text)) == []


def test_unregistered_test_is_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/CMakeLists.txt").write_text("reprise_test(a_test SOURCES a_test.cc)\n")
    for name in ("a_test.cc", "b_test.cc"):
        (tmp_path / "tests" / name).write_text("int main() {}\n")
    paths = ["tests/CMakeLists.txt", "tests/a_test.cc", "tests/b_test.cc"]
    assert list(tidy.rule_registered(tmp_path, paths)) == [
        "tests/b_test.cc: no CMakeLists.txt registers it"]


def test_header_that_forgets_what_it_names_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text("#include <string>\nstd::string a();  // std::vector\n")
    (tmp_path / "b.h").write_text('#include "a.h"\nstd::string b();\nstd::vector<int> c();\n')
    assert list(headers.rule_headers(tmp_path, ["a.h", "b.h"])) == [
        "b.h: names std::vector and does not include <vector>"]


def test_source_that_includes_its_own_header_late_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text("int a();\n")
    (tmp_path / "a.cc").write_text('#include <string>\n#include "a.h"\n')
    assert list(headers.rule_headers(tmp_path, ["a.h", "a.cc"])) == [
        "a.cc: includes string before its own header a.h"]
