"""The worker class: vLLM's own for the platform, with latent spans installed in its model runner."""

from typing import Any

from vllm.platforms import current_platform

from future_l1_verl.decoding.vllm import SCHEDULERS
from future_l1_verl.decoding.vllm.compatibility import check_config, check_vllm, generation
from future_l1_verl.decoding.vllm.settings import EngineSettings

if not current_platform.is_cpu():
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker
else:
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker


class LatentWorker(PlatformWorker):
    """The worker, given as ``worker_cls``; a ``worker_extension_cls`` such as verl's may be given as well."""

    def init_device(self) -> None:
        """Upstream (vllm/v1/worker/{cpu,gpu}_worker.py) constructs the model runner; here spans are installed in it.

        Raises UnsupportedVersion, RuntimeError or ValueError, with the reason, if spans cannot work.
        """
        check_vllm()
        check_config(self.vllm_config)
        scheduler = self.vllm_config.scheduler_config.scheduler_cls
        if scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler_cls must be one of {', '.join(SCHEDULERS)}, not {scheduler}: it returns latents")
        super().init_device()
        generation(self.vllm_config).install(self.model_runner, EngineSettings.from_vllm(self.vllm_config))

    def latent_status(self) -> dict[str, Any]:
        """Returns, for ``collective_rpc("latent_status")``, whether the hooks are active, and what they hold.

        ``live``; ``requests`` known and ``entries`` (latents) kept; latents ``reinjected`` so far; ``digest``, a crc32 of
        all latents so far, which is the same on every rank of a tensor-parallel group.
        """
        runner, ours = self.model_runner, generation(self.vllm_config)
        if not (isinstance(runner, ours.LatentRunnerMixin) and isinstance(runner.sampler, ours.LatentSampler)):
            return {"live": False}
        spans = runner.spans
        return {
            "live": True,
            "requests": len(spans.store.requests),
            "entries": spans.store.entries,
            "reinjected": spans.reinjected,
            "digest": spans.store.digest,
        }
