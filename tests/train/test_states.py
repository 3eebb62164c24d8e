"""What a run goes on from changes nothing by being saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from relisten.train.grpo.team import Team
from relisten.train.states import States


def trained(folder: Path, saves: bool, resumes: bool) -> torch.Tensor:
    """A weight after two steps, of which the first state may be saved, and gone on from, before any."""
    torch.manual_seed(0)
    module = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    states = States(folder, module, optimizer, Team())
    if saves:
        states.save(1)
    if resumes:
        module = nn.Linear(2, 1, bias=False)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
        assert States(folder, module, optimizer, Team()).restore() == 1
    for size in (1.0, 3.0):
        optimizer.zero_grad()
        (size * module(torch.ones(1, 2))).sum().backward()
        optimizer.step()
    return module.weight.detach()


@pytest.mark.parametrize("resumes", [False, True])
def test_a_state_from_before_the_first_update_counts_no_step(tmp_path: Path, resumes: bool) -> None:
    plain = trained(tmp_path, saves=False, resumes=False)
    assert torch.equal(trained(tmp_path, saves=True, resumes=resumes), plain)


def test_the_newest_stay_and_one_can_be_dropped(tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    states = States(tmp_path, module, torch.optim.AdamW(module.parameters()), Team(), keep=2)
    for step in (1, 2, 3):
        with torch.no_grad():
            module.bias.fill_(step)
        states.save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    states.drop(3)
    assert states.restore() == 2
    assert module.bias.item() == 2
