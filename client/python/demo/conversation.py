"""What is talked about: a real document, questions over several turns, and a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DOCUMENTS = (
    Path("/usr/share/common-licenses/GPL-3"),
    Path("/usr/share/common-licenses/Apache-2.0"),
    *(folder / "LICENSE" for folder in Path(__file__).resolve().parents[1:4]),
)

QUESTIONS = (
    "Summarise this licence for somebody who ships a product.",
    "What must accompany the binaries?",
    "And when I only run it on my own servers?",
    "So what do I tell my customers, in one sentence?",
)

#: Characters of the document in the first prompt, by size; about four are one token.
DOCUMENT_CHARACTERS = {"full": 4400, "small": 900, "smollm2-1.7b": 16_000}
VOCABULARY = {"full": 2048, "small": 512, "smollm2-1.7b": 2048}


@dataclass(frozen=True)
class Conversation:
    """The opening (document and first question) and what the user says in each later turn."""

    document: Path
    opening: str
    follow_ups: tuple[str, ...]

    @property
    def turns(self) -> tuple[str, ...]:
        """Text that each turn adds to the prompt."""
        return (self.opening, *self.follow_ups)


def make_conversation(size: str, turns: int) -> Conversation:
    """The conversation over the first document that this machine has, `turns` turns of it."""
    document = find_document()
    text = document.read_text(encoding="utf-8")[: DOCUMENT_CHARACTERS[size]]
    opening = f"{text}\n\nUser: {QUESTIONS[0]}\nAssistant:"
    asked = QUESTIONS[1:turns]
    return Conversation(document, opening, tuple(f"\nUser: {q}\nAssistant:" for q in asked))


def find_document() -> Path:
    """A text of some length that every Debian machine has."""
    return next(path for path in DOCUMENTS if path.exists())


def train_tokenizer(folder: Path, size: str) -> Path:
    """A byte-level BPE tokenizer of the document, in `folder`; every text has tokens in it."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train(
        [str(find_document())], vocab_size=VOCABULARY[size], min_frequency=2, show_progress=False
    )
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path
