"""verl, recipe, TRL and Unsloth: one setting, three names, as data.

    for entry in ENTRIES: entry.verl, entry.recipe, entry.to(recipe, layout) -> values

The export writes them, `scripts/verl_keys.py` makes docs/verl_keys.md of them, and what an entry
has no `to` for is text alone. Checked against verl 0.9.1 by `scripts/check_verl.sh`.
Not here: what verl cannot express (limits.py), and files (verl.py).
"""

from budgetrl.export.keys import (
    ACTOR,
    EPOCHS,
    GENERATION,
    GENERATION_KEY,
    MODEL,
    NO_DUAL_CLIP,
    ROLLOUT,
    UNWRITTEN,
    Entry,
)
from budgetrl.export.values import (
    LOSS,
    logger,
    longest,
    optimizer,
    precision,
    save_freq,
    seeds,
    test_freq,
    validation_sampling,
    verl_alpha,
)
from budgetrl.recipe.assets import local_path
from budgetrl.types import EvalWhen

ENTRIES: tuple[Entry, ...] = (
    Entry(
        ("model.id",),
        (f"{MODEL}.path",),
        "`from_pretrained(model_name)`",
        to=lambda r, _: local_path(r.model.id),
    ),
    Entry(
        ("model.dtype",),
        (
            f"{ACTOR}.fsdp_config.model_dtype",
            f"{ACTOR}.fsdp_config.mixed_precision",
            f"{ROLLOUT}.dtype",
        ),
        "`dtype`",
        "verl casts a fresh adapter to `model_dtype`: fp32 keeps it as PEFT does here; the passes "
        "are in `mixed_precision`'s",
        to=precision,
    ),
    Entry(
        ("lora.rank",),
        (f"{MODEL}.lora_rank",),
        "`LoraConfig(r)`, `max_lora_rank`",
        "vLLM serves 1, 8, 16, 32, 64, 128, 256, 320, 512; `full` is 0, which trains all weights",
        to=lambda r, _: 0 if r.lora.is_full else r.lora.rank,
    ),
    Entry(
        ("lora.alpha", "lora.alpha_policy"),
        (f"{MODEL}.lora_alpha",),
        "`LoraConfig(lora_alpha, use_rslora)`",
        "scale alpha/r: 16, 2, 0.5 at r 8, 64, 256; an rsLoRA's alpha is written times sqrt(r)",
        to=lambda r, _: UNWRITTEN if r.lora.is_full else verl_alpha(r),
    ),
    Entry(("model.adapter",), (f"{MODEL}.lora_adapter_path",), "an adapter to start from"),
    Entry(
        ("lora.targets",),
        (f"{MODEL}.target_modules",),
        "`target_modules`",
        "q k v o gate up down; never the head",
        to=lambda r, _: r.lora.targets if isinstance(r.lora.targets, str) else list(r.lora.targets),
    ),
    Entry(
        ("grpo.scale_rewards",),
        ("algorithm.adv_estimator", "algorithm.norm_adv_by_std_in_grpo"),
        "`scale_rewards`",
        "advantages over the group's standard deviation, or not (`none`)",
        to=lambda r, _: ("grpo", r.grpo.scale_rewards == "group"),
    ),
    Entry(("grpo.num_generations",), (f"{ROLLOUT}.n",), "`num_generations`", "group size k"),
    Entry(
        ("batch.prompts_per_step",),
        ("data.train_batch_size",),
        "`per_device_train_batch_size x gradient_accumulation_steps / num_generations`",
        "prompts, not completions",
    ),
    Entry(
        ("batch.updates_per_rollout",),
        (f"{ACTOR}.ppo_mini_batch_size",),
        "`gradient_accumulation_steps` below `steps_per_generation`",
        "prompts_per_step / updates_per_rollout; a step is the rollout batch, as in verl",
        to=lambda r, _: r.batch.prompts_per_step // r.batch.updates_per_rollout,
    ),
    Entry(
        ("batch.micro_batch",),
        (
            f"{ACTOR}.ppo_micro_batch_size_per_gpu",
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
            f"{ACTOR}.use_dynamic_bsz",
        ),
        "`per_device_train_batch_size`",
        "completions per pass; changes memory, not the gradient; smaller where the GPUs' shares "
        "ask for it",
        to=lambda r, at: (at.micro_batch, at.micro_batch, at.micro_batch, False),
    ),
    Entry(("grpo.num_iterations",), (f"{ACTOR}.ppo_epochs",), "`num_iterations`"),
    Entry(("grpo.epsilon",), (f"{ACTOR}.clip_ratio", f"{ACTOR}.clip_ratio_low"), "`epsilon`"),
    Entry(
        ("grpo.epsilon_high",),
        (f"{ACTOR}.clip_ratio_high",),
        "`epsilon_high`",
        "set always: Unsloth takes 0.28 for `dapo` where it is absent",
    ),
    Entry(
        (),
        (f"{ACTOR}.clip_ratio_c",),
        "`delta` is not the same clip",
        "dual clip, which TRL has not: written as 1e9, which is off; verl's own is 3",
        to=lambda r, _: NO_DUAL_CLIP,
    ),
    Entry(
        ("grpo.loss_type",),
        (f"{ACTOR}.loss_agg_mode", f"{ACTOR}.loss_scale_factor"),
        "`loss_type`",
        "`dapo` token-mean, over all tokens of the batch; `grpo` seq-mean-token-mean; `dr_grpo` "
        "seq-mean-token-sum-norm over sampling.max_tokens",
        to=lambda r, _: (
            LOSS.get(r.grpo.loss_type),
            r.sampling.max_tokens if r.grpo.loss_type == "dr_grpo" else None,
        ),
    ),
    Entry(
        ("grpo.beta",),
        (f"{ACTOR}.use_kl_loss", f"{ACTOR}.kl_loss_coef", f"{ACTOR}.kl_loss_type"),
        "`beta`",
        "0 leaves the reference pass out; the k3 estimator here as there",
        to=lambda r, _: (r.grpo.beta > 0, r.grpo.beta, "low_var_kl"),
    ),
    Entry(
        (),
        ("algorithm.use_kl_in_reward",),
        "none",
        "KL is in the loss, never in the reward",
        to=lambda r, _: False,
    ),
    Entry((), (f"{ACTOR}.entropy_coeff",), "`entropy_coef`", to=lambda r, _: 0.0),
    Entry(
        ("grpo.mask_truncated_completions",),
        ("(cut completions are trained on)",),
        "`mask_truncated_completions`",
        "set always: Unsloth takes true for `dapo`; true cannot be exported",
        written=False,
    ),
    Entry(
        ("prompt.max_tokens", "prompt.overlong"),
        ("data.max_prompt_length", "data.filter_overlong_prompts", "data.truncation"),
        "filtered before the trainer",
        "verl's own default fails at the first long prompt",
        to=lambda r, _: (r.prompt.max_tokens, True, "error"),
    ),
    Entry(
        ("prompt.template_kwargs",),
        ("data.apply_chat_template_kwargs",),
        "`chat_template_kwargs`",
        to=lambda r, _: dict(r.prompt.template_kwargs),
    ),
    Entry(
        ("prompt.chat_template",), (f"{MODEL}.custom_chat_template",), "the tokenizer's template"
    ),
    Entry(
        ("prompt.system", "prompt.template", "data.path", "data.id"),
        ("data.prompt_key", "data.reward_fn_key"),
        "column `prompt`",
        "rows of the exported parquet: messages with the system turn; a prompt that is text is "
        "dropped by verl's length filter",
        to=lambda r, _: ("prompt", "data_source"),
    ),
    Entry(("sampling.max_tokens",), ("data.max_response_length",), "`max_completion_length`"),
    Entry(
        ("sampling.stop",),
        (GENERATION_KEY,),
        "`generation_kwargs`",
        "verl hands no stop texts on: they become end tokens of a generation_config.json for vLLM, "
        "which `prepare_data.py` writes beside the model's own",
        to=lambda r, _: GENERATION if r.sampling.stop else UNWRITTEN,
    ),
    Entry(
        ("sampling.temperature", "sampling.top_p", "sampling.top_k"),
        (f"{ROLLOUT}.temperature", f"{ROLLOUT}.top_p", f"{ROLLOUT}.top_k", f"{ROLLOUT}.do_sample"),
        "same names",
        "verl writes -1 for off, a recipe 0",
        to=lambda r, _: (
            r.sampling.temperature,
            r.sampling.top_p,
            r.sampling.top_k or -1,
            True,
        ),
    ),
    Entry(
        ("eval.*.temperature", "eval.*.top_p", "eval.*.samples"),
        tuple(
            f"{ROLLOUT}.val_kwargs.{name}" for name in ("temperature", "top_p", "n", "do_sample")
        ),
        "vLLM `SamplingParams`",
        "verl has one protocol for all suites: that of the first suite with rounds in between",
        to=validation_sampling,
    ),
    Entry(("schedule.learning_rate",), (f"{ACTOR}.optim.lr",), "`learning_rate`"),
    Entry(
        ("schedule.shape", "schedule.warmup_share", "schedule.min_share"),
        (
            f"{ACTOR}.optim.lr_scheduler_type",
            f"{ACTOR}.optim.lr_warmup_steps_ratio",
            f"{ACTOR}.optim.min_lr_ratio",
            f"{ACTOR}.optim.lr_warmup_steps",
        ),
        "set by budgetrl at each step",
        "may follow the budget instead of steps here (`schedule.by`), not there; verl has no "
        "`linear`",
        to=lambda r, _: (r.schedule.shape, r.schedule.warmup_share, r.schedule.min_share, -1),
    ),
    Entry(
        ("optimizer.name",),
        (f"{ACTOR}.optim.optimizer", f"{ACTOR}.optim.optimizer_impl"),
        "`optim`",
        to=optimizer,
    ),
    Entry(
        ("optimizer.weight_decay",),
        (f"{ACTOR}.optim.weight_decay",),
        "`weight_decay`",
        "verl's own 0.01, TRL's 0",
    ),
    Entry(
        ("optimizer.beta1", "optimizer.beta2", "optimizer.epsilon"),
        (f"{ACTOR}.optim.betas", f"{ACTOR}.optim.override_optimizer_config"),
        "`adam_beta1`, `adam_beta2`, `adam_epsilon`",
        to=lambda r, _: (
            [r.optimizer.beta1, r.optimizer.beta2],
            {"eps": r.optimizer.epsilon},
        ),
    ),
    Entry(
        ("optimizer.max_grad_norm",),
        (f"{ACTOR}.optim.clip_grad", f"{ACTOR}.grad_clip"),
        "`max_grad_norm`",
        "the engine of 0.9.1 reads `optim.clip_grad`; `actor.grad_clip` alone changes nothing",
    ),
    Entry(
        ("schedule.stop_after_steps",),
        ("trainer.total_training_steps", "trainer.total_epochs"),
        "`max_steps`",
        "the budget may end the run sooner here",
        to=lambda r, _: (r.schedule.stop_after_steps, EPOCHS),
    ),
    Entry(
        ("eval.*.every_steps", "eval.*.at_fractions"),
        ("trainer.test_freq",),
        "none",
        "evaluation is budgetrl's own",
        to=test_freq,
    ),
    Entry(
        ("eval.*.when",),
        ("trainer.val_before_train",),
        "none",
        "verl validates at the end in any case",
        to=lambda r, _: any(EvalWhen.BASELINE in spec.when for spec in r.eval),
    ),
    Entry(
        ("checkpoint.every_steps",),
        ("trainer.save_freq",),
        "none",
        "verl's own -1 never saves; without a number here, at each evaluation",
        to=save_freq,
    ),
    Entry(
        ("engine.gpu_memory_utilization",),
        (f"{ROLLOUT}.gpu_memory_utilization",),
        "`gpu_memory_utilization`",
        "left out: what the recipe needs on the card that is here, and verl's own 0.5 there; "
        "Unsloth's standby would override it silently",
        to=lambda r, _: r.engine.gpu_memory_utilization or 0.5,
    ),
    Entry(("engine.standby",), (f"{ROLLOUT}.free_cache_engine",), "`unsloth_vllm_standby`"),
    Entry(
        ("engine.chunked_prefill", "engine.prefix_caching", "engine.max_num_seqs"),
        (
            f"{ROLLOUT}.enable_chunked_prefill",
            f"{ROLLOUT}.enable_prefix_caching",
            f"{ROLLOUT}.max_num_seqs",
            f"{ROLLOUT}.max_num_batched_tokens",
        ),
        "vLLM's arguments of these names",
        to=lambda r, _: (
            r.engine.chunked_prefill,
            r.engine.prefix_caching,
            r.engine.max_num_seqs,
            max(8192, longest(r)),
        ),
    ),
    Entry(
        ("engine.merged_rollouts",),
        (f"{MODEL}.lora.merge",),
        "none",
        "folds whatever rounding loses of it there",
    ),
    Entry(
        ("engine.gradient_checkpointing",),
        (f"{MODEL}.enable_gradient_checkpointing",),
        "`use_gradient_checkpointing`",
        "Unsloth offloads to host memory",
    ),
    Entry(
        ("signal.resample_rounds",),
        ("algorithm.filter_groups.enable", "algorithm.filter_groups.metric"),
        "own mixin over `GRPOTrainer`",
        "DAPO's dynamic sampling; verl goes on until the batch is full, however many rounds",
        to=lambda r, _: (bool(r.signal.resample_rounds), "acc"),
    ),
    Entry(
        ("rewards.*",),
        ("reward.custom_reward_function.name", "reward.reward_manager.name"),
        "one `reward_funcs` entry",
        "the weighted sum is ours; `custom_reward_function.*` and `reward_model.reward_manager` "
        "at the top level are accepted by 0.9.1 and ignored",
        to=lambda r, _: ("compute_score", "naive"),
    ),
    Entry(
        ("recipe.seed",),
        (
            "data.seed",
            f"{ACTOR}.data_loader_seed",
            f"{ACTOR}.fsdp_config.seed",
            f"{ROLLOUT}.seed",
        ),
        "`seed`",
        "other problems in another order: here they are a function of (seed, step)",
        to=seeds,
    ),
    Entry(("tracker.kind",), ("trainer.logger",), "`report_to`", to=logger),
    Entry(("tracker.project",), ("trainer.project_name",), "none"),
    Entry(("recipe.name",), ("trainer.experiment_name",), "none"),
    Entry(
        ("engine.name",),
        (f"{ROLLOUT}.name", f"{ROLLOUT}.load_format"),
        "`use_vllm`",
        "verl has no default for the one; its `dummy` of the other is random weights until the "
        "first synchronisation",
        to=lambda r, _: ("vllm", "safetensors"),
    ),
    Entry(
        (),
        ("trainer.n_gpus_per_node", "trainer.nnodes", f"{ROLLOUT}.tensor_model_parallel_size"),
        "one GPU",
        "`--gpus N`; verl's own tensor parallelism is 2",
        to=lambda r, at: (at.per_node, at.nodes, at.tensor_parallel),
    ),
    Entry(
        (),
        ("ref.fsdp_config.param_offload and other sharding",),
        "none",
        "one GPU: the reference is the base with its adapter off",
        written=False,
    ),
)
"""In the order of the page."""
