"""What people share holds no key, no token of an address, no folder of this machine."""

import io

import pytest

from budgetrl.masking import (
    MaskedOutput,
    keep_secret,
    masked,
    masked_command,
    masked_tree,
    names_secret,
    shareable,
)
from budgetrl.report.document import Document, Pair, Sample, Section, Text, shareable_document


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:pw@host/a?x=1", "https://[secret]@host/a?[secret]"),
        ("https://hooks.io/T0/abcdEFGH1234ijkl5", "https://hooks.io/T0/[secret]"),
        ("git+https://t0k3n@host/a/b", "git+https://[secret]@host/a/b"),
        ("https://huggingface.co/org/Model-R1-1.5B", "https://huggingface.co/org/Model-R1-1.5B"),
        ("HF_TOKEN=abcdefgh", "HF_TOKEN=[secret]"),
        ("Bearer abcdefghijklmnop", "Bearer [secret]"),
        ("max_tokens = 4096 and 1/2/3", "max_tokens = 4096 and 1/2/3"),
        ("hf_" + "aB1" * 8, "[secret]"),
        (
            "https://hc-ping.com/5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278",
            "https://hc-ping.com/[secret]",
        ),
        ("{'api_key': 'ab cd'}", "{'api_key': [secret]}"),
        ('{"password": "two words"}', '{"password": [secret]}'),
        ("x-api-key: abcdefgh", "x-api-key: [secret]"),
    ],
)
def test_texts(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown, "masked once is enough"


def test_paths_keep_their_last_part() -> None:
    assert shareable("see /home/alice/runs/q/worker.log.") == "see .../worker.log."
    assert shareable("--out /home/alice, in /root or /root/runs") == "--out ~, in ~ or .../runs"
    assert shareable("file:///home/alice/a.json x:/home/alice/b") == ".../a.json x:.../b"
    assert shareable("--out ../../alice/runs") == "--out .../runs"
    assert shareable("https://huggingface.co/a/b") == "https://huggingface.co/a/b"
    assert shareable("alpha/r, tokens/s, 3/4") == "alpha/r, tokens/s, 3/4"


def test_values_of_keys_that_name_secrets_go_as_a_whole() -> None:
    tree = {"api_key": "abc", "nested": [{"hub.token": "x"}], "max_tokens": "9", "tokens": 3}
    assert masked_tree(tree) == {
        "api_key": "[secret]",
        "nested": [{"hub.token": "[secret]"}],
        "max_tokens": "9",
        "tokens": 3,
    }
    assert not any(map(names_secret, ("tokenizer", "sampling.max_tokens", "completion_tokens")))
    assert all(
        map(names_secret, ("rewards.m:f.parameters.api-key", "apiKey", "hfToken", "x_webhook"))
    )


def test_commands() -> None:
    told = ["budgetrl", "run", "q", "--on-finish=curl x", "--set", "a.password=1", "--set", "b=2"]
    assert masked_command(told) == (
        "budgetrl run q '--on-finish=[secret]' --set 'a.password=[secret]' --set b=2"
    )
    inline = '--set=rewards=[{name="m:f", parameters={api_key="a b c"}}]'
    assert "a b c" not in masked_command([inline]) and "m:f" in masked_command([inline])


def test_a_value_that_is_known_to_be_secret_is_hidden_wherever_it_stands() -> None:
    assert masked("401 for blue-Heron") == "401 for blue-Heron"
    given = {"api_key": "blue-Heron", "pwd": "it", "end_token": "</think>", "x": "Plain"}
    keep_secret({"rewards": [{"parameters": given}]})
    told = "401 for {}, it is Plain</think>"
    assert masked(told.format("blue-Heron")) == told.format("[secret]")


def test_a_document_is_shared_without_paths_but_with_its_completions() -> None:
    pair = Pair("p", "a", [Sample("t", "correct", "cd /usr/share/x", "d")])
    document = Document(
        "t", "s", "", "/root/models/m", [], [Section("x", [Text("/home/u/f.json"), pair])]
    )
    shared = shareable_document(document)
    assert shared.subtitle == ".../m"
    assert shared.sections[0].blocks == [Text(".../f.json"), pair]


def test_the_log_of_a_worker_is_masked_line_by_line() -> None:
    behind = io.StringIO()
    log = MaskedOutput(behind)
    log.write("GET https://h/x?to")
    assert behind.getvalue() == "", "a secret may stand across two writes"
    log.write("ken=1\nnext")
    assert behind.getvalue() == "GET https://h/x?[secret]\n"
    log.flush()
    assert behind.getvalue().endswith("next")
