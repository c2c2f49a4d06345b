"""lm-eval's model over a model in memory, with batches and log-likelihoods of our own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, repeat
from typing import Any

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from lorascope.adapters.prompts.decoder import FrontedDecoder
from lorascope.counting.scored_batches import BatchRule, Sample
from lorascope.scoring.lm_eval_model import Progress, encode_pairs, stopping_at
from lorascope.scoring.log_likelihoods import Encoded, LogLikelihood, log_likelihoods, passages
from lorascope.scoring.token_meter import TokenMeter, written_tokens


class BatchedLM(HFLM):  # type: ignore[misc]
    """lm-eval's model, which encodes, orders and generates as it does everywhere."""

    rule: BatchRule
    """Set by whoever makes one, before anything is asked of it."""
    meter: TokenMeter
    """The same."""

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[LogLikelihood]:
        """Log-likelihoods in the order of `requests`: (texts, context, continuation)."""
        encoded: list[Encoded] = [(context, target) for _, context, target in requests]
        read = passages(encoded, self.max_length, share=self.logits_cache)
        found: dict[int, LogLikelihood] = {}
        tokens = sum(len(passage.ids) for passage in read)
        for batch in self.meter.drawn(tokens, log_likelihoods(self.model, read, self.rule)):
            found |= batch
            for number, answer in batch.items():
                if (texts := requests[number][0]) is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answer)
            self._tell_batch("loglikelihood", len(found), len(requests))
        return [found[number] for number in range(len(requests))]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts in the order of `requests`, each batch by lm-eval itself."""
        samples = [self._generated(*request.args) for request in requests]
        # As lm-eval sorts them: the longest first, then by their text.
        order = sorted(range(len(samples)), key=lambda n: (-samples[n].tokens, requests[n].args[0]))
        found: dict[int, str] = {}
        rest = iter(order)
        sizes = self.rule.sizes(samples[number] for number in order)
        if samples and self._padding_counts(samples[order[0]].tokens):
            sizes = repeat(1, len(order))
        for count in sizes:
            numbers = list(islice(rest, count))
            self.batch_size_per_gpu = count
            texts = super().generate_until([requests[n] for n in numbers], disable_tqdm)
            found |= zip(numbers, texts, strict=True)
            self._tell_batch("generate_until", len(found), len(requests))
        return [found[number] for number in range(len(samples))]

    def _model_generate(self, context: Any, *args: Any, **settings: Any) -> Any:
        """lm-eval's own, timed."""
        with self.meter.writing() as written:
            made = super()._model_generate(context, *args, **settings)
            new = made[:, context.shape[1] :].tolist()
            written.append(written_tokens(new, stopping_at(self.model, self.tokenizer)))
        return made

    def _tell_batch(self, method: str, done: int, total: int) -> None:
        if isinstance(self.cache_hook, Progress):
            self.cache_hook.tell(method, done, total)

    def _padding_counts(self, longest_tokens: int) -> bool:
        fronts = [own for own in self.model.modules() if isinstance(own, FrontedDecoder)]
        return any(own.padding_counts(longest_tokens) for own in fronts)

    def _generated(self, prompt: str, settings: dict[str, Any]) -> Sample:
        new_tokens = normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
        # A step of a generation reads the logits of one position.
        return Sample(len(self.tok_encode(prompt)) + new_tokens, positions=1)


class RowLM(BatchedLM):
    """The same for prepared rows, which are split into tokens as in training."""

    def _encode_pair(self, context: str, continuation: str) -> Encoded:
        return encode_pairs(self.tokenizer, [(context, continuation)])[0]
