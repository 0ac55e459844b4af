"""What settings are called in other trainers, for whoever types the word of another one: Hugging Face's Trainer,
Lightning, litgpt, torchtune, the training script of chronos-forecasting, Time-MoE's, TSM-Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_HERE: Mapping[str, str] = {
    "training.steps=N": "max_steps train_steps max_iters num_steps total_steps num_training_steps steps",
    "training.epochs=N training.steps=null": "num_train_epochs max_epochs num_epochs epochs",
    "training.batch_size=N, the rows of one update over all devices": "global_batch_size train_batch_size batch_size",
    "training.micro_batch_size=N, and training.batch_size of all devices together": "per_device_train_batch_size "
    "per_gpu_train_batch_size micro_batch_size per_device_eval_batch_size",
    "training.batch_size=N x devices x training.micro_batch_size": "gradient_accumulation_steps "
    "accumulate_grad_batches gradient_accumulation_iters grad_accum_steps gradient_accumulation",
    "training.seed=N": "seed random_seed seed_everything data_seed",
    "training.save_steps=N": "save_steps save_interval checkpoint_every every_n_train_steps every_n_steps save_every",
    "training.save_total_limit=N, beside the best checkpoint.keep_best": "save_total_limit save_top_k",
    "training.max_grad_norm=X": "max_grad_norm gradient_clip_val clip_grad_norm max_norm grad_clip clip_grad",
    "training.precision=bf16": "precision bf16 fp16 tf32 mixed_precision amp dtype torch_dtype",
    "training.compile=true": "torch_compile compile",
    "training.activation_checkpointing=true": "gradient_checkpointing enable_activation_checkpointing "
    "activation_checkpointing",
    "training.device=cpu (or cuda, mps)": "use_cpu no_cuda accelerator",
    "the launcher's: foreloom launch local --gpus 0,1 train RECIPE, or torchrun --nproc-per-node N -m foreloom train "
    "RECIPE": "devices gpus num_gpus nproc nproc_per_node num_processes world_size",
    "the launcher's: foreloom launch nodes or slurm, before the verb train": "num_nodes nnodes nodes",
    "--out FOLDER": "output_path output_dir out_dir default_root_dir logging_dir run_name checkpoint_dir",
    "--resume, with the folder in --out": "resume_from_checkpoint resume ckpt_path resume_from",
    "the recipe itself: foreloom train RECIPE": "config config_file",
    "optimizer.learning_rate=X": "learning_rate lr max_lr peak_lr",
    "optimizer.final_ratio=X, the last learning rate over the highest": "min_learning_rate min_lr",
    "optimizer.schedule=cosine (or linear, wsd, constant)": "lr_scheduler_type lr_scheduler scheduler lr_schedule",
    "optimizer.warmup_ratio=X": "warmup_ratio warmup_fraction",
    "optimizer.warmup_steps=N": "warmup_steps lr_warmup_steps num_warmup_steps",
    "optimizer.weight_decay=X": "weight_decay",
    "optimizer.betas=[0.9, 0.95]": "adam_beta1 adam_beta2 beta1 beta2",
    "optimizer.epsilon=X": "adam_epsilon eps",
    "optimizer.name=adamw (or muon, sgd)": "optim optimizer_name",
    "monitoring.log_steps=N": "logging_steps log_steps log_interval log_every_n_steps log_every",
    "monitoring.trackers=[tensorboard]": "report_to logger logger_name wandb tensorboard mlflow",
    "monitoring.project=NAME": "wandb_project project_name",
    "validation.steps=N": "eval_steps eval_interval val_check_interval check_val_every_n_epoch evaluation_strategy "
    "eval_strategy do_eval",
    "validation.restore_best=true": "load_best_model_at_end",
    "validation.patience=N": "early_stopping_patience early_stopping",
    "checkpoint.best_metric=NAME": "metric_for_best_model monitor",
    "checkpoint.keep_best=N": "num_best",
    "nothing to set: a thread reads ahead (data.num_prefetch)": "dataloader_num_workers num_workers pin_memory",
    "nothing to set: every sample is drawn at random from all data": "shuffle shuffle_buffer_length",
    "parallel.strategy=fsdp": "fsdp fsdp_config sharding_strategy use_fsdp deepspeed",
    "parallel.strategy=ddp (or fsdp)": "strategy ddp distributed_backend",
    "parallel.timeout_minutes=X": "ddp_timeout",
    "data.sources.0.path=PATH": "data_path training_data_paths train_file train_data data_dir train_path dataset_path",
    "data.sources.0.weight=X, of each source": "probability sampling_weights",
    "data.sources=[{dataset: NAME}]": "dataset_name dataset_id",
    "data.holdout=0 validation.sources=[{path: FILE}]": "validation_file val_data validation_data_paths",
    "data.sources.0.max_series=N": "max_train_series max_train_samples",
    "data.context_length=N": "context_length input_size",
    "data.prediction_length=N": "prediction_length horizon h",
    "data.context_length=N-H+1 data.prediction_length=H, and of text data.max_seq_length=N": "max_length",
    "data.min_past=N": "min_past",
    "data.stride=N": "stride",
    "data.max_seq_length=N": "max_seq_length block_size seq_len sequence_length seq_length max_seq_len",
    "data.packing=documents (or blocks)": "packing packed sample_packing",
    "data.loss_on=answers (or all)": "mask_prompt train_on_input train_on_inputs completion_only_loss "
    "assistant_only_loss",
    "data.normalization=zero data.normalization_scope=series": "normalization_method",
    "data.sources.0.text_column=NAME": "text_column dataset_text_field",
    "data.sources.0.messages_column=NAME": "messages_column conversation_column",
    "model.pretrained=FOLDER-OR-ID": "model_path model_id model_name model_name_or_path pretrained no_random_init "
    "base_model checkpoint_path",
    "model.pretrained=null model.size=50m (or another; `foreloom show RECIPE` names them)": "from_scratch",
    "model.pretrained=null model.size=base (or another; `foreloom show RECIPE` names them)": "random_init",
    "model.attn_implementation=sdpa": "attn_implementation use_flash_attention use_flash_attn",
    "adapter.kind=lora": "use_peft use_lora lora peft peft_config",
    "adapter.rank=N": "lora_r lora_rank r",
    "adapter.alpha=X": "lora_alpha",
    "adapter.dropout=X": "lora_dropout",
    "adapter.modules=[NAME, ...]": "lora_target_modules target_modules lora_attn_modules",
}
"""What says it here -> what others call it, words apart."""


def _squashed(name: str) -> str:
    return name.rpartition(".")[2].lstrip("-+").replace("-", "").replace("_", "").lower()


_BY_NAME = {_squashed(name): here for here, names in _HERE.items() for name in names.split()}

_VALUES: Mapping[str, str] = {
    "gpu": "cuda",
    "bfloat16": "bf16", "bf16-mixed": "bf16", "bf16-true": "bf16", "16": "bf16", "16-mixed": "bf16", "fp16": "bf16",
    "float16": "bf16", "float32": "fp32", "32": "fp32", "32-true": "fp32",
    "full_shard": "fsdp", "fsdp2": "fsdp", "deepspeed": "fsdp", "fully_shard": "fsdp",
    "adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "adam": "adamw",
    "constant_with_warmup": "constant", "warmup_stable_decay": "wsd",
    "cosine_with_warmup": "cosine", "linear_with_warmup": "linear",
    "assistant": "answers", "completion": "answers",
}  # fmt: skip
"""What others call a choice -> the one nearest to it here."""


def setting_here(name: str) -> str | None:
    """What says here what other trainers call `name` (a flag, or a dotted setting); None where nobody calls it so."""
    return _BY_NAME.get(_squashed(name))


def value_here(value: object, options: Iterable[str]) -> str | None:
    """The one of `options` that other trainers call `value`, in whatever case."""
    word = str(value).lower()
    return next((option for option in options if option in (word, _VALUES.get(word))), None)
