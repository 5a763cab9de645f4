"""Small data sets in the formats that torchvision and torchaudio read, with checksums of their own."""

import hashlib
import pickle
import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import CIFAR10, SVHN


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, num_images: int = 12) -> Path:
    """Six batches of random images, as the authors' archive holds them; every class occurs."""
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return _md5(folder / name)

    def batch(name: str) -> list[str]:
        images = np.random.randint(0, 256, (num_images, 3 * 32 * 32), np.uint8)
        labels = [index % 10 for index in range(num_images)]
        return [name, write(name, {"batch_label": name, "data": images, "labels": labels, "filenames": []})]

    meta = write("batches.meta", {"label_names": [str(label) for label in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{number}") for number in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return root


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch, num_images: int = 20) -> Path:
    """Two files of MATLAB's; the digit 0 is class 10 there."""
    root.mkdir(parents=True)
    files = {}
    for part in ("train", "test"):
        images = np.random.randint(0, 256, (32, 32, 3, num_images), np.uint8)
        labels = np.array([1 + index % 10 for index in range(num_images)], np.uint8)[:, None]
        path = root / f"{part}_32x32.mat"
        savemat(path, {"X": images, "y": labels})
        files[part] = ["", path.name, _md5(path)]
    monkeypatch.setattr(SVHN, "split_list", files)
    return root


WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "bed", "cat")


def write_speech_commands(root: Path, speakers: int = 3) -> Path:
    """A folder for each word with a clip of each speaker, the last of whom is for testing, and background noise."""
    folder = root / "SpeechCommands" / "speech_commands_v0.02"
    testing = []
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for speaker in range(speakers):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            _write_clip(folder / name, num_samples=16000 - 500 * speaker)  # many real clips are shorter than a second
            if speaker == speakers - 1:
                testing.append(name)
    (folder / "_background_noise_").mkdir()
    _write_clip(folder / "_background_noise_" / "hum.wav", num_samples=40000)
    (folder / "testing_list.txt").write_text("\n".join(testing) + "\n")
    (folder / "validation_list.txt").write_text("")
    return root


def _write_clip(path: Path, num_samples: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.random.randint(-3000, 3000, num_samples).astype(np.int16).tobytes())


def write_archive(path: Path, num_examples: int = 20) -> Path:
    """Random images in a NumPy archive."""
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = np.random.randint(0, 256, (num_examples, 32, 32, 3), np.uint8)
        arrays[f"y_{part}"] = np.arange(num_examples) % 10
    np.savez(path, **arrays)
    return path
