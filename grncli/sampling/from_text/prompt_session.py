"""``grn sample --prompts -``: prompts answered one after the other, by networks that stay loaded.

Each prompt has a folder of its own below the output, ``00000``, ``00001``, ..., which is what ``grn sample`` makes of
that prompt alone: what a sample becomes depends on the seed, the prompt and its number among those of the prompt.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from grncli.models.text_transformer import TextTransformerConfig
from grncli.runs.recipe_first import load_weights, open_recipe
from grncli.runtime.arriving_lines import arriving_lines
from grncli.runtime.devices import DTYPES, dtype_name, pick_dtype
from grncli.runtime.errors import GrnError, UsageError
from grncli.runtime.folders import ClaimedFolder, FolderMarker, make_folder
from grncli.runtime.jsonfiles import read_json
from grncli.runtime.jsonlines import LineFile, encode_line
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.sampling.from_text.memory_needs import memory_needs
from grncli.sampling.from_text.text_plan import open_prompt_features, require_features
from grncli.sampling.from_text.text_prompts import negative_prompt
from grncli.sampling.option_checks import check_options
from grncli.sampling.pictures import LIST, load_fitting_tokenizer
from grncli.sampling.plan import names_store, settled_options
from grncli.sampling.sample_grid import asked_grid
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample

ANSWERS = "prompts.jsonl"  # what was answered, and the mark of a session's folder
_NUMBER = re.compile(r"[0-9]{5,9}")
_REFUSED = ("init", "rewrite", "sheet", "film", "overwrite", "target_steps")


class StoppedSession(Stopped):
    """The session ended early on request; the folders of prompts that were answered are complete."""

    advice = "Run the same command again, and give the prompts that have no answer"


class PromptSession:
    """The networks of a session, and the folder that it fills.

    Parameters
    ----------
    options : of every prompt; those that belong to a list of prompts, or to one store, are refused

    Raises
    ------
    UsageError, StoreMismatch, CheckpointError, LockError
        If the options, the networks or the folder do not fit.
    """

    def __init__(self, run: Path, out: Path, options: SampleOptions, monitor: Monitor) -> None:
        self._run, self._out, self._monitor = run, out, monitor
        _check_session(out, options)
        device = torch.device(options.device)
        # Settled once: a store of the folder does not decide for the others.
        options = replace(options, prompts=None, prompt="", dtype=dtype_name(pick_dtype(options.dtype, device)))
        check_options(options)
        opened = open_recipe(run)
        if not isinstance(opened.recipe.network, TextTransformerConfig):
            raise UsageError(f"--prompts - is for generators that are conditioned on text, and {run} is not")
        grid = asked_grid(options, opened.recipe.bits)
        settled = settled_options(options, opened.recipe, grid, run)
        settled.sampling_settings(settled.first_schedule(), relative=False)
        negative_prompt(settled.negative_prompt or "")
        self._options = options
        FolderMarker(
            folder=out,
            file=out / ANSWERS,
            command="grn sample --prompts -",
            purpose="a folder",
            remedy="choose another",
        ).require_ours()
        self._tokenizer = load_fitting_tokenizer(
            options.tokenizer or "",
            opened.recipe.bits,
            opened.recipe.network,
            belonging=() if opened.recipe.text is None else opened.recipe.text.tokenizers,
            say=monitor.say,
        )
        memory_needs(
            options, opened.recipe.network, grid, self._tokenizer.network, encoder_stays=not options.offload
        ).tell(monitor.say)
        # With --offload the generator and the tokenizer take turns on the device, and the encoder stays away.
        encoding = replace(options, device="cpu") if options.offload else options
        self._features = open_prompt_features(encoding, run, monitor.say)
        require_features(self._features, opened.recipe, run)
        self._generator = load_weights(
            opened, options.weights, device=device, dtype=DTYPES[options.dtype], say=monitor.say
        )

    def answer(self, descriptor: int, tell: Callable[[dict[str, Any]], None]) -> int:
        """Sample each prompt that arrives, and tell its files; returns how many prompts were refused.

        Raises
        ------
        StoppedSession
            If the monitor asked for it.
        """
        make_folder(self._out)
        refused = 0
        with ClaimedFolder(self._out), LineFile(self._out / ANSWERS) as answers:
            for line in self._lines(descriptor):
                answer = self._answer_one(line)
                refused += "error" in answer
                answers.append(encode_line(answer))
                tell(answer)
        return refused

    def _lines(self, descriptor: int) -> Iterator[bytes]:
        def wait(silent: float) -> None:
            if reason := self._monitor.stop_reason:
                raise StoppedSession(f"{reason}: stopped between two prompts")

        try:
            yield from arriving_lines(descriptor, wait)
        except ValueError as error:
            raise UsageError(f"--prompts -: {error}, expected a prompt a line") from None

    def _answer_one(self, line: bytes) -> dict[str, Any]:
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            return {"prompt": line.decode(errors="backslashreplace"), "error": "the prompt is not valid UTF-8"}
        number = self._next_number()
        folder = self._out / f"{number:05d}"
        try:
            summary = sample(
                self._run,
                folder,
                replace(self._options, prompt=text),
                replace(self._monitor, progress=Monitor.progress),
                generator=self._generator,
                tokenizer=self._tokenizer,
                features=self._features,
            )
        except Stopped:
            reason = self._monitor.stop_reason
            raise StoppedSession(f"{reason}: stopped in {folder}, before all of its samples were made") from None
        except GrnError as error:
            return {"prompt": text, "error": str(error)}
        samples = read_json(folder / LIST, error=GrnError, remedy="sample the prompt again")["samples"]
        files = [f"{folder.name}/{sample['file']}" for sample in samples]
        return {"prompt_number": number, "prompt": text, "files": files, "seconds": round(summary.seconds, 3)}

    def _next_number(self) -> int:
        numbers = [int(path.name) for path in self._out.iterdir() if _NUMBER.fullmatch(path.name)]
        return max(numbers, default=-1) + 1


def _check_session(out: Path, options: SampleOptions) -> None:
    if names_store(out):
        raise UsageError(f"--prompts - with {out}: expected a folder, in which each prompt has its own")
    for name in _REFUSED:
        if getattr(options, name) not in (None, False):
            raise UsageError(f"--prompts - with --{name.replace('_', '-')}: expected a file of prompts for that")
    if options.parts > 1:
        raise UsageError("--prompts - with --part: expected a file of prompts, which can be divided")
    if options.prompt is not None:
        raise UsageError("--prompts - with --prompt: expected one of the two")
    if options.tokenizer is None:
        raise UsageError("--prompts - needs --tokenizer RUN, the tokenizer that the generator was trained for")
