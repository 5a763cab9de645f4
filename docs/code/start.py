import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ana_fx

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # [1797, 1, 8, 8] in [0, 1]
labels = torch.tensor(digits.target)
loader = DataLoader(TensorDataset(images[:1200], labels[:1200]), batch_size=60, shuffle=True)
test_images, test_labels = images[1200:], labels[1200:]
criterion = nn.CrossEntropyLoss()


def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )


def train(net, epochs=2):
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for x, y in loader:
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return net.eval()


@torch.no_grad()
def accuracy(net):
    return float((net(test_images).argmax(1) == test_labels).float().mean())


model = train(network())  # a trained float network
