"""Mutants of bands: which band is which, how it is stored and normalized, and where it goes. See `mutate.py`."""

from mutants_wiring import Mutant

BANDS = "kdjax/data/bands.py"
DATA, NETWORKS, DEPLOY = (
    "tests/data/test_bands.py",
    "tests/networks/test_input_bands.py",
    "tests/deploy/test_exported_bands.py",
)
DESCRIBED, BEGUN = "tests/data/test_described_bands.py", "tests/run/test_network_bands.py"

OF_BANDS = (
    Mutant(
        BANDS,
        "BandChoice(tuple(keys.index(key) for key in wanted), ())",
        "BandChoice(tuple(range(len(wanted))), ())",
        DATA,
    ),
    Mutant(BANDS, "chosen = tuple(place_of[key] for key in wanted)", "chosen = tuple(range(len(wanted)))", DATA),
    Mutant(
        BANDS,
        "if keys[place] and _color(keys[place]) != _color(key) and _color(keys[place]) in colors_present:",
        "if False:",
        DESCRIBED,
    ),
    Mutant(BANDS, "if alpha in chosen and not keys[alpha]", "if False", DESCRIBED),
    Mutant("kdjax/data/sentinel2_offset.py", "if evidence.mixed:", "if False:", "tests/data/test_sentinel2_offset.py"),
    Mutant("kdjax/run/run.py", "dataset = network_bands.with_recorded_statistics(workdir, dataset)", "pass", BEGUN),
    Mutant("kdjax/run/run.py", "if not begun:", "if True:", BEGUN),
    Mutant(BANDS, "others.min() - medians[place]", "others.max() - medians[place]", DATA),
    Mutant(BANDS, "> _DARKEST_MARGIN * abs", "> 0 * abs", DATA),
    Mutant(BANDS, "image[image.min(-1) < image.max(-1)]", "image.reshape(-1, image.shape[-1])", DATA),
    Mutant(BANDS, "if self.order and matching and self.order not in matching:", "if False:", DATA),
    Mutant("kdjax/data/decode_all.py", "if len(title_by_order) > 1:", "if False:", DATA),
    Mutant(BANDS, "if keys.count(key) > 1:", "if keys.count(key) > 2:", DATA),
    Mutant("kdjax/data/meaning.py", "np.uint16 if self.bands and self.value_range else np.uint8", "np.uint8", DATA),
    Mutant("kdjax/data/sentinel2_offset.py", "if many_against or share > _MOST_BELOW:", "if False:", DATA),
    Mutant("kdjax/data/sentinel2_offset.py", "elif many_against:", "elif False:", DATA),
    Mutant(BANDS, "return 0.0 if self.of_sensor and dtype != np.uint8 else None", "return None", DATA),
    Mutant(BANDS, "if self.of_sensor and dtype != np.uint8", "if self.of_sensor", DATA),
    Mutant("kdjax/data/dataset.py", 'add("\\n".join(bands.names).encode())', "pass", DATA),
    Mutant(
        "kdjax/inputs/augment.py",
        "65535 if image.dtype == jnp.uint16 else 255",
        "255",
        "tests/inputs/test_augment.py -k band",
    ),
    Mutant(
        "kdjax/networks/layers.py",
        "images = images[..., np.array(bands.chosen)]",
        "images = images[..., : len(bands.mean)]",
        NETWORKS,
    ),
    Mutant("kdjax/networks/widening.py", "max(3 - len(present), 1) / max(other_count, 1)", "1.0", NETWORKS),
    Mutant(
        "kdjax/networks/widening.py",
        "result[:, :, place] = kernel[:, :, color]",
        "result[:, :, color] = kernel[:, :, color]",
        NETWORKS,
    ),
    Mutant(
        "kdjax/run/network_bands.py",
        "their_places = [their_keys.index(canonical(name)) for name in names]",
        "their_places = list(range(len(names)))",
        "tests/run/test_network_bands.py",
    ),
    Mutant(
        "kdjax/deploy/export/fold.py",
        "largest, bands = float(np.iinfo(dtype).max), bands or",
        "largest, bands = 255.0, bands or",
        DEPLOY,
    ),
    Mutant(
        "kdjax/deploy/landuse_map/raster.py",
        "return tuple(index + 1 for index in indices)",
        "return tuple(sorted(index + 1 for index in indices))",
        DEPLOY,
    ),
)
