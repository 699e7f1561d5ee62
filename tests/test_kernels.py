"""Kernels by name: real names of an H100's and a CPU's, and a real profile."""

import pytest
import torch

from mpteach import kernels

# As torch's profiler prints them.
REAL = {
    "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NTN": "products",
    "nvjet_qqtst_128x256_128x6_2x1_v_bz_TNT": "products",
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas": "products",
    "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn": "products",
    "ampere_sgemm_128x64_tn": "products",
    "void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_256x128_16x3_tn_align4>("
    "cutlass_80_tensorop_s1688gemm_256x128_16x3_tn_align4::Params)": "products",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>": "products",
    "std::enable_if<true, void>::type internal::gemvx::kernel<int, int>": "products",
    "triton_tem_fused_mm_3": "products",
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_"
    "4x1x1_kernel0_0": "attention",
    "void cudnn::fusion::compute_dot_do_o_specialized<true, 128>": "attention",
    "void cudnn::fusion::convert_dq_to_16bits<true>": "attention",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 64, 4, "
    "false, false, cutlass::bfloat16_t>, false, true>": "attention",
    "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel"
    "<float, cutlass::arch::Sm80, true, 64, 64, 64, true, true>::Params)": "attention",
    "triton_red_fused__scaled_mm__to_copy_abs_amax_clamp_mul_0": "elementwise",
    "triton_poi_fused_addmm_gelu_5": "elementwise",
    "triton_poi_fused__scaled_dot_product_cudnn_attention_view_2": "elementwise",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add"
    "<float>, std::array<char*, 3ul> >": "elementwise",
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp>": "elementwise",
    "void (anonymous namespace)::elementwise_kernel_with_index<int>": "other",
    "void at_cuda_detail::cub::DeviceRadixSortOnesweepKernel<long>": "elementwise",
    "Memcpy DtoD (Device -> Device)": "elementwise",
    "Memset (Device)": "elementwise",
    "_fp8_cast_0": "elementwise",
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage)": "other",
    "aten::addmm": "products",
    "aten::_scaled_mm": "products",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "attention",
    "aten::native_layer_norm": "elementwise",
    "autograd::engine::evaluate_function: AddmmBackward0": "other",
}


@pytest.mark.parametrize("name", REAL, ids=lambda name: name[:40])
def test_a_name_tells_the_kind(name):
    assert kernels.kind(name) == REAL[name]
    assert REAL[name] in kernels.PLACES


def test_times_add_up_by_place():
    seen = [("nvjet_tst_1", 1.0), ("Memset (Device)", 4.0), ("nvjet_tst_2", 2.0)]
    expected = {"products": 3.0, "attention": 0, "elementwise": 4.0}
    assert kernels.by_place(seen) == expected | {"optimizer": 0, "other": 0}


def test_a_real_profile_finds_the_product_and_counts_no_time_twice():
    a = torch.ones(256, 256)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU]
    ) as theirs:
        a @ a
    (whole,) = [one for one in theirs.events() if one.name == "aten::matmul"]
    seen = kernels.kernels(lambda: a @ a, "cpu")
    names = [name for name, _ in seen]
    assert names == [one.name for one in theirs.events()]
    assert all(ms >= 0 for _, ms in seen) and whole.cpu_time_total > 0
    assert kernels.by_place(seen)["products"] == max(ms for _, ms in seen)
