"""The compiled module: how it was built. Its operators live in ``torch.ops.pygen``."""

compiler: str
cpu_instruction_set: str
cpu_matrix_unit: bool
cuda_architectures: str
cuda_compiler: str
torch_version: str
