"""The results dictionary, its file and the closing table."""

import json
import os

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import stats

from kdjax import metrics, results

TOP1 = {
    "student_alone": [0.70, 0.72, 0.74],
    "kl": [0.75, 0.78, 0.77],
    "cosine": [0.71, 0.74, 0.73],
    "kl_cosine": [0.78, 0.79, 0.83],
}
WEIGHTS = {"student_alone": (1, 0, 0), "kl": (1, 1, 0), "cosine": (1, 0, 1), "kl_cosine": (1, 1, 1)}


def measured(top1, classes=3):
    logits = np.eye(classes)[[0, 1, 2, 0]] * 3
    out = {**metrics.classification(logits, np.array([0, 1, 2, 1])), **metrics.agreement(logits, logits[::-1])}
    return {**out, "top1": top1}


def parts(top1=TOP1, seeds=(0, 1, 2), teacher=0.9, **changes):
    arms = {
        name: {
            "weights": dict(zip(("ce", "kl", "cosine"), WEIGHTS[name], strict=True)),
            "temperature": 4.0,
            "seeds": seeds,
            "val_top1": [np.float32(0.5)] * len(seeds),
            "best_step": [10] * len(seeds),
            "test": [None if v is None else measured(v) for v in values],
        }
        for name, values in top1.items()
    }
    return {
        **dict(
            dataset={
                "name": "demo",
                "classes": ("a", "b", "c"),
                "fingerprint": "f00",
                "splits": {"train": 600, "val": 200, "test": 400},
            },
            teacher={
                "model": "vgg16_bn",
                "params": 3_690_000,
                "macs": 178_000_000,
                "forward_images": 4800,
                "test": measured(teacher),
            },
            student={"model": "mobilenet_v2", "params": np.int64(404_000), "macs": 5_600_000},
            arms=arms,
            environment=results.environment(),
            config={"seeds": seeds, "rate": float("inf")},
        ),
        **changes,
    }


def test_keys_are_those_of_the_contract_and_json_knows_them():
    out = results.build(**parts())
    assert set(out) == {"dataset", "teacher", "student", "arms", "environment", "config"}
    assert {"name", "classes", "splits", "fingerprint"} <= set(out["dataset"])
    assert set(out["dataset"]["splits"]) == {"train", "val", "test"}
    assert {"model", "params", "macs", "forward_images", "test"} <= set(out["teacher"])
    assert set(out["student"]) == {"model", "params", "macs"}
    for arm in out["arms"].values():
        assert {"weights", "seeds", "test_top1", "val_top1", "mean", "std", "ci95", "p_vs_alone"} <= set(arm)
        assert arm["best_step"] == [10, 10, 10]
        assert {"macro_f1", "nll", "ece", "agreement", "kl", "per_class_recall", "confusion"} <= set(
            arm["test_metrics"][0]
        )
    assert out["config"]["rate"] is None
    assert json.loads(json.dumps(out, allow_nan=False)) == out


def test_numbers_agree_with_scipy():
    out = results.build(**parts())["arms"]
    alone = np.array(TOP1["student_alone"])
    raw = {name: stats.ttest_rel(TOP1[name], alone).pvalue for name in TOP1 if name != "student_alone"}
    order = sorted(raw, key=raw.get)
    largest = 0.0
    for rank, name in enumerate(order):
        largest = max(largest, min(1, (3 - rank) * raw[name]))
        assert out[name]["p_vs_alone"] == pytest.approx(largest)
        difference = np.array(TOP1[name]) - alone
        assert out[name]["minus_alone"]["mean"] == pytest.approx(difference.mean())
    assert out["student_alone"]["p_vs_alone"] is None and out["student_alone"]["minus_alone"] is None
    for name, values in TOP1.items():
        assert out[name]["mean"] == pytest.approx(np.mean(values))
        assert out[name]["std"] == pytest.approx(np.std(values, ddof=1))
        assert out[name]["ci95"] == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))


def test_a_failed_seed_leaves_every_comparison_it_is_in():
    top1 = {**TOP1, "kl": [0.75, None, 0.77]}
    arms = results.build(**parts(top1))["arms"]
    assert arms["kl"]["test_top1"] == [0.75, None, 0.77] and arms["kl"]["test_metrics"][1] is None
    assert arms["kl"]["mean"] == pytest.approx(0.76)
    assert arms["kl"]["minus_alone"]["mean"] == pytest.approx(0.04)
    assert arms["cosine"]["minus_alone"]["mean"] == pytest.approx(0.02 / 3)

    top1 = {**TOP1, "student_alone": [0.70, float("nan"), 0.74]}  # a NaN counts as failed too
    arms = results.build(**parts(top1))["arms"]
    assert arms["student_alone"]["test_top1"] == [0.70, None, 0.74]
    assert arms["kl_cosine"]["minus_alone"]["mean"] == pytest.approx((0.08 + 0.09) / 2)
    assert arms["kl_cosine"]["mean"] == pytest.approx(0.8)
    text = results.table(results.build(**parts(top1)))
    assert "student_alone: seed 1 failed" in text


def test_compression_is_said_with_and_without_the_hidden_layers():
    student = {"params": 2_000_000, "macs": 10_000_000, "activation_bytes": 500_000}
    teacher = {"params": 14_000_000, "macs": 1_000_000_000, "activation_bytes": 2_000_000, "head": "average"}
    heads = {"average": {"params": 14_000_000}, "fc": {"params": 134_000_000}}
    text = results.compression({**teacher, "heads": heads}, student)
    assert "7 times the parameters" in text and "100 times the multiply-adds" in text and "4 times the bytes" in text
    assert "With VGG16's fully connected head" in text and "134 M" in text and "67 times the student's" in text
    text = results.compression({**teacher, "params": 134_000_000, "head": "fc", "heads": heads}, student)
    assert "67 times the parameters" in text and "Without" in text and "7 times the student's" in text
    assert " ".join(results.compression(**{k: parts()[k] for k in ("teacher", "student")}).split()) in " ".join(
        results.table(results.build(**parts())).split()
    )


def test_all_seeds_failed():
    out = results.build(**parts({**TOP1, "kl": [None] * 3}))
    json.dumps(out, allow_nan=False)
    assert out["arms"]["kl"]["mean"] is None and out["arms"]["kl"]["p_vs_alone"] is None
    assert "kl: seeds 0, 1, 2 failed" in results.table(out)


def test_pairs_are_made_by_seed_not_by_place():
    given = parts()
    kl = given["arms"]["kl"]
    for key in ("seeds", "test"):
        kl[key] = list(kl[key])[::-1]
    straight = results.build(**parts())["arms"]["kl"]
    turned = results.build(**given)["arms"]["kl"]
    assert turned["p_vs_alone"] == pytest.approx(straight["p_vs_alone"])


def test_one_seed():
    out = results.build(**parts({name: values[:1] for name, values in TOP1.items()}, seeds=(0,)))
    for arm in out["arms"].values():
        assert arm["std"] is None and arm["ci95"] is None and arm["p_vs_alone"] is None
    text = results.table(out)
    assert "One seed proves nothing" in text and "±" not in text and "95% interval" not in text
    assert all(len(line) <= results.TABLE_WIDTH for line in text.splitlines())


def test_table_of_several_seeds():
    text = results.table(results.build(**parts()), closing="Trained from scratch.")
    lines = text.splitlines()
    assert all(len(line) <= results.TABLE_WIDTH for line in lines), max(map(len, lines))
    row = next(line for line in lines if line.startswith("kl_cosine"))
    for cell in ("80.00 ± 2.65", "73.43 to 86.57", "404 k", "5.6 M", " 4 "):
        assert cell in row
    teacher = next(line for line in lines if line.startswith("teacher"))
    assert "90.00" in teacher and "3.69 M" in teacher
    flat = " ".join(text.split())
    assert "one split and one teacher" in flat and "says nothing about other splits" in flat
    assert "400 test images: one of them is 0.25 points" in flat
    assert "Holm-corrected over 3 arms" in flat and "kl_cosine -10.00" in flat
    assert "weaker" not in flat and text.endswith("Trained from scratch.")


def test_a_weaker_teacher_is_said_with_the_numbers():
    flat = " ".join(results.table(results.build(**parts(teacher=0.71))).split())
    assert "The teacher is the weaker network here: 71.00 % against 72.00 % of student_alone" in flat
    assert "student_alone +1.00" in flat
    few = {"kl_cosine": TOP1["kl_cosine"]}
    flat = " ".join(results.table(results.build(**parts(few, teacher=0.71))).split())
    assert "71.00 % against 80.00 % of kl_cosine" in flat and "p:" not in flat


def test_alone_is_found_by_its_weights_where_no_arm_has_the_name():
    given = parts()
    given["arms"]["plain"] = given["arms"].pop("student_alone")
    out = results.build(**given)["arms"]
    assert out["plain"]["p_vs_alone"] is None and out["kl"]["p_vs_alone"] is not None
    assert results.build(**given, alone="cosine")["arms"]["cosine"]["p_vs_alone"] is None
    with pytest.raises(ValueError, match="nobody"):
        results.build(**given, alone="nobody")


def test_missing_and_misfitting_parts_are_named():
    with pytest.raises(ValueError, match="dataset.*fingerprint"):
        results.build(**parts(dataset={"name": "x", "classes": (), "splits": {}}))
    given = parts()
    given["arms"]["kl"]["val_top1"] = [0.5]
    with pytest.raises(ValueError, match="arms.kl.val_top1"):
        results.build(**given)
    with pytest.raises(TypeError, match="config.thing"):
        results.build(**parts(config={"thing": object()}))


def test_configs_and_arrays_become_plain():
    config = ml_collections.ConfigDict({"a": {"b": (1, 2.5)}, "c": None})
    config.a.d = ml_collections.config_dict.placeholder(int)
    given = parts(config=config)
    given["arms"]["kl"]["seconds"] = jnp.asarray([1.5, jnp.nan])
    out = results.build(**given)
    assert out["config"] == {"a": {"b": [1, 2.5], "d": None}, "c": None}
    assert out["arms"]["kl"]["seconds"] == [1.5, None]


def test_file_is_replaced_whole_and_reads_back(tmp_path):
    out = results.build(
        **parts(config={"pattern": "a [1,  2] {b}", "list": ["[", " x ", "y ["], "more": ["a", "b ]", "  c"]})
    )
    path = tmp_path / "results.json"
    path.write_text("old")
    results.write(path, out)
    assert json.loads(path.read_text(encoding="utf-8")) == out
    assert "[1, 1, 0]" in path.read_text(encoding="utf-8")  # a row of the confusion matrix on one line
    with pytest.raises(ValueError):
        results.write(path, {"x": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == out
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write(path, {})
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["results.json"]


def test_environment_names_versions_and_devices():
    import jax

    facts = results.environment()
    assert facts["jax"] == jax.__version__ and facts["numpy"] == np.__version__
    for name in ("python", "jaxlib", "flax", "optax", "orbax", "platform", "cpu_count", "xla_flags"):
        assert name in facts
    assert sum(d["count"] for d in facts["devices"]) == jax.device_count()
