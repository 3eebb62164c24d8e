"""`LmPolicy`: a language model that writes a route's name, through LoRA on any family.

It reads the sound, the question and a list of the routes, and what it would write is judged as a whole: the
probability of a route is that of exactly its name and the end of the turn, computed for all names at once; what is
missing to 1 is the probability of writing something else, which is malformed. So a decision that is drawn from
these numbers is one that is sampled token by token and then parsed, without the noise and the cost of writing it
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from relisten.audio import Clip
from relisten.engines.base import Look
from relisten.errors import InputError
from relisten.models import default_dtype, load
from relisten.models.base import Family
from relisten.protocol import Format, user_text
from relisten.question import Question
from relisten.router.decision import Decision
from relisten.router.policy import decide, temper, write_about
from relisten.router.routes import Route
from relisten.router.weights import weights_hash
from relisten.tools.tool import all_tools
from relisten.train.trainable import need_peft, quiet_peft, save_adapters

_ADAPTER: Final = "adapter"


def routing_question(question: Question, routes: Sequence[Route]) -> Question:
    """What the policy is asked: the question as the reasoner reads it, then the routes with what their tools
    tell."""
    asked = user_text(Question(question.text, question.choices))
    tools = all_tools()
    listed = []
    for route in routes:
        tells = ", ".join(tools[name].summary for name in route.tools if name in tools) or "no tool"
        listed.append(f"- {route.name}: {tells}{'' if route.listen else ', without listening again'}")
    lines = "\n".join(listed)
    return Question(
        f"{asked}\n\nBefore it is answered, a tool may be run. Write the name of what helps most:\n{lines}"
    )


class LmPolicy:
    """See `relisten.router.decision.Policy`. The model is its own, also where it is loaded from the reasoner's
    folder.

    Args:
        family: a model with adapters (`train.trainable.add_adapters`).
        adapted: peft's model around its thinker.
        threshold: least probability of a route other than direct.
        temperature: log-probs of names are divided by it when it decides.
    """

    looks = False

    def __init__(
        self,
        routes: Sequence[Route],
        family: Family,
        adapted: Any,
        *,
        model: str,
        temperature: float = 1.0,
        threshold: float = 0.0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.family = family
        self.adapted = adapted
        self.model = model
        self.temperature = temperature
        self.threshold = threshold
        self.about = dict(about or {})
        self._banned = torch.tensor(family.banned_ids)
        self._names = [[*family.encode_response(route.name), family.end_of_turn_id] for route in routes]

    def decide(self, question: Question, clip: Clip, look: Look | None = None) -> Decision:
        """See `Policy.decide`."""
        with torch.no_grad():
            scores = self.logprobs(question, clip).double()
        chances = temper(with_malformed(scores), self.temperature)
        return decide(self.routes, chances.numpy(), self.threshold)

    def logprobs(self, question: Question, clip: Clip) -> Tensor:
        """Log-probability of each route's name, (routes,) float32 on the CPU, with gradient into the adapters.

        All names stand behind one prompt in one row, each attending to the prompt and to itself, so that the prompt
        is computed once.

        Raises:
            InputError: prompt and clip do not fit the context window.
        """
        family = self.family
        prompt = family.prompt(routing_question(question, self.routes), clip, Format.TEXT)
        head = prompt.ids(family)
        longest = max(map(len, self._names))
        if len(head) + longest > family.context_size:
            raise InputError(
                f"{clip.name or 'clip'}: clip and question make {len(head)} tokens, the routing model takes fewer "
                f"than {family.context_size - longest}; give a shorter clip"
            )
        device = family.device
        ids = torch.tensor([*head, *(i for name in self._names for i in name)], device=device)
        # Which name each token belongs to, -1 for the prompt; where it stands as if its name stood there alone.
        owned = [n for n, name in enumerate(self._names) for _ in name]
        owner = torch.tensor([-1] * len(head) + owned, device=device)
        places = [len(head) + i for name in self._names for i in range(len(name))]
        place = torch.tensor([*range(len(head)), *places], device=device)
        order = torch.arange(len(ids), device=device)
        sees = (order[:, None] >= order) & ((owner == -1) | (owner[:, None] == owner))
        with torch.no_grad():
            heard = torch.cat(family.encode_audio(prompt.clips))
        embeddings = family.embed(ids)
        embeddings = embeddings.masked_scatter((ids == family.audio_id)[:, None], heard.to(embeddings.dtype))
        mask = torch.zeros(sees.shape, dtype=embeddings.dtype, device=device)
        mask = mask.masked_fill(~sees, torch.finfo(embeddings.dtype).min)[None, None]
        states = family.language_model(
            inputs_embeds=embeddings[None],
            attention_mask={"full_attention": mask},
            position_ids=place.expand(3, 1, -1),
            use_cache=False,
        ).last_hidden_state[0]
        # The prompt's last token predicts the first of every name, each other token the one behind it.
        first = torch.tensor([sum(map(len, self._names[:n])) + len(head) for n in range(len(self._names))])
        behind = torch.ones(len(ids), dtype=torch.bool)
        behind[: len(head)] = False
        targets = behind.nonzero()[:, 0]
        before = targets - 1
        before[torch.isin(targets, first)] = len(head) - 1
        logits = family.lm_head(states[before.to(device)]).float()
        logits = logits.index_fill(-1, self._banned.to(device), -torch.inf)  # what no engine samples
        each = logits.log_softmax(-1).gather(-1, ids[targets.to(device)][:, None])[:, 0]
        sums = torch.zeros(len(self._names), device=device).index_add(0, owner[targets.to(device)], each)
        return sums.cpu()

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The adapters' weights by name."""
        return {name: p for name, p in self.family.thinker.named_parameters() if p.requires_grad}

    def save(self, folder: Path) -> None:
        """Write the policy into a folder, which is made if need be. The model itself is named, not copied."""
        folder.mkdir(parents=True, exist_ok=True)
        save_adapters(self.adapted, folder / _ADAPTER, self.model)
        about = {
            "threshold": self.threshold,
            "temperature": self.temperature,
            "model": self.model,
            "rank": self.adapted.peft_config["default"].r,
            "weights": sum(p.numel() for p in self.trained.values()),
        }
        write_about(folder, "lm", self.routes, {**about, **self.about})

    @classmethod
    def load(cls, folder: Path, about: Mapping[str, Any], device: str = "cpu") -> LmPolicy:
        """See `load_policy`."""
        peft = need_peft()
        family = load(about["model"], default_dtype(device, about["model"]), device)
        if weights_hash(family, exact=False) != about["base"]:
            raise InputError(
                f"{folder}: its adapter belongs to other weights than those of {about['model']} now; put those "
                "back, or train it again"
            )
        try:
            with quiet_peft():
                adapted = peft.PeftModel.from_pretrained(family.thinker, folder / _ADAPTER)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder}: is no whole policy ({error}); train it again") from None
        known = ("version", "kind", "routes", "threshold", "temperature", "model")
        return cls(
            about["routes"],
            family,
            adapted.eval().requires_grad_(False),
            model=about["model"],
            temperature=float(about["temperature"]),
            threshold=float(about["threshold"]),
            about={name: value for name, value in about.items() if name not in known},
        )


def with_malformed(logprobs: Tensor) -> Tensor:
    """Log-probs (..., routes + 1), the last that of writing none of the names. Of an answer that is all but certain
    to be a name this is kept finite."""
    total = logprobs.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-6)
    return torch.cat([logprobs, torch.log1p(-total)], dim=-1)
