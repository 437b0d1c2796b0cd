"""Programs written against simple-faster-rcnn: a whole training, and what its parts promise."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import nn
from oxidet.models.detection import load_detector
from oxidet.nn import init
from oxidet.ops import RoIPool
from oxidet.simple_faster_rcnn import (
    AverageValueMeter,
    Config,
    ConfusionMeter,
    DataLoader,
    Dataset,
    FasterRCNN,
    FasterRCNNTrainer,
    LossTuple,
    Preprocessing,
    RegionProposalNetwork,
    RoIHead,
    TestDataset,
    VOCBboxDataset,
    at,
    inverse_normalize,
    opt,
    preprocess,
    visdom_bbox,
)
from oxidet.transforms import Normalize
from simple_faster_rcnn.ported_training_loop import train
from simple_faster_rcnn.voc_folder import NAMES, make_voc_folder

pytest.importorskip("PIL")


class TinyFasterRCNN(FasterRCNN):
    """A detector of a few thousand parameters for the pictures of ``voc_folder``."""

    def __init__(self, n_fg_class: int = 3) -> None:
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(((3, 8), (8, 12), (12, 16))):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            if i < 2:
                layers.append(nn.MaxPool2d(2, 2))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                init.kaiming_normal_(layer.weight, nonlinearity="relu")
        rpn = RegionProposalNetwork(
            16, 16, ratios=(1.0,), anchor_scales=(1, 2), feat_stride=4,
            proposal_creator_params={"n_train_post_nms": 50, "n_test_post_nms": 20, "min_size": 4},
        )  # fmt: skip
        classifier = nn.Sequential(nn.Linear(16 * 9, 32), nn.ReLU())
        super().__init__(
            nn.Sequential(*layers),
            rpn,
            RoIHead(n_fg_class + 1, RoIPool((3, 3), 1 / 4), classifier, 32),
            preprocessing=Preprocessing(min_size=48, max_size=64),
        )


@pytest.fixture(autouse=True)
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test finds the original's options and a directory to write to."""
    monkeypatch.chdir(tmp_path)
    random.seed(0)
    np.random.seed(0)
    oxidet.manual_seed(0)
    yield
    opt._parse(Config()._state_dict())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc_folder(tmp_path_factory.mktemp("data") / "VOC2007")


def small_options(folder: Path) -> dict[str, Any]:
    return {
        "voc_data_dir": str(folder),
        "min_size": 48,
        "max_size": 64,
        "num_workers": 1,
        "test_num_workers": 1,
        "plot_every": 3,
    }


def test_a_ported_training_loop_runs(folder: Path) -> None:
    trainer, best_path = train(TinyFasterRCNN, lr=0.005, **small_options(folder))
    rates = [math.floor(1e9 * group["lr"]) for group in trainer.optimizer.param_groups]
    assert set(rates) == {500_000, 1_000_000}  # biases at twice the rate, both a tenth
    assert len(trainer.vis.curves["test_map"]) == 14
    assert len(trainer.vis.log_text) == 14
    assert len(trainer.vis.curves["total_loss"]) == 14 * 2
    losses = trainer.vis.curves["total_loss"]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert trainer.vis.images["gt_img"].shape == (3, 48, 64)
    assert 0 <= trainer.vis.images["pred_img"].min() <= trainer.vis.images["pred_img"].max() <= 1
    assert trainer.vis.images["roi_cm"].shape == (4, 4)
    assert trainer.vis.texts["labels"] == str(NAMES)
    assert best_path.startswith("checkpoints/fasterrcnn_")
    # Best weights were loaded after epoch 9, and only then.
    assert Path(best_path).is_file()


def test_the_best_weights_come_back_and_learning_goes_on_slower(folder: Path) -> None:
    """What the loop does after epoch 9."""
    opt._parse(small_options(folder))
    trainer = FasterRCNNTrainer(TinyFasterRCNN())
    item = next(iter(DataLoader(Dataset(opt))))
    trainer.train_step(*item[:3], at.scalar(item[3]))
    path = trainer.save(best_map=0.25)
    assert path.endswith("_0.25.npz")
    best = {key: value.copy() for key, value in trainer.faster_rcnn.state_dict().items()}
    trainer.train_step(*item[:3], at.scalar(item[3]))
    assert any((trainer.faster_rcnn.state_dict()[key] != best[key]).any() for key in best)
    assert trainer.load(path) is trainer
    for key, value in trainer.faster_rcnn.state_dict().items():
        np.testing.assert_array_equal(value, best[key], key)
    assert trainer.faster_rcnn.scale_lr(opt.lr_decay) is trainer.optimizer
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_steps_meters_and_losses(folder: Path) -> None:
    opt._parse(small_options(folder))
    trainer = FasterRCNNTrainer(TinyFasterRCNN())
    seen = []
    for img, bbox, label, scale in DataLoader(Dataset(opt)):
        losses = trainer.train_step(img, bbox, label, at.scalar(scale))
        assert type(losses) is LossTuple
        parts = [float(loss) for loss in losses]
        assert parts[4] == pytest.approx(sum(parts[:4]), rel=1e-5)
        seen.append(parts)
    means = trainer.get_meter_data()
    assert list(means) == list(LossTuple._fields)
    np.testing.assert_allclose(list(means.values()), np.mean(seen, axis=0), rtol=1e-6)
    # Every sampled anchor and every sampled region was counted.
    assert trainer.rpn_cm.value().shape == (2, 2)
    assert trainer.roi_cm.value().shape == (4, 4)
    assert trainer.rpn_cm.conf.sum() > 0
    assert trainer.roi_cm.conf.sum() > 0
    assert trainer.roi_cm.conf.sum(axis=1)[1:].sum() >= len(seen)  # each image has an object
    trainer.reset_meters()
    assert trainer.rpn_cm.conf.sum() == trainer.roi_cm.conf.sum() == 0
    assert all(math.isnan(value) for value in trainer.get_meter_data().values())


def test_the_trainer_and_the_detector_have_the_same_losses(folder: Path) -> None:
    """FasterRCNNTrainer on prepared images, Detector.training_losses on images as they are."""
    model = TinyFasterRCNN()
    img, bbox, label, _ = VOCBboxDataset(folder)[0]
    prepared = model.preprocessing(img)
    trainer = FasterRCNNTrainer(model, rng=np.random.RandomState(1))
    old = trainer(prepared[None], bbox[None], label[None], 1.0)
    new = model.training_losses(
        [img], [bbox[:, [1, 0, 3, 2]]], [label], rng=np.random.RandomState(1)
    )
    assert list(new) == list(LossTuple._fields[:4])
    for name, value in new.items():
        assert float(value) == float(getattr(old, name)), name


def test_checkpoints_keep_everything(folder: Path, tmp_path: Path) -> None:
    opt._parse({**small_options(folder), "lr": 0.004})
    trainer = FasterRCNNTrainer(TinyFasterRCNN())
    img, bbox, label, scale = next(iter(DataLoader(Dataset(opt))))
    trainer.train_step(img, bbox, label, at.scalar(scale))
    trainer.vis.plot("test_map", 0.5)
    path = trainer.save(True, tmp_path / "deep" / "name", best_map=np.float64(0.5), note="a")
    assert path == str(tmp_path / "deep" / "name.npz")

    opt._parse({"lr": 1.0, "plot_every": 7})
    other = FasterRCNNTrainer(TinyFasterRCNN())
    other.load(path)
    assert opt.plot_every == 7
    other.load(path, parse_opt=True)
    assert (opt.plot_every, opt.lr) == (3, 0.004)
    np.random.seed(7)
    trainer.train_step(img, bbox, label, at.scalar(scale))
    np.random.seed(7)
    other.train_step(img, bbox, label, at.scalar(scale))
    for key, value in trainer.faster_rcnn.state_dict().items():
        np.testing.assert_array_equal(value, other.faster_rcnn.state_dict()[key], key)

    bare = tmp_path / "bare.npz"
    oxidet.weights.save(bare, trainer.faster_rcnn.state_dict())
    other.load(bare)
    with pytest.raises(ValueError, match=r"model: expected one of .* does not say"):
        load_detector(path)


def test_adam_is_an_option() -> None:
    opt._parse({"use_adam": True, "lr": 1e-4})
    trainer = FasterRCNNTrainer(TinyFasterRCNN())
    assert isinstance(trainer.optimizer, oxidet.optim.Adam)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {1e-4, 2e-4}
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0, 0.0005}


def test_options_are_the_originals() -> None:
    """Specification 7.3."""
    expected = {
        "min_size": 600, "max_size": 1000, "num_workers": 8, "test_num_workers": 8,
        "rpn_sigma": 3.0, "roi_sigma": 1.0, "weight_decay": 0.0005, "lr_decay": 0.1, "lr": 1e-3,
        "env": "faster-rcnn", "port": 8097, "plot_every": 40, "data": "voc",
        "pretrained_model": "vgg16", "epoch": 14, "use_adam": False, "use_chainer": False,
        "use_drop": False, "test_num": 10000, "load_path": None, "caffe_pretrain": False,
        "caffe_pretrain_path": "checkpoints/vgg16_caffe.pth",
    }  # fmt: skip
    state = opt._state_dict()
    assert {key: state[key] for key in expected} == expected
    assert state.keys() - expected.keys() == {"voc_data_dir", "debug_file"}
    with pytest.raises(ValueError, match="epochs: expected an option"):
        opt._parse({"lr": 5, "epochs": 3})
    assert opt.lr == 1e-3
    assert dataclasses.asdict(opt) == dataclasses.asdict(Config())


def test_data_sets(folder: Path) -> None:
    data = VOCBboxDataset(str(folder), "test", use_difficult=True)
    assert data.label_names == NAMES
    img, _, _, difficult = data[0]
    assert (img.shape, difficult.dtype) == ((3, 48, 64), np.uint8)
    assert len(data.get_example(1)) == 4
    assert len(VOCBboxDataset(folder)) == 6

    opt._parse({**small_options(folder), "min_size": 24, "max_size": 64})
    train_set, test_set = Dataset(opt), TestDataset(opt)
    assert (len(train_set), len(test_set)) == (6, 3)
    flips = 0
    for index in range(20):
        img, bbox, _, scale = train_set[index % 6]
        assert (img.shape, scale) == ((3, 24, 32), 0.5)
        assert ((bbox[:, 2:] - bbox[:, :2]) > 5).all()
        original = VOCBboxDataset(folder)[index % 6][1]
        flips += not np.allclose(bbox, original / 2)
    assert 3 < flips < 17
    prepared, size, bbox, *_ = test_set[0]
    assert (prepared.shape, tuple(size)) == ((3, 24, 32), (48, 64))
    np.testing.assert_array_equal(bbox, data[0][1])


def test_batches_are_those_of_torch(folder: Path) -> None:
    opt._parse(small_options(folder))
    loader = DataLoader(TestDataset(opt), batch_size=1, num_workers=2, pin_memory=True)
    imgs, sizes, bboxes, labels, difficults = next(iter(loader))
    assert imgs.shape == (1, 3, 48, 64)
    assert [size[0].item() for size in sizes] == [48, 64]
    assert bboxes.shape[::2] == (1, 4)
    assert labels.shape == difficults.shape == bboxes.shape[:2]
    assert type(imgs.cuda().cpu().detach().float().numpy()) is np.ndarray
    assert imgs.long().dtype == np.int64
    shuffled = DataLoader(Dataset(opt), shuffle=True)
    firsts = [[float(img.sum()) for img, *_ in shuffled] for _ in range(3)]
    assert len({tuple(np.round(each, 1)) for each in firsts}) > 1


@pytest.mark.parametrize("caffe", [False, True])
def test_preprocessing_and_back(caffe: bool) -> None:
    opt.caffe_pretrain = caffe
    img = np.random.default_rng(0).uniform(0, 255, (3, 48, 64)).astype(np.float32)
    prepared = preprocess(img, 48, 64)
    form = Normalize.caffe() if caffe else Normalize.torchvision()
    assert_close(prepared, form(img), 1e-6)
    assert_close(inverse_normalize(prepared), img, 1e-6 if caffe else 0.08)


def test_predict_takes_the_originals_arguments(folder: Path) -> None:
    model = TinyFasterRCNN().train()
    init.normal_(model.head.score.weight, 0, 0.3)
    images = [VOCBboxDataset(folder)[i][0] for i in range(2)]
    prepared = [model.preprocessing(image) for image in images]
    bboxes, labels, scores = model.predict(prepared, [image.shape[1:] for image in images])
    for image, *found in zip(images, bboxes, labels, scores, strict=True):
        for ours, theirs in zip(found, model.detect(image), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert [array.dtype for array in found] == [np.float32, np.int32, np.float32]
    assert sum(len(score) for score in scores) > 0
    _, _, few = model.predict(images, visualize=True)
    assert [len(score) for score in few] == [int((score > 0.7).sum()) for score in few]
    assert sum(map(len, few)) < sum(map(len, scores))
    assert (model.score_thresh, model.training) == (0.05, True)
    with pytest.raises(ValueError, match="sizes: expected those of the original images"):
        model.predict(prepared, visualize=False)
    with pytest.raises(TypeError, match="expected no score_threshold with sizes"):
        model.predict(images, visualize=True, score_threshold=0.1)


def test_meters() -> None:
    meter = AverageValueMeter()
    values = [3.0, -1.0, 4.0, 1.5]
    for value in values:
        meter.add(value)
    assert meter.value() == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    confusion = ConfusionMeter(3, normalized=True)
    confusion.add(np.array([2, 2, 0]), np.array([2, 1, 2]))
    assert confusion.conf.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert confusion.value().tolist() == [[0, 0, 0], [0, 0, 1], [0.5, 0, 0.5]]
    with pytest.raises(ValueError, match="target: expected classes from 0 to 2, got 0 to 3"):
        confusion.add(np.array([0, 0]), np.array([0, 3]))
    with pytest.raises(ValueError, match=r"target: expected shape \(2,\), got \(1,\)"):
        confusion.add(np.array([0, 0]), np.array([0]))


def test_array_tool() -> None:
    tensor = nn.Tensor([1.0, 2.0], requires_grad=True)
    assert type(at.tonumpy(tensor)) is np.ndarray
    assert at.totensor(tensor * 2).tolist() == [2, 4]
    assert at.scalar(nn.Tensor([[3.5]])) == at.scalar(np.float32(3.5)) == at.scalar(3.5) == 3.5
    with pytest.raises(ValueError, match="reshape"):
        at.scalar(np.zeros(2))


def test_drawing() -> None:
    img = np.zeros((3, 40, 50), np.float32)
    drawn = visdom_bbox(img, [[5, 5, 30, 40]], [1], [0.5])
    assert drawn.shape == (3, 40, 50)
    assert (drawn.min(), drawn.max() <= 1, drawn.max() > 0.2) == (0, True, True)
    assert visdom_bbox(img, np.zeros((0, 4))).max() == 0
    assert visdom_bbox(img, [[5, 5, 30, 40]], [25]).max() > 0.2
