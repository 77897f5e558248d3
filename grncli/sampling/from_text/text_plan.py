"""What is settled about samples of a generator of texts before its weights are read."""

import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from grncli.models.text_transformer import TextTransformerConfig
from grncli.models.transformer import Grid
from grncli.prompt_encoding.prompt_plan import TaskName
from grncli.runs.generator_recipe import GeneratorRecipe, Task, TextConditioning
from grncli.runs.tokenizers import LoadedTokenizer
from grncli.runtime.devices import DTYPES
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.sampling.film import SAMPLES as FILMED
from grncli.sampling.from_text.first_frames import FirstFrames
from grncli.sampling.from_text.memory_needs import memory_needs
from grncli.sampling.from_text.rewritten_prompts import rewritten_file, rewritten_prompts
from grncli.sampling.from_text.text_prompts import TextPrompt, finished, given_prompts, negative_prompt, with_answers
from grncli.sampling.from_text.text_subjects import SampledTexts, TextSubjects
from grncli.sampling.sample_grid import describe_grid
from grncli.sampling.settings import SampleOptions
from grncli.sampling.starting import FIRST_FRAME, Start
from grncli.store import BitStore
from grncli.store.text_features import open_features
from grncli.text.encoders import identify_text_encoder, load_text_encoder
from grncli.text.prompt_features import EncodedPrompts, PromptFeatures, StoredPrompts


def task_of(text: TextConditioning, options: SampleOptions, grid: Grid) -> Task:
    """How the run is asked for samples of these options."""
    tasks = {"image": text.image, "clip": text.clip, "first-frame": text.first_frame}
    return tasks[_task_name(options, grid)]


def _task_name(options: SampleOptions, grid: Grid) -> TaskName:
    if starts_from_first_frame(options):
        return "first-frame"
    return "clip" if grid[0] > 1 else "image"


def starts_from_first_frame(options: SampleOptions) -> bool:
    """Whether of each clip the first frame is known, and nothing else."""
    return options.first_frame is not None or options.keep == FIRST_FRAME


@dataclass(frozen=True, kw_only=True)
class TextPlan:
    """What prompts are sampled, and from what they start.

    Parameters
    ----------
    options : with the defaults of the run
    resumed : the store that samples are added to, if any: what it has is not read or rewritten again
    """

    run: Path
    out: Path
    options: SampleOptions
    recipe: GeneratorRecipe
    grid: Grid
    start: Start | None
    resumed: BitStore | None

    def subjects(
        self,
        tokenizer: LoadedTokenizer | None,
        features: PromptFeatures | None,
        monitor: Monitor,
        *,
        computes: bool = True,
    ) -> TextSubjects:
        """The prompts with the features of those that are sampled here, for which the encoder comes and leaves again.

        Parameters
        ----------
        tokenizer : encodes first frames
        features : where features come from, if that has been opened already
        computes : load the encoder and encode; else there are no features of prompts and first frames

        Raises
        ------
        UsageError, StoreError, CheckpointError
            Where prompts, first frames, the rewriter or the source of features do not fit.
        Unfinished
            If ``monitor`` asked for it.
        """
        options, config = self.options, self.recipe.network
        assert isinstance(config, TextTransformerConfig)
        negative, prompts = negative_prompt(options.negative_prompt or ""), self._given_prompts()
        if features is None:
            network = None if tokenizer is None else tokenizer.network
            each, size = options.per_class or 1, describe_grid(self.grid, self.recipe.bits.stride)
            monitor.say(f"prompts: {len(prompts)}; samples of each: {each}; {size}")
            memory_needs(options, config, self.grid, network).tell(monitor.say)
        if options.text is not None and features is None:
            features = self._stored_features(options.text, negative)
        if features is None and not computes:
            features = IdentifiedEncoder(options.text_encoder or "", config.text_width)
        if features is not None:
            require_features(features, self.recipe, self.run)
        frames = self._first_frames(len(prompts), tokenizer, monitor.say)
        if options.rewrite is not None:
            texts, file = [prompt.text for prompt in prompts], rewritten_file(self.out)
            answers = rewritten_prompts(options.rewrite, texts, file, replaces=self.resumed is None, monitor=monitor)
            prompts = with_answers(prompts, answers)
        prompts = finished(prompts, task_of(self._text, options, self.grid))
        needed = self._needed(len(prompts) if self.start is None else len(self.start))
        if computes and frames is not None and tokenizer is not None:
            self._encode(frames, tokenizer, needed)
        sampled = self._sampled_texts(features, [prompts[n % len(prompts)].final for n in needed], negative, monitor)
        clean_first = config.attention == "full" and starts_from_first_frame(options)
        return TextSubjects(prompts, sampled, self.start or frames, clean_first)

    @property
    def _text(self) -> TextConditioning:
        return self.recipe.text or TextConditioning()

    def _given_prompts(self) -> list[TextPrompt]:
        """Those of the options, else those that the samples to start from were made of."""
        prompts, start = given_prompts(self.options.prompt, self.options.prompts), self.start
        if start is None:
            return prompts
        if not prompts:
            records = [start.record(row) for row in range(len(start))]
            if not all("prompt" in record for record in records):
                raise UsageError(f"--init {self.options.init}: has samples without a prompt, expected --prompt TEXT")
            return [TextPrompt(record["prompt"], rewritten=record.get("rewritten")) for record in records]
        if len(prompts) not in (1, len(start)):
            raise UsageError(
                f"--init {self.options.init}: has {len(start)} samples for {len(prompts)} prompts, expected one prompt "
                "for each, or one for all"
            )
        return prompts

    def _first_frames(self, prompts: int, tokenizer: LoadedTokenizer | None, say: Say) -> FirstFrames | None:
        path, codec = self.options.first_frame, self.recipe.network.codec
        if path is None:
            return None
        frames = FirstFrames(path, prompts, self.grid, self.recipe.bits.stride, codec, say=say)
        if tokenizer is None:
            raise UsageError("--first-frame needs --tokenizer RUN, the tokenizer that the generator was trained for")
        return frames

    def _needed(self, subjects: int) -> Collection[int]:
        """Subjects of the samples that this part lacks or films; of all where a schedule is fitted to them."""
        options = self.options
        if options.target_steps is not None:
            return range(subjects)
        numbers = range((options.per_class or 1) * subjects)[options.part :: options.parts]
        done = 0 if self.resumed is None else self.resumed.parts[options.part].samples
        filmed = numbers[:FILMED] if options.film is not None else ()
        return sorted({number % subjects for number in (*filmed, *numbers[done:])})

    def _stored_features(self, store: Path, negative: str) -> StoredPrompts:
        """UsageError where it lacks the negative prompt, which has no templates and so another way to be added."""
        opened = open_features(store)
        StoredPrompts(opened, prompts="NEGATIVE_PROMPT").of([negative])
        # Answers of a rewriter are such a list themselves.
        asked = self.options.prompts if self.options.rewrite is None else rewritten_file(self.out)
        task = _task_name(self.options, self.grid)
        return StoredPrompts(opened, prompts=str(asked or "PROMPTS"), recipe=str(self.run), task=task)

    def _encode(self, frames: FirstFrames, tokenizer: LoadedTokenizer, needed: Collection[int]) -> None:
        tokenizer.network.to(self.options.device)
        frames.encode(tokenizer.network, needed)
        if self.options.offload:
            tokenizer.network.to("cpu")

    def _sampled_texts(
        self, features: PromptFeatures | None, prompts: Collection[str], negative: str, monitor: Monitor
    ) -> SampledTexts:
        """With an encoder that comes for the time of this, where there is no other source of features."""
        source = features or open_prompt_features(self.options, self.run, monitor.say)
        require_features(source, self.recipe, self.run)
        sampled = SampledTexts(source, prompts, negative, self._text.max_tokens, monitor)
        del source
        if features is None:
            free_memory()
        return sampled


class IdentifiedEncoder(PromptFeatures):
    """An encoder that is hashed and not loaded, where no sample is left to be made: prompts have no tokens."""

    def __init__(self, place: str, width: int) -> None:
        self.encoder, self.width = identify_text_encoder(place), width

    def of(self, prompts: Sequence[str]) -> list[Tensor]:
        """Features of no token."""
        return [torch.zeros(0, self.width)] * len(prompts)


def open_prompt_features(options: SampleOptions, run: Path, say: Say) -> PromptFeatures:
    """Where the features of prompts come from: an encoder on its device, or a features store."""
    if options.text is not None:
        return StoredPrompts(open_features(options.text), recipe=str(run))
    assert options.text_encoder is not None
    encoder = load_text_encoder(options.text_encoder, options.device, DTYPES[options.dtype])
    return EncodedPrompts(encoder, say)


def require_features(features: PromptFeatures, recipe: GeneratorRecipe, run: Path) -> None:
    """Refuse features of an encoder that is not the run's, or of another width; UsageError."""
    config, known = recipe.network, (recipe.text or TextConditioning()).encoder
    assert isinstance(config, TextTransformerConfig)
    ours, theirs = features.encoder.get("sha256", ""), known.get("sha256", "")
    if theirs and ours != theirs:
        raise UsageError(
            f"the features are those of encoder {features.encoder.get('name')} ({ours[:8]}…), and {run} learned those "
            f"of {known.get('name')} ({theirs[:8]}…); give that one"
        )
    if features.width != config.text_width:
        named = f", those of {known['name']}" if "name" in known else ""
        raise UsageError(
            f"the features of encoder {features.encoder.get('name')} are {features.width} wide, and {run} takes "
            f"{config.text_width}{named}; give its encoder"
        )


def free_memory() -> None:
    """Give back what networks held that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
