import pytest

from foreloom.distributed.mesh import MeshShape, ParallelConfig, mesh_shape


def test_axes() -> None:
    small, large = 10**6, 2 * 10**9
    assert mesh_shape(ParallelConfig(), world_size=8, num_parameters=small) == MeshShape("ddp", 8, 1)
    assert mesh_shape(ParallelConfig(), world_size=8, num_parameters=large) == MeshShape("fsdp", 1, 8)
    by_shard = ParallelConfig(dp_shard=4)
    assert mesh_shape(by_shard, world_size=8, num_parameters=small) == MeshShape("fsdp", 2, 4)
    by_copies = ParallelConfig(strategy="fsdp", dp_replicate=4)
    assert mesh_shape(by_copies, world_size=8, num_parameters=small) == MeshShape("fsdp", 4, 2)
    sharing = ParallelConfig(strategy="fsdp", dp_replicate=2, ep=4)
    assert mesh_shape(sharing, world_size=8, num_parameters=small) == MeshShape("fsdp", 2, 4, ep=4)
    assert not MeshShape("ddp", 8, 1).meets_in_blocks and MeshShape("ddp", 8, 1, ep=2).meets_in_blocks


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match="3 x 2, but there are 8 ranks"):
        mesh_shape(ParallelConfig(dp_replicate=3), world_size=8, num_parameters=1)
    with pytest.raises(ValueError, match="parallel.ep is 3, which does not divide the number of ranks, 8"):
        mesh_shape(ParallelConfig(ep=3), world_size=8, num_parameters=1)
    with pytest.raises(ValueError, match="no effect with strategy: ddp"):
        ParallelConfig(strategy="ddp", dp_shard=2)
