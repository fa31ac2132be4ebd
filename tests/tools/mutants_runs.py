"""Mutants of what a run is made of: splits, teacher and bands, and whether they are its own. See `mutate.py`."""

from mutants_wiring import INITIAL_WEIGHTS, Mutant

SOFT = "kdjax/run/soft_targets.py"
RECORD = "kdjax/run/record.py"
BANDS = "kdjax/run/network_bands.py"
SPLITS = "kdjax/data/splits.py"
TARGETS = "kdjax/teacher/targets.py"
SOFT_TESTS = "tests/run/test_soft_targets.py"
RECORD_TESTS = "tests/run/test_record.py"
BANDS_TESTS = "tests/run/test_network_bands.py"
TARGETS_TESTS = "tests/teacher/test_targets.py"

OF_RUNS = (
    # What a run is given, and whose it is.
    Mutant(
        SOFT,
        '    return {**file.parts, "examples": run.dataset.fingerprint, **weighting, **selection}',
        '    return {**file.parts, "examples": run.dataset.fingerprint, **selection}',
        f"{SOFT_TESTS} -k class_weights",
    ),
    Mutant(
        SOFT,
        '    return {**file.parts, "examples": run.dataset.fingerprint, **weighting, **selection}',
        "    return {**file.parts, **weighting, **selection}",
        f"{SOFT_TESTS} -k class_weights",
    ),
    Mutant(
        SOFT,
        "train, validation = run.dataset.train.labeled(), run.dataset.validation\n    pairs",
        "train, validation = run.dataset.train.labeled(), run.dataset.test\n    pairs",
        f"{SOFT_TESTS} -k chosen_on_validation",
    ),
    Mutant(SOFT, "    targets.check(ended=run.student.has_ended)\n", "", f"{SOFT_TESTS} -k decoded_differently"),
    Mutant(
        SOFT,
        "targets.check(ended=run.student.has_ended)",
        "targets.check(ended=True)",
        f"{SOFT_TESTS} -k decoded_differently",
    ),
    Mutant(
        SOFT,
        "for row, column in np.argwhere(finished.usable)",
        "for row, column in np.argwhere(finished.usable | True)",
        f"{SOFT_TESTS} -k mean_of_students",
    ),
    Mutant(SOFT, '        if other.arm in ("", learner.arm_names[column])\n', "", f"{SOFT_TESTS} -k mean_of_students"),
    Mutant(
        SOFT,
        "    view_settings = dataclasses.replace(view_settings, size=learner.size)\n",
        "",
        f"{SOFT_TESTS} -k mean_of_students",
    ),
    Mutant(
        "kdjax/run/other_run.py",
        'names = [other.arm] if other.arm else trained_students(other)["arms"]',
        "names = [other.arm] if other.arm else list(arms)",
        "tests/run/test_students_as_teacher.py -k not_trained",
    ),
    Mutant(
        RECORD,
        'return any(map(checkpoint.has_begun, workdir.glob("*")))',
        'return any(map(checkpoint.has_begun, workdir.glob("distill")))',
        f"{RECORD_TESTS} -k begun",
    ),
    Mutant(
        RECORD,
        'dataset = {**document["dataset"], "path": None}',
        'dataset = {**document["dataset"], "path": None, "image_size": None}',
        f"{RECORD_TESTS} -k other_field",
    ),
    Mutant(
        RECORD,
        "for side, split in splits.items()}\n    return hashlib",
        "for side, split in list(splits.items())[:1]}\n    return hashlib",
        f"{RECORD_TESTS} -k each_side",
    ),
    Mutant(
        BANDS,
        'recorded["names"] != current["names"]:',
        'sorted(recorded["names"]) != sorted(current["names"]):',
        f"{BANDS_TESTS} -k keeps_its_statistics",
    ),
    Mutant(
        BANDS,
        '    if bands is None or statistics.get("bands") != list(bands.names):\n',
        "    if bands is None or not statistics:\n",
        f"{BANDS_TESTS} -k keeps_its_statistics",
    ),
    Mutant(
        "kdjax/run/run.py",
        "return dataclasses.replace(configured, brightness=0.0, contrast=0.0, saturation=0.0)",
        "return configured",
        "tests/run/test_augmentation.py -k plain",
    ),
    Mutant(
        INITIAL_WEIGHTS,
        "if names is not None and tuple(names) != learner.bands:",
        "if names is not None and set(names) != set(learner.bands):",
        "tests/training/test_learner.py -k another_order",
    ),
    # The splits.
    Mutant(
        SPLITS,
        'ranked(f"labels-{purpose}", seed,',
        'ranked("labels", seed,',
        "tests/data/test_splits_seeds.py -k every_version",
    ),
    Mutant(
        SPLITS,
        'f"{purpose}/{seed}/{names[i]}"',
        'f"{seed}/{purpose}/{names[i]}"',
        "tests/data/test_splits_seeds.py -k every_version",
    ),
    Mutant(
        SPLITS,
        'unlabeled = (labels < 0) & ((side == "validation") | (side == "test"))',
        'unlabeled = (labels < 0) & (side == "test")',
        "tests/data/test_splits.py -k hold_out",
    ),
    Mutant(
        "kdjax/data/groups.py",
        "totals = np.maximum(counts.sum(0), 1)",
        "totals = np.full(classes, len(labels))",
        "tests/data/test_groups.py -k rare_class",
    ),
    Mutant(
        "kdjax/data/loading.py",
        "np.concatenate([train.image_hashes(), tiles.hashes[keep]])",
        "np.concatenate([train.image_hashes(), tiles.hashes[: keep.sum()]])",
        "tests/data/test_splits.py -k join_train",
    ),
    Mutant(
        "kdjax/data/places.py",
        'tile.xy(tile.height / 2, tile.width / 2, offset="ul")',
        'tile.xy(tile.width / 2, tile.height / 2, offset="ul")',
        "tests/data/test_places.py -k no_square",
    ),
    Mutant(
        "kdjax/data/near_duplicates.py",
        "_correlations(small[start : start + _IMAGES_AT_ONCE], small[start:])",
        "_correlations(small[start : start + _IMAGES_AT_ONCE], small[start : start + _IMAGES_AT_ONCE])",
        "tests/data/test_near_duplicates.py -k far",
    ),
    Mutant(
        "kdjax/data/cache.py",
        "json.dumps([FORMAT, parts], sort_keys=True)",
        "json.dumps([parts], sort_keys=True)",
        "tests/data/test_cache.py -k another_format",
    ),
    # The teacher.
    Mutant(
        TARGETS,
        "current = [source.folder.fingerprint for source in self.sources]\n        recorded",
        "current = sorted(source.folder.fingerprint for source in self.sources)\n        recorded",
        f"{TARGETS_TESTS} -k ensemble",
    ),
    Mutant(
        TARGETS,
        "return {**self._read(self.workdir), **self._read(self.results_dir)}",
        "return self._read(self.results_dir)",
        f"{TARGETS_TESTS} -k follows",
    ),
    Mutant(
        TARGETS,
        "Rows.of(splits[name]).select(slice(start, end))",
        "Rows.of(splits[name]).select(slice(0, end - start))",
        f"{TARGETS_TESTS} -k shard_of_plain",
    ),
    Mutant(
        "kdjax/teacher/onnx.py",
        "chosen = examples[rows].astype(np.int32)\n            return",
        "chosen = rows.astype(np.int32)\n            return",
        "tests/teacher/test_onnx.py -k embeddings",
    ),
)
