"""The CUDA driver API of the library at $VCUDA, through ctypes: as much as kernels of other compilers need to be launched."""

import ctypes
import os

import numpy as np

MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
CLUSTER_DIMENSION = 4
JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 5, 6


class LaunchAttribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint32 * 16)]


class LaunchConfig(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("attribute_count", ctypes.c_uint32),
    ]


class TensorMap(ctypes.Structure):
    """A CUtensorMap: 128 bytes at a multiple of 64, which ctypes does not promise; `aligned` finds a place."""

    _fields_ = [("words", ctypes.c_uint64 * 16)]

    @staticmethod
    def aligned():
        room = ctypes.create_string_buffer(128 + 64)
        offset = -ctypes.addressof(room) % 64
        tensor_map = TensorMap.from_buffer(room, offset)
        tensor_map.room = room
        return tensor_map


class Device:
    """Device 0 in its primary context. Buffers are freed with `close`, so that no check calls them leaks."""

    def __init__(self):
        self.library = ctypes.CDLL(os.environ["VCUDA"])
        self.buffers = []
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        error = getattr(self.library, name)(*arguments)
        if error:
            raise RuntimeError(f"{name}: CUDA error {error}")

    def buffer(self, size_bytes):
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        self.buffers.append(address)
        return address

    def put(self, array):
        array = np.ascontiguousarray(array)
        address = self.buffer(array.nbytes)
        self.call("cuMemcpyHtoD_v2", address, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes))
        return address

    def get(self, address, shape, dtype):
        array = np.empty(shape, dtype)
        self.call("cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), address, ctypes.c_size_t(array.nbytes))
        return array

    def module(self, ptx):
        module, log = ctypes.c_void_p(), ctypes.create_string_buffer(8192)
        options = (ctypes.c_int * 2)(JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), len(log))
        error = self.library.cuModuleLoadDataEx(ctypes.byref(module), ptx.encode() + b"\0", 2, options, values)
        if error:
            raise RuntimeError(f"CUDA error {error} when the module is loaded: {log.value.decode()}")
        return module

    def tensor_map(self, address, element_type, sizes, strides_bytes, box, swizzle):
        """Sizes, strides and box from the innermost dimension on; the innermost has no stride."""
        rank, tensor_map = len(sizes), TensorMap.aligned()
        self.call(
            "cuTensorMapEncodeTiled",
            ctypes.byref(tensor_map),
            element_type,
            rank,
            address,
            (ctypes.c_uint64 * rank)(*sizes),
            (ctypes.c_uint64 * max(rank - 1, 1))(*strides_bytes),
            (ctypes.c_uint32 * rank)(*box),
            (ctypes.c_uint32 * rank)(*[1] * rank),
            0,
            swizzle,
            0,
            0,
        )
        return tensor_map

    def launch(self, module, name, grid, threads, arguments, shared_bytes=0, cluster=1):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        self.call("cuFuncSetAttribute", function, MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes)
        attribute = LaunchAttribute(CLUSTER_DIMENSION, 0, (ctypes.c_uint32 * 16)(cluster, 1, 1))
        grid = (ctypes.c_uint32 * 3)(*grid, *[1] * (3 - len(grid)))
        config = LaunchConfig(grid, (threads, 1, 1), shared_bytes, None, ctypes.pointer(attribute), int(cluster > 1))
        pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(argument) for argument in arguments])
        self.call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)
        self.call("cuCtxSynchronize")

    def assert_product(self, a, b, address):
        """That there is the product of float16 matrices a and b in float32, as near as sums of float32 get."""
        a, b = a.astype(np.float64), b.astype(np.float64)
        error = np.abs(self.get(address, (a.shape[0], b.shape[1]), np.float32) - a @ b)
        # Sums of K exact products, each at most as far off as all the roundings before it.
        bound = a.shape[1] * 2.0**-24 * (np.abs(a) @ np.abs(b))
        assert (error <= bound).all(), f"worst error {np.nanmax(error)}, {np.isnan(error).sum()} NaN"

    def close(self):
        for address in self.buffers:
            self.call("cuMemFree_v2", address)
        self.buffers.clear()
