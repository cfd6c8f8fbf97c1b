"""Float networks against their int8 versions: spoilt ones name the layer, sound ones no layer.

    python -m pytest tests/conformance/test_spoilt_int8.py

Four sample networks, quantised by ONNX Runtime.  Twelve are spoilt at one layer; twenty are sound:
other calibration images and methods, weights per tensor and per channel, other types and formats.
"""

import pytest
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
from quantised import cifar, quantised
from references import SAMPLES
from spoilt import QdqFile, cases, wrong_axis

from inspector.compare import compare
from inspector.compare.alignment import Probe, align
from inspector.compare.networks import blank_of, opened_pair
from inspector.compare.parting import Meter

pytestmark = pytest.mark.conformance

NETWORKS = ("resnet20", "zfnet", "all_cnn_c", "conv_pool_cnn_c")
PHOTOS = [SAMPLES / "images" / f"{name}_2.png" for name in ("cat", "ship", "horse", "frog")]
SOUND = {
    "per channel": {},
    "per tensor": {"per_channel": False},
    "other images": {},
    "few images": {},
    "symmetric": {
        "activation_type": QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True},
    },
    "symmetric per tensor": {
        "activation_type": QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True},
        "per_channel": False,
    },
    "levels kept": {"quant_format": QuantFormat.QOperator},
    "levels kept per tensor": {"quant_format": QuantFormat.QOperator, "per_channel": False},
    "moving average": {"extra_options": {"CalibMovingAverage": True}},
    "percentile": {"calibrate_method": CalibrationMethod.Percentile},
    "unsigned weights": {"weight_type": QuantType.QUInt8, "per_channel": False},
    "16 bits": {"activation_type": QuantType.QUInt16},
    "dedicated pairs": {"extra_options": {"DedicatedQDQPair": True}},
}
PER_NETWORK = {
    "resnet20": ("per channel", "per tensor", "other images", "levels kept", "percentile"),
    "zfnet": ("few images", "per tensor", "symmetric", "levels kept per tensor", "16 bits"),
    "all_cnn_c": (
        "per channel",
        "symmetric per tensor",
        "other images",
        "moving average",
        "unsigned weights",
    ),
    "conv_pool_cnn_c": (
        "few images",
        "per tensor",
        "symmetric",
        "levels kept",
        "dedicated pairs",
    ),
}


@pytest.fixture(scope="module")
def images():
    return cifar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spoilt")


@pytest.fixture(scope="module")
def sound(folder, images):
    """The plain int8 version of each network, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = quantised(SAMPLES / f"{name}.onnx", folder, "asymmetric", images[100:140])
        return made[name]

    return of


def parting(network, other):
    """Where the two part, without maps: those of a spoilt network may be refused."""
    a, b, _ = opened_pair(SAMPLES / f"{network}.onnx", other)
    probes = Probe(a.model), Probe(b.model)
    meter = Meter(*probes, align(*probes, (blank_of(a), blank_of(b)), same_input=True))
    for path in PHOTOS:
        photo = a.photo(path)
        meter.add(*(m.preprocessing.preprocess.apply(photo)[0][None] for m in (a, b)))
    return meter.result()


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_the_spoilt_layer_is_named(case, sound, tmp_path):
    file = QdqFile(sound(case.network))
    tensor = case.spoil(file, case.place)
    found = parting(case.network, file.save(tmp_path / f"{case.name}.onnx"))
    assert found.first is not None, found.sentence
    assert found.first.point.name == tensor, found.sentence


@pytest.mark.parametrize(
    ("network", "variant"), [(n, v) for n, variants in PER_NETWORK.items() for v in variants]
)
def test_a_sound_variant_raises_no_alarm(network, variant, images, tmp_path):
    calibration = {"other images": images[300:360], "few images": images[200:210]}
    other = quantised(
        SAMPLES / f"{network}.onnx",
        tmp_path,
        "asymmetric",
        calibration.get(variant, images[100:140]),
        **SOUND[variant],
    )
    found = parting(network, other)
    assert found.layers, found.sentence
    assert found.first is None, found.sentence


def test_a_spoilt_network_whose_maps_are_refused_names_its_layer(sound, tmp_path):
    file = QdqFile(sound("resnet20"))
    tensor = wrong_axis(file, 12)
    other = file.save(tmp_path / "spoilt.onnx")
    found = compare(SAMPLES / "resnet20.onnx", other, PHOTOS[:2], noise_images=1)
    assert found.parting.first.point.name == tensor
    assert found.sentence.endswith(f"the first layer that parts: {tensor}")
