"""The bugs of the mutation gate. Each is one that a trusted system has had, or that a hurried hand could write here."""

from __future__ import annotations

from tests.faults.mutations import Mutation

_COORDINATOR = "tests/unit/test_coordinator.py::test_"
_PLAN = "tests/unit/test_plan.py::test_"
_ORDER = "tests/unit/test_sample_order.py::test_"
_RESTORED = "tests/faults/test_restored_state.py::test_it_comes_back"
_RESUMED = "tests/faults/test_exact_resume.py::test_"

MUTATIONS = (
    Mutation(
        "a file is written in place, without a rename",
        "launcher/durable.py",
        "    draft = temporary(path, pid=os.getpid())\n    try:\n        with naming_full_disk(path, num_bytes):",
        "    draft = path\n    try:\n        with naming_full_disk(path, num_bytes):",
        "tests/unit/test_durable.py::test_an_error_while_preparing_leaves_the_old_file_and_no_draft",
    ),
    Mutation(
        "a file is renamed before it is on disk",
        "launcher/durable.py",
        "            yield draft\n            sync(draft)",
        "            yield draft",
        "tests/unit/test_durable.py::test_content_is_on_disk_before_the_rename_and_the_rename_after",
    ),
    Mutation(
        "a checkpoint is prepared under its own name",
        "launcher/checkpoint.py",
        "    draft = temporary(target, pid=os.getpid())",
        "    draft = target",
        "tests/integration/test_checkpoint.py::test_a_position_saved_again_counts_as_newer_and_overwrites_nothing",
    ),
    Mutation(
        "the checkpoint written last counts as the newest",
        "launcher/checkpoint.py",
        "sorted(named, key=lambda path: named[path], reverse=True)",
        "sorted(named, key=lambda path: path.stat().st_mtime_ns, reverse=True)",
        "tests/integration/test_checkpoint.py::test_the_newest_position_wins_whatever_was_written_last",
    ),
    Mutation(
        "a checkpoint is taken whatever its bytes",
        "launcher/manifest.py",
        "    if _sha256(path) != file.sha256:",
        "    if False and _sha256(path) != file.sha256:",
        "tests/integration/test_manifest.py::test_every_one_of_a_thousand_bit_flips_and_truncations_is_found",
    ),
    Mutation(
        "phase boundaries are pruned like any other checkpoint",
        "launcher/retention.py",
        "for position in (*last_positions, *keep)",
        "for position in (*last_positions,)",
        "tests/unit/test_retention.py::test_last_ones_and_phase_boundaries_stay",
    ),
    Mutation(
        "training goes on in the tensors that are being written",
        "launcher/saving.py",
        "parts = self._copies.take(_parts(trainer, handed_in))",
        "parts = _parts(trainer, handed_in)",
        "tests/integration/test_saving.py::test_what_is_saved_is_the_state_at_the_call_whatever_training_does_meanwhile",
    ),
    Mutation(
        "committed with rank 0's part alone",
        "launcher/saving.py",
        "            parts = self._copies.take(_parts(trainer, handed_in))",
        "            parts = self._copies.take(_parts(trainer, handed_in[:1]))",
        _RESUMED + "every_rank_draws_numbers_of_its_own",
    ),
    Mutation(
        "random numbers are not restored",
        "launcher/saving.py",
        "            restore_rng(own)",
        "            pass",
        _RESTORED + "[random numbers]",
    ),
    Mutation(
        "momentum is not restored",
        "launcher/saving.py",
        'load_optimizer_tensors(trainer.model, trainer.optimizer, parts["optimizer"])',
        "pass",
        _RESTORED + "[momentum]",
    ),
    Mutation(
        "the average restarts from the weights",
        "launcher/saving.py",
        '            trainer.average.load_state_dict(parts["average"])',
        "            trainer.average.module.load_state_dict(trainer.model.state_dict())",
        _RESTORED + "[average]",
    ),
    Mutation(
        "the average's count restarts",
        "launcher/saving.py",
        '            trainer.average.load_state_dict(parts["average"])',
        '            trainer.average.load_state_dict(parts["average"])\n            trainer.average.n_averaged.zero_()',
        _RESTORED + "[average's count]",
    ),
    Mutation(
        "the loss scale restarts",
        "launcher/saving.py",
        '        trainer.scaler.load_state_dict(facts["loss_scaler"])\n',
        "",
        _RESTORED + "[loss scale]",
    ),
    Mutation(
        "all ranks draw the same numbers",
        "launcher/worker_process.py",
        "np.random.SeedSequence((seed, rank))",
        "np.random.SeedSequence((seed, 0))",
        _RESUMED + "every_rank_draws_numbers_of_its_own",
    ),
    Mutation(
        "the average's steps are counted from the attempt's start",
        "launcher/trainer.py",
        "        step = (done - spec.offset) // spec.global_batch + 1\n",
        "        step = self.steps_begun\n",
        _RESUMED + "it_ends_with_the_same[average]",
    ),
    Mutation(
        "gradients change their groups after the first step",
        "launcher/replica.py",
        "    torch.autograd.backward(logits.sum())\n",
        "    del logits\n",
        "tests/integration/test_replica.py::test_the_first_steps_gradients_are_rounded_as_all_later_ones",
    ),
    Mutation(
        "each rank judges by its own norm statistics",
        "launcher/trainer.py",
        "        assert self.examination is not None\n        self.synchronise_buffers()\n",
        "        assert self.examination is not None\n",
        _RESUMED + "the_accuracies_that_are_told_are_those_of_the_weights_in_the_checkpoints",
    ),
    Mutation(
        "evaluation is padded to equal shares",
        "launcher/sample_order.py",
        "    share = np.array_split(np.arange(num_samples, dtype=np.int64), world_size)[rank]\n",
        "    each = -(-num_samples // world_size)\n"
        "    share = np.arange(each * rank, each * (rank + 1), dtype=np.int64) % num_samples\n",
        _ORDER + "evaluation_sees_every_sample_exactly_once_in_even_shares",
    ),
    Mutation(
        "the order is the same in every epoch",
        "launcher/sample_order.py",
        "    keys = _random_bits(seed, epoch, samples, _ORDER_STREAM)",
        "    keys = _random_bits(seed, 0, samples, _ORDER_STREAM)",
        _ORDER + "other_epochs_and_seeds_have_other_orders",
    ),
    Mutation(
        "a sample's crop is the same in every epoch",
        "ffcv_datasets/crop.py",
        "        words = sample_words(view.seed, view.epoch, samples[undecided], attempt)",
        "        words = sample_words(view.seed, 0, samples[undecided], attempt)",
        "tests/unit/ffcv_datasets/test_crop.py::test_another_seed_or_epoch_gives_other_boxes",
    ),
    Mutation(
        "the learning rate is scaled by the batch of one worker",
        "launcher/plan.py",
        "position.samples_done / row.num_samples, row.global_batch)",
        "position.samples_done / row.num_samples, row.batch_per_worker)",
        _PLAN + "the_learning_rate_depends_on_the_global_batch_alone",
    ),
    Mutation(
        "a finished epoch is not the next one's start",
        "launcher/plan.py",
        "            return Position(position.epoch + 1)\n        return Position(position.epoch, done)",
        "            return Position(position.epoch + 2)\n        return Position(position.epoch, done)",
        _PLAN + "positions_walk_to_the_next_epochs_start",
    ),
    Mutation(
        "a resume begins at the epoch's start",
        "launcher/run_setup.py",
        "        return Position(reached.epoch + 1)\n    return reached",
        "        return Position(reached.epoch + 1)\n    return Position(reached.epoch)",
        "tests/integration/test_run_setup.py::test_a_run_goes_on_at_its_newest_checkpoint",
    ),
    Mutation(
        "batches begin at the epoch's start wherever training does",
        "launcher/training_feed.py",
        "            start=start,\n            until=until,\n            global_batch",
        "            start=spec.offset,\n            until=until,\n            global_batch",
        "tests/integration/test_training_feed.py::test_a_feed_starts_anywhere_and_goes_back",
    ),
    Mutation(
        "a lease is measured for each rank by itself",
        "launcher/coordinator.py",
        "        return self._log[turn]\n\n    def request_stop",
        "        if isinstance(self._log[turn], Run):\n"
        "            self._position = position\n"
        "            return self._lease(samples_per_s)\n"
        "        return self._log[turn]\n\n    def request_stop",
        _COORDINATOR + "the_first_asker_sizes_the_lease_for_all",
    ),
    Mutation(
        "a stop is honoured by the rank that asks next",
        "launcher/coordinator.py",
        "        return self._log[turn]\n\n    def request_stop",
        "        if self._stop is not None:\n"
        "            return Stop(self._stop.reason, position)\n"
        "        return self._log[turn]\n\n    def request_stop",
        _COORDINATOR + "a_stop_between_two_ranks_gives_one_answer",
    ),
    Mutation(
        "a stop in mid-epoch saves nothing",
        "launcher/coordinator.py",
        "        if self._saved != self._position:\n            return Checkpoint(",
        "        if self._saved.epoch != self._position.epoch:\n            return Checkpoint(",
        _COORDINATOR + "a_stop_in_mid_epoch_saves_there_and_stops",
    ),
    Mutation(
        "an evaluation that a stop cut off is forgotten",
        "launcher/coordinator.py",
        "        if evaluated:\n            owed =",
        "        if True:\n            owed =",
        _COORDINATOR + "the_last_evaluation_is_made_good_after_a_stop_right_before_it",
    ),
    Mutation(
        "a start that died unsigned renames the run",
        "launcher/run_directory.py",
        "        me = this_process(run=_run_name(paths))",
        '        me = this_process(run=before.run if before else "")',
        "tests/unit/test_run_directory.py::"
        "test_a_run_keeps_its_name_though_a_start_died_before_it_had_signed_its_claim",
    ),
    Mutation(
        "ranks share a global batch in reverse",
        "launcher/sample_order.py",
        "    firsts = range(start + rank * share, until + rank * share, global_batch)\n",
        "    rank = world_size - 1 - rank\n"
        "    firsts = range(start + rank * share, until + rank * share, global_batch)\n",
        _ORDER + "any_world_size_sees_the_same_global_batches",
    ),
    Mutation(
        "attempts that got further count as attempts in vain",
        "launcher/attempts.py",
        "return isinstance(self.ended, Loss) and self.reached <= self.start",
        "return isinstance(self.ended, Loss)",
        "tests/unit/test_attempts.py::test_losses_are_made_good_as_often_as_something_was_saved_in_between",
    ),
    Mutation(
        "training goes on before all ranks have agreed",
        "launcher/coordinator.py",
        "        if self._missing:\n            return Pending",
        "        if len(self._missing) > 1:\n            return Pending",
        _COORDINATOR + "ranks_that_have_not_acknowledged_are_named_until_all_have",
    ),
    Mutation(
        "flipped images are judged as they are",
        "launcher/tasks/classification.py",
        "model(images.flip(3))",
        "model(images)",
        "tests/integration/test_classification.py::"
        "test_scores_are_those_of_the_logits_of_every_image_whatever_the_batches",
    ),
    Mutation(
        "frozen norms are estimated anew",
        "launcher/planning.py",
        "min(wanted, row.steps) * all_learns,",
        "min(wanted, row.steps),",
        _PLAN + "frozen_norms_keep_their_statistics_until_all_learns_again",
    ),
)
